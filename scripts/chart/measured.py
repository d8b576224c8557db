"""The table of docs/operate.md with what was measured: how long processes take to end and to be ready, and what telemetry costs.

Promises: every figure is of benches/results, with the command that measures it again. Does not: measure.
"""

import json
import pathlib
import statistics

from helmchart import ROOT

RESULTS = ROOT / "benches/results"
CONTROL = ("api", "profiler", "planner", "aggregator")


def table(results: pathlib.Path = RESULTS) -> str:
    """In Markdown; one row of telemetry for each model that it was measured with."""
    rows = [*processes(json.loads((results / "processes.json").read_text()))]
    rows += [telemetry(json.loads(path.read_text())) for path in sorted(results.glob("telemetry*.json"))]
    return "\n".join(["| what | measured | of | measured again by |", "|---|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)])


def processes(found: dict[str, list[tuple[float, float]]]) -> list[tuple[str, ...]]:
    """A row for each kind of process: the median and the longest; of the control services, the slowest one's."""
    times = len(found["worker, idle"])
    command = f"`python3 benches/processes.py --times {times}`"
    ends = {name: [end for end, _ in pairs] for name, pairs in found.items()}
    starts = {name: [ready for _, ready in pairs] for name, pairs in found.items()}
    trains = "in the middle of a round of SmolLM2-135M, rank 16 on every projection; it keeps the round"
    return [
        ("from SIGTERM until a worker that trains has ended", seconds(ends["worker, training"]), trains, command),
        ("from SIGTERM until an idle worker has ended", seconds(ends["worker, idle"]), "registered, without a task", command),
        ("from SIGTERM until a control service has ended", seconds(slowest(ends)), "the slowest of the four, while a job runs", command),
        ("from `fedpipe worker` until it is ready", seconds(starts["worker, idle"]), "started again, with 96 records; each data set's records are counted first", command),
        ("from a control service's start until it is ready", seconds(slowest(starts)), "the slowest of the four, while a job runs", command),
    ]


def slowest(figures: dict[str, list[float]]) -> list[float]:
    """Those of the control service that takes longest."""
    return max((figures[f"{name}, a job runs"] for name in CONTROL), key=statistics.median)


def seconds(figures: list[float]) -> str:
    """The median, and the longest."""
    return f"{statistics.median(figures):.2f} s (longest {max(figures):.2f} s)"


def telemetry(found: dict) -> tuple[str, ...]:
    """What a step takes more when everything is pushed."""
    pairs = found["pairs"]
    step = statistics.median(without for _, without in pairs)
    shown = f"{step * 1000:.1f} ms" if step < 0.1 else f"{step:.2f} s"
    tiny = found["model"] == "tiny"
    model = "a model of one small block, made to be the worst case" if tiny else found["model"]
    sizes = f" {found['sizes']}" if found["sizes"] else ""
    command = f"`python3 benches/telemetry.py --pairs {len(pairs)}{sizes}{'' if tiny else ' --model GGUF'}`"
    share = f"{found['ratio'] - 1:+.2%} ({found['low'] - 1:+.2%} to {found['high'] - 1:+.2%})"
    return ("what telemetry, pushed twenty times as often as by default, adds to a step", share, f"steps of {shown}: {model}", command)
