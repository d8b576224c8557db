#!/usr/bin/env python3
"""A small fleet with a job under observation: Prometheus scrapes every process; Grafana and a collector where a container engine runs.

Promises: everything listens on loopback; what could not be started is said, with the next step; nothing keeps running afterwards.
The model has learned nothing and the records are made up: this shows dashboards and alerts, not training.
Does not: build the binary or fetch the servers (`./run observe` does, before).
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

from local_fleet import ROOT, Failed, started, wait_for
from ports import free_port

sys.path.insert(0, str(ROOT / "scripts/chart/tests"))
import tiny_model  # noqa: E402

SITES = {"north": 900, "south": 600, "west": 400}  # tokens a second
COMPOSE = ROOT / "k8s/observe/compose.yaml"
COLLECTOR = "http://127.0.0.1:4317"


def answers(url: str) -> bool:
    """Whether somebody says 200 there."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def fleet(out: pathlib.Path) -> pathlib.Path:
    """Sites with made-up records, each at its own pace."""
    tables = []
    for site, pace in SITES.items():
        folder = out / "data" / site
        folder.mkdir(parents=True)
        for part in ("train", "held_out"):
            lines = [json.dumps({"prompt": f"{site} asks {part} {number}: is it even?", "completion": " no" if number % 2 else " yes"}) for number in range(64)]
            (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n")
        tables.append(
            f'[[workers]]\nname = "{site}"\nthreads = 1\nmemory_limit = "1GiB"\nprobe_seconds = 5\nthrottle_tokens_per_second = {pace}\n'
            f'[workers.datasets.mail]\ntrain = "{folder / "train.jsonl"}"\nheld_out = "{folder / "held_out.jsonl"}"\n'
        )
    path = out / "fleet.toml"
    path.write_text("\n".join(tables))
    return path


def targets(state: pathlib.Path) -> list[dict]:
    """Where each process serves its metrics at present: a process that died comes back at another port."""
    found = []
    for path in sorted((state / "run").glob("*.health")):
        address = path.read_text().strip()
        if address:
            found.append({"targets": [address], "labels": {"namespace": "local", "pod": path.stem}})
    return found


def write_targets(state: pathlib.Path, out: pathlib.Path) -> None:
    """For Prometheus, which looks at the file again when it changes."""
    partial, final = out / "targets.json.partial", out / "targets.json"
    partial.write_text(json.dumps(targets(state)))
    if not final.exists() or partial.read_text() != final.read_text():
        partial.rename(final)


def prometheus_command(tools: pathlib.Path, out: pathlib.Path, port: int) -> list[str]:
    """A server that keeps its data under `out`."""
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "5s"},
        "rule_files": [str(ROOT / "helm/fedpipe/alerts/fedpipe.rules.yaml")],
        "scrape_configs": [{"job_name": "fedpipe", "file_sd_configs": [{"files": [str(out / "targets.json")], "refresh_interval": "5s"}]}],
    }
    (out / "prometheus.yml").write_text(json.dumps(configuration, indent=1))
    return [str(tools / "bin/prometheus"), f"--config.file={out}/prometheus.yml", f"--storage.tsdb.path={out}/prometheus", f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]


def engine() -> tuple[list[str] | None, str]:
    """The command of a container engine that runs here and knows compose; otherwise why there is none."""
    for name in ("docker", "podman"):
        if shutil.which(name) and subprocess.run([name, "info"], capture_output=True, check=False).returncode == 0:
            if subprocess.run([name, "compose", "version"], capture_output=True, check=False).returncode == 0:
                return [name, "compose"], ""
            return None, f"{name} runs, but has no compose"
    return None, "no container engine runs here"


