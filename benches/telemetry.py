#!/usr/bin/env python3
"""What telemetry costs: the time of a training step of a site whose telemetry is pushed to a live collector, beside the same without.

Promises: whole fleets (`fedpipe up`, one site, one thread), started in turn with and without; what is pushed is everything,
and twenty times as often as by default; each pair gives one ratio, and the result is their median with an interval.
Writes results/telemetry.md and .json; with --model, results/telemetry-MODEL.md and .json.
Does not: build anything. Next to nothing else may run on the machine.

    cargo build --release -p fedpipe && cargo build --release -p testkit --example collector
    python3 benches/telemetry.py                    # tiny model: steps of milliseconds, the worst case; about six minutes
    python3 benches/telemetry.py --model GGUF       # a model that people train
"""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import random
import shutil
import statistics
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "scripts/chart/tests"), str(ROOT / "scripts")]
import observe  # noqa: E402
import tiny_model  # noqa: E402
from local_fleet import Failed, started, wait_for  # noqa: E402
from ports import free_port  # noqa: E402

OUT = ROOT / "out/telemetry"
WANTED = 0.01
JOB_SECONDS = 600
# Metrics once a minute and spans and records every few seconds is what the standard has; the more often, the dearer.
OFTEN = {"OTEL_METRIC_EXPORT_INTERVAL": "3000", "OTEL_BSP_SCHEDULE_DELAY": "250", "OTEL_BLRP_SCHEDULE_DELAY": "250"}


