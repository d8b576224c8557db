#!/usr/bin/env python3
"""How long processes take: from `fedpipe worker` to ready, and from SIGTERM to their end, idle and in the middle of a job.

Promises: everything runs under `fedpipe up` on this machine, and each process that is measured ends well (exit code 0) or the measurement
fails; the job ends with an adapter although each process was told to end several times. Writes results/processes.md and .json.
Does not: build the binary, or fetch NATS and the model (`./run setup nats smollm2` does).

    python3 benches/processes.py [--fedpipe target/release/fedpipe] [--tools .tools] [--times 5]
"""

import argparse
import json
import os
import pathlib
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import local_fleet  # noqa: E402
from local_fleet import Api, Failed, running  # noqa: E402
from ports import free_port  # noqa: E402

CONTROL = ("api", "profiler", "planner", "aggregator")
SITES = ("north",)
STEPS, RECORDS = 400, 96
PATIENCE_SECONDS = 120
MEASURED_SECONDS = 900  # until the site has measured itself
TICKS = os.sysconf("SC_CLK_TCK")


def until(what: str, find, seconds: float = PATIENCE_SECONDS):
    """The first true value of `find`; it is looked at every 2 ms."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = find()
        if value:
            return value
        time.sleep(0.002)
    raise Failed(f"not within {seconds} s: {what}")


def processes(up: int) -> dict[str, int]:
    """Name → pid of the living children of `fedpipe up`."""
    found = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:2]
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if int(parent) == up and state != "Z" and b"--config" in arguments:
            path = arguments[arguments.index(b"--config") + 1].decode()
            found[pathlib.Path(path).stem] = int(folder.name)
    return found


def alive(pid: int) -> bool:
    """Whether a process has not ended."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def age(pid: int) -> float:
    """Seconds since a process was started, to a hundredth."""
    started = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]) / TICKS
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


class Fleet:
    """A running fleet whose processes are told to end."""

    def __init__(self, out: pathlib.Path, api: Api):
        self.out, self.api = out, api
        self.up = next(pid for pid in children(os.getpid()) if "up" in pathlib.Path(f"/proc/{pid}/cmdline").read_text().split("\0"))

    def ready(self, name: str) -> bool:
        """Whether a process says that it is ready."""
        try:
            address = (self.out / f"state/run/{name}.health").read_text().strip()
            with urllib.request.urlopen(f"http://{address}/readyz", timeout=5) as answer:
                return answer.status == 200
        except (OSError, ValueError):
            return False

    def replace(self, name: str) -> tuple[float, float]:
        """Seconds from SIGTERM to its end, and from its successor's start until that is ready."""
        old = processes(self.up)[name]
        began = time.monotonic()
        os.kill(old, signal.SIGTERM)
        until(f"{name} ends", lambda: not alive(old))
        drained = time.monotonic() - began
        new = until(f"{name} is started again", lambda: processes(self.up).get(name))
        until(f"{name} is ready", lambda: self.ready(name))
        return drained, age(new)


