"""Ports for servers of scripts."""

import pathlib
import socket
import sys
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import ports  # noqa: E402


class Ports(unittest.TestCase):
    def test_no_port_is_given_twice_nor_one_that_is_taken(self):
        with socket.socket() as taken:
            first = ports.free_port()
            chosen = range(first, first + 4)
            held = next(port for port in chosen if port != first and ports._is_free(port))
            taken.bind(("127.0.0.1", held))
            with mock.patch.object(ports, "PORTS", chosen):
                given = []
                with self.assertRaisesRegex(OSError, f"no port from {first} to {first + 3} is free"):
                    while True:
                        given.append(ports.free_port())
        self.assertNotIn(first, given)
        self.assertNotIn(held, given)
        self.assertEqual(len(given), len(set(given)))


if __name__ == "__main__":
    unittest.main()
