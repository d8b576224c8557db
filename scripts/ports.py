"""Free ports of the loopback interface, for servers that scripts start.

Promises: a process is given no port twice, also while nobody listens on it yet; none lies in the range from which the
kernel takes ports for outgoing connections, so a client that reconnects is not given a port that a server is about to take.
"""

import random
import socket

# Below the kernel's own (32768 on), above those of the Rust tests' servers.
PORTS = range(28_000, 32_000)

_given: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on, and that was not given before."""
    for port in random.sample(PORTS, len(PORTS)):
        if port not in _given and _is_free(port):
            _given.add(port)
            return port
    raise OSError(f"no port from {PORTS.start} to {PORTS.stop - 1} is free on 127.0.0.1: stop what listens there")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
