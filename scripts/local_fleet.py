"""A fleet on this machine for a script to show: started, spoken to, stopped.

Promises: everything goes through the command line and REST interface that anybody has; nothing keeps running afterwards,
however it ends. Does not: build the binary, or know what is shown.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

ROOT = pathlib.Path(__file__).resolve().parent.parent
READY_SECONDS = 60
STOP_SECONDS = 30
ADDRESS = "127.0.0.1:8080"


class Failed(Exception):
    """What went wrong and what to do next, in words for the terminal."""


class Api:
    """The REST interface, as far as a show reads it."""

    def __init__(self, address: str):
        self.base = f"http://{address}"

    def get(self, path: str) -> dict:
        """The JSON answer to a GET."""
        try:
            with urllib.request.urlopen(f"{self.base}{path}", timeout=30) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise Failed(f"GET {path}: {error.code}: {error.read().decode(errors='replace')[:300]}") from error
        except OSError as error:
            raise Failed(f"GET {path}: {error}") from error

    def ready(self) -> bool:
        """Whether the service answers and calls itself ready."""
        try:
            return bool(self.get("/readyz"))
        except Failed:
            return False


def heading(words: str) -> None:
    """A line that starts a new part of the show."""
    print(f"\n── {words} " + "─" * max(0, 100 - len(words)), flush=True)


@contextlib.contextmanager
def running(fedpipe: str, fleet: str, out: pathlib.Path) -> Iterator[Api]:
    """All services of `fedpipe up` with this fleet file, ready; stopped at the end by signal, and by force if that is not
    enough. State and log lie in `out`."""
    command = [fedpipe, "up", "--fleet", fleet, "--state", str(out / "state"), "--listen", ADDRESS]
    with started("up", command, out) as process:
        api = Api(ADDRESS)
        wait_for("up", api.ready, process, out)
        yield api


@contextlib.contextmanager
def started(name: str, command: list[str], out: pathlib.Path, **variables: str) -> Iterator[subprocess.Popen]:
    """A process with a log in `out`, told to end at the end, and ended by force if that is not enough."""
    with (out / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **variables}, start_new_session=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(name: str, ready: Callable[[], bool], process: subprocess.Popen, out: pathlib.Path) -> None:
    """Until a process that was started is ready."""
    log, end = out / f"{name}.log", time.monotonic() + READY_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            raise Failed(f"{name} is not ready. Next: read {log}\n{last_lines(log)}")
        time.sleep(0.1)


def last_lines(path: pathlib.Path) -> str:
    """The end of a log."""
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])


def call(fedpipe: str, out: pathlib.Path, *arguments: str) -> None:
    """A command of the binary, its output shown as it comes."""
    done = subprocess.run([fedpipe, *arguments], env={**os.environ, "FEDPIPE_API": f"http://{ADDRESS}"}, check=False)
    if done.returncode != 0:
        raise Failed(f"`fedpipe {' '.join(arguments)}` ended with {done.returncode}; the services' log is {out / 'up.log'}")


def adapter_of_latest(api: Api, fedpipe: str, out: pathlib.Path) -> tuple[str, dict, dict]:
    """The latest job's adapter, fetched into `out`: the job's id, its plan, its report."""
    job = api.get("/v1/jobs?limit=1")["items"][0]["id"]
    call(fedpipe, out, "job", "adapter", job, "-o", str(out / "adapter"))
    return job, api.get(f"/v1/jobs/{job}/plan"), api.get(f"/v1/jobs/{job}/report")


def show(name: str, run: Callable[[], None]) -> int:
    """Runs a show from the repository's root; its exit code."""
    os.chdir(ROOT)
    try:
        run()
    except Failed as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: stopped", file=sys.stderr)
        return 130
    return 0