@contextlib.contextmanager
def containers(prometheus: str, out: pathlib.Path) -> Iterator[bool]:
    """Grafana and the collector, if they can be had; otherwise it is said how to do without."""
    command, why = engine()
    if command is None:
        print(f"observe: not started: Grafana and the collector ({why}).")
        print("  Next: import helm/fedpipe/dashboards/*.json into a Grafana of yours with this Prometheus as its datasource.")
        yield False
        return
    compose, variables = [*command, "--file", str(COMPOSE)], {**os.environ, "PROMETHEUS_URL": prometheus}
    with (out / "compose.log").open("wb") as log:
        up = subprocess.run([*compose, "up", "--detach"], env=variables, stdout=log, stderr=log, check=False).returncode == 0
    print("observe: Grafana at http://127.0.0.1:3000" if up else f"observe: not started: Grafana and the collector. Next: read {out}/compose.log")
    try:
        yield up
    finally:
        subprocess.run([*compose, "down", "--volumes"], env=variables, capture_output=True, check=False)


def submit(fedpipe: str, api: str, out: pathlib.Path, rounds: int) -> str:
    """A job's id."""
    tiny_model.write(out / "model")
    pushed = json.loads(call(fedpipe, "model", "push", str(out / "model"), "--state", str(out / "state"), "--json"))
    job = {
        "name": "observed",
        "model": {"digest": pushed["digest"]},
        "data": {"dataset": "mail"},
        "adapter": {"targets": ["q", "v"], "rank_max": 8, "alpha": 16},
        "training": {"optimizer": "adamw", "local_steps": 20, "sequence_length": 64, "learning_rate": 1e-2, "seed": 7},
        "rounds": {"count": rounds},
        "evaluation": {"choices": [" yes", " no"]},
    }
    (out / "job.json").write_text(json.dumps(job, indent=1))
    return json.loads(call(fedpipe, "job", "submit", "--file", str(out / "job.json"), "--json", "--api", api))["id"]


def call(fedpipe: str, *arguments: str) -> str:
    """What a command of the binary prints."""
    done = subprocess.run([fedpipe, *arguments], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise Failed(f"`fedpipe {' '.join(arguments)}`: {done.stdout}{done.stderr}")
    return done.stdout


def observe(fedpipe: str, tools: pathlib.Path, out: pathlib.Path, rounds: int, stay: bool) -> None:
    """The fleet, the servers that look at it, a job; then it waits to be told to stop."""
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    state, api_port, prometheus_port = out / "state", free_port(), free_port()
    api, prometheus = f"http://127.0.0.1:{api_port}", f"http://127.0.0.1:{prometheus_port}"
    with contextlib.ExitStack() as stack:
        collected = stack.enter_context(containers(prometheus, out))
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": COLLECTOR} if collected else {}
        command = [fedpipe, "up", "--fleet", str(fleet(out)), "--state", str(state), "--listen", f"127.0.0.1:{api_port}", "--nats-server", str(tools / "bin/nats-server")]
        up = stack.enter_context(started("up", command, out, **variables))
        wait_for("up", lambda: answers(f"{api}/readyz"), up, out)
        write_targets(state, out)
        server = stack.enter_context(started("prometheus", prometheus_command(tools, out, prometheus_port), out))
        wait_for("prometheus", lambda: answers(f"{prometheus}/-/ready"), server, out)
        job = submit(fedpipe, api, out, rounds)
        print(f"observe: {job} runs; Prometheus at {prometheus}, alerts at {prometheus}/alerts, api at {api}", flush=True)
        while True:
            write_targets(state, out)
            phase = json.loads(call(fedpipe, "job", "get", job, "--json", "--api", api))["phase"]
            if phase in ("succeeded", "failed", "cancelled") and not stay:
                print(f"observe: {job} {phase}")
                return
            time.sleep(2)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", type=pathlib.Path, required=True, help="where `./run setup` installed the servers")
    parser.add_argument("--fedpipe", required=True, help="the binary")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of the job (20)")
    parser.add_argument("--until-done", action="store_true", help="end with the job; otherwise with Ctrl-C")
    options = parser.parse_args(arguments)
    try:
        observe(options.fedpipe, options.tools.absolute(), ROOT / "out/observe", options.rounds, not options.until_done)
    except Failed as error:
        print(f"observe: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("observe: stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