@contextlib.contextmanager
def collector(program: pathlib.Path) -> Iterator[tuple[str, dict]]:
    """A live collector's address; when it has ended, how much it took."""
    took: dict = {}
    with subprocess.Popen([str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline().strip()
        if not address:
            raise Failed(f"{program} does not start")
        yield address, took
        process.stdin.close()
        took.update(json.loads(process.stdout.readline()))


def fleet(out: pathlib.Path, length: int) -> pathlib.Path:
    """One site with records that fill a sequence."""
    words = random.Random(1)
    lines = [json.dumps({"text": " ".join(words.choice(["pear", "plum", "fig", "quince"]) for _ in range(length))}) for _ in range(64)]
    (out / "train.jsonl").write_text("\n".join(lines) + "\n")
    path = out / "fleet.toml"
    path.write_text(f'[[workers]]\nname = "site"\nthreads = 1\nprobe_seconds = 2\n[workers.datasets.text]\ntrain = "{out / "train.jsonl"}"\n')
    return path


def step_seconds(options: argparse.Namespace, endpoint: str | None) -> float:
    """Of a whole job's rounds but the first, the fastest round's mean step: what disturbs a step only makes it slower."""
    out = OUT / ("on" if endpoint else "off")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    model = options.model
    if model is None:
        model = out / "model"
        tiny_model.write(model)
    state, port = out / "state", free_port()
    api = f"http://127.0.0.1:{port}"
    # No variable of the caller's turns telemetry on where it is to be off.
    variables = {"OTEL_SDK_DISABLED": "true"} if endpoint is None else {"OTEL_SDK_DISABLED": "false", "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, **OFTEN}
    command = [options.fedpipe, "up", "--fleet", str(fleet(out, options.length)), "--state", str(state), "--listen", f"127.0.0.1:{port}"]
    with started("up", command, out, **variables) as up:
        wait_for("up", lambda: observe.answers(f"{api}/readyz"), up, out)
        pushed = json.loads(observe.call(options.fedpipe, "model", "push", str(model), "--state", str(state), "--json"))
        job = {
            "name": "telemetry",
            "model": {"digest": pushed["digest"]},
            "data": {"dataset": "text"},
            "adapter": {"targets": ["q", "v"], "rank": 8, "rank_max": 8, "alpha": 16},
            "training": {"optimizer": "adamw", "local_steps": options.steps, "batch": options.batch, "sequence_length": options.length, "learning_rate": 1e-4, "seed": 7},
            "precision": {"compute": "f32"},
            "rounds": {"count": options.rounds},
            "evaluation": {"every": options.rounds},
        }
        (out / "job.json").write_text(json.dumps(job))
        done = [options.fedpipe, "job", "submit", "--file", str(out / "job.json"), "--watch", "--api", api]
        ended = subprocess.run(done, capture_output=True, text=True, timeout=JOB_SECONDS, check=False)
        if ended.returncode != 0:
            raise Failed(f"the job failed: {ended.stdout[-500:]}{ended.stderr[-500:]}")
        job_id = json.loads(observe.call(options.fedpipe, "job", "list", "--json", "--api", api))[0]["id"]
        rounds = read(f"{api}/v1/jobs/{job_id}/rounds")["items"]
    figures = [one["workers"][0]["metrics"] for one in rounds if one["round"] > 1]
    return min(figure["compute_seconds"] / figure["steps"] for figure in figures)


def read(url: str) -> dict:
    """The JSON at an address."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def interval(ratios: list[float]) -> tuple[float, float]:
    """Within which the median lies, in 19 of 20 such measurements (bootstrap)."""
    draw = random.Random(1)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(2000))
    return medians[50], medians[1949]


def page(result: dict) -> str:
    """The results as Markdown."""
    machine = next((line.split(":", 1)[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), platform.machine())
    rows = [f"| {number} | {on * 1e3:.3f} ms | {off * 1e3:.3f} ms | {on / off - 1:+.2%} |" for number, (on, off) in enumerate(result["pairs"], 1)]
    took = ", ".join(f"{count} {kind}" for kind, count in sorted(result["took"].items()))
    return (
        "# What telemetry costs\n\n"
        f"Written by `benches/telemetry.py`: a training step of one site, pushed everything twenty times as often as by default; {machine}, {os.cpu_count()} cores, model: {result['model']}.\n\n"
        f"A step takes **{result['ratio'] - 1:+.2%}** with telemetry pushed (median of {len(rows)} pairs, {result['low'] - 1:+.2%} to {result['high'] - 1:+.2%}); wanted: under {WANTED:.0%}. "
        f"The collector took: {took}.{' Sizes: `' + result['sizes'] + '`.' if result['sizes'] else ''}\n\n"
        "| pair | with | without | difference |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fedpipe", default=str(ROOT / "target/release/fedpipe"), help="the binary")
    parser.add_argument("--collector", type=pathlib.Path, default=ROOT / "target/release/examples/collector", help="the collector")
    parser.add_argument("--model", type=pathlib.Path, help="a model to train; otherwise one of a single small block")
    parser.add_argument("--pairs", type=int, default=10, help="runs of each kind, in turn (10)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of a run, of which the first is not counted (5)")
    parser.add_argument("--steps", type=int, default=200, help="steps of a round (200)")
    parser.add_argument("--batch", type=int, default=8, help="records of a step (8)")
    parser.add_argument("--length", type=int, default=64, help="tokens of a record (64)")
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "benches/results")
    options = parser.parse_args(arguments)
    ratios, pairs = [], []
    try:
        with collector(options.collector) as (endpoint, took):
            for number in range(options.pairs):
                # Whoever comes first comes second the next time: a machine that warms up or cools down favours neither.
                order = (None, endpoint) if number % 2 else (endpoint, None)
                seconds = {where: step_seconds(options, where) for where in order}
                on, off = seconds[endpoint], seconds[None]
                pairs.append((on, off))
                ratios.append(on / off)
                print(f"pair {number + 1}: {on * 1e3:.3f} ms with, {off * 1e3:.3f} ms without: {on / off - 1:+.2%}", flush=True)
    except Failed as error:
        print(f"telemetry: {error}", file=sys.stderr)
        return 1
    if not all(took.get(kind) for kind in ("spans", "records", "metrics")):
        print(f"telemetry: the collector did not take everything: {took}", file=sys.stderr)
        return 1
    low, high = interval(ratios)
    middle = statistics.median(ratios)
    print(f"a step takes {middle - 1:+.2%} with telemetry pushed ({low - 1:+.2%} to {high - 1:+.2%}, {len(ratios)} pairs); taken: {took}; {platform.machine()}")
    sizes = [f"--{name} {getattr(options, name)}" for name in ("rounds", "steps", "batch", "length") if getattr(options, name) != parser.get_default(name)]
    result = {"sizes": " ".join(sizes), "ratio": middle, "low": low, "high": high, "pairs": pairs, "took": took, "model": options.model.name if options.model else "tiny"}
    options.results.mkdir(parents=True, exist_ok=True)
    stem = "telemetry" if options.model is None else f"telemetry-{options.model.stem.lower()}"
    (options.results / f"{stem}.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.results / f"{stem}.md").write_text(page(result))
    return 0 if middle < 1 + WANTED else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