def children(parent: int) -> list[int]:
    """Pids of a process's children."""
    return [int(pid) for pid in pathlib.Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def fleet_file(out: pathlib.Path) -> str:
    """A site with made-up records."""
    tables = []
    for site in SITES:
        path = out / f"{site}.jsonl"
        lines = [json.dumps({"prompt": f"{site} asks: is {number} even? Answer:", "completion": " no" if number % 2 else " yes"}) for number in range(RECORDS)]
        path.write_text("\n".join(lines) + "\n")
        tables.append(f'[[workers]]\nname = "{site}"\nthreads = 1\nmemory_limit = "1GiB"\nprobe_seconds = 2\n[workers.datasets.sums]\ntrain = "{path}"\n')
    (out / "fleet.toml").write_text("\n".join(tables))
    return str(out / "fleet.toml")


def submit(fedpipe: str, out: pathlib.Path, model: pathlib.Path) -> str:
    """A job of one long round; its id."""
    digest = json.loads(call(fedpipe, "model", "push", str(model), "--state", str(out / "state"), "--json"))["digest"]
    job = {
        "name": "processes",
        "model": {"digest": digest},
        "data": {"dataset": "sums"},
        "adapter": {"targets": ["q", "k", "v", "o", "gate", "up", "down"], "rank": 16, "rank_max": 16, "alpha": 32},
        "training": {"optimizer": "adamw", "local_steps": STEPS, "batch": 2, "sequence_length": 64, "learning_rate": 1e-4, "seed": 7},
        "rounds": {"count": 1, "quorum": "all"},
    }
    (out / "job.json").write_text(json.dumps(job))
    return json.loads(call(fedpipe, "job", "submit", "--file", str(out / "job.json"), "--json", "--api", f"http://{local_fleet.ADDRESS}"))["id"]


def call(fedpipe: str, *arguments: str) -> str:
    """What a command prints."""
    done = subprocess.run([fedpipe, *arguments], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    if done.returncode != 0:
        raise Failed(f"`fedpipe {' '.join(arguments)}`: {done.stdout}{done.stderr}")
    return done.stdout


def steps(api: Api, job: str, site: str) -> int:
    """Steps that a site has made of its round."""
    try:
        found = [one for one in api.get(f"/v1/jobs/{job}")["sites"] if one["worker"] == site]
    except Failed:
        return 0  # the api is being replaced
    training = found and found[0]["stage"] == "training" and found[0]["progress"]
    return training["done"] if training else 0


def measure(fedpipe: str, tools: pathlib.Path, out: pathlib.Path, times: int) -> dict:
    """Seconds of each kind of process, idle and at work."""
    model = next((tools / "models/smollm2-135m-instruct").glob("*.gguf"))
    worker = f"worker-{SITES[0]}"
    found: dict[str, list[tuple[float, float]]] = {}
    with running(fedpipe, fleet_file(out), out) as api:
        fleet = Fleet(out, api)
        until("the worker is ready", lambda: fleet.ready(worker))
        found["worker, idle"] = [fleet.replace(worker) for _ in range(times)]
        job = submit(fedpipe, out, model)
        reached = 0
        for _ in range(times):
            # Further than before: what was trained is not trained again.
            goal = reached + 3
            until("the site trains", lambda goal=goal: steps(api, job, SITES[0]) >= goal, MEASURED_SECONDS)
            reached = steps(api, job, SITES[0])
            found.setdefault("worker, training", []).append(fleet.replace(worker))
        for name in CONTROL:
            found[f"{name}, a job runs"] = [fleet.replace(name) for _ in range(times)]
        until("the site goes on", lambda: steps(api, job, SITES[0]) > reached)
        call(fedpipe, "job", "cancel", job, "--api", f"http://{local_fleet.ADDRESS}")
    log = "".join(path.read_text(errors="replace") for path in (out / "state/logs").glob(f"{worker}.log*"))
    taken_up, told = log.count("the round goes on"), (out / "up.log").read_text()
    if taken_up < times:
        raise Failed(f"the round was taken up {taken_up} times of {times}; the log is {out}/state/logs/{worker}.log")
    ends = [line for line in told.splitlines() if " ended: " in line]
    bad = [line for line in ends if "exit code 0" not in line]
    if bad or len(ends) < times * (2 + len(CONTROL)):
        raise Failed("not every process ended well:\n" + "\n".join(bad or ends))
    return found


def page(found: dict[str, list[tuple[float, float]]]) -> str:
    """The results as Markdown."""

    def cell(values: list[float]) -> str:
        return f"{statistics.median(values):.2f} s ({max(values):.2f})"

    rows = [f"| {name} | {cell([drain for drain, _ in pairs])} | {cell([ready for _, ready in pairs])} |" for name, pairs in found.items()]
    machine = next((line.split(":", 1)[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), platform.machine())
    times = len(next(iter(found.values())))
    return (
        "# How long processes take\n\n"
        f"Written by `benches/processes.py`: median of {times}, the longest in brackets; {machine}, {os.cpu_count()} cores, SmolLM2-135M.\n"
        "A worker that trains finishes the block that it computes, and writes adapter and moments of its round (rank 16 on every projection) to its disk.\n\n"
        "| process | from SIGTERM to its end | from its start until ready |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fedpipe", default=str(ROOT / "target/release/fedpipe"))
    parser.add_argument("--tools", type=pathlib.Path, default=os.environ.get("FEDPIPE_TOOLS") or ROOT / ".tools")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "benches/results")
    options = parser.parse_args(arguments)
    out = ROOT / "out/processes"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    local_fleet.ADDRESS = f"127.0.0.1:{free_port()}"
    os.environ.setdefault("FEDPIPE_TOOLS", str(options.tools.absolute()))
    try:
        found = measure(options.fedpipe, options.tools.absolute(), out, options.times)
    except Failed as error:
        print(f"processes: {error}", file=sys.stderr)
        return 1
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "processes.json").write_text(json.dumps(found, indent=1) + "\n")
    (options.results / "processes.md").write_text(page(found))
    print(page(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
