"""The figures of `./run mezo`, from the job's report: what report.json holds and what the terminal shows.

Promises: every figure is the job report's own, a sum or the largest of them. Does not: measure anything itself.
"""

from typing import Any

from demo_report import fetched, size

# What a site may send of a round at most: the update as it goes out, and everything else on the message bus (of a round
# of three quarters of a minute: there is a beat every three seconds).
UP_LIMIT = 1023
CONTROL_LIMIT = 8192


def figures(report: dict[str, Any], adapter_bytes: int, adapter_sha256: str, steps: int) -> dict[str, Any]:
    """What out/mezo/report.json holds. `bytes_up` is subject, headers and payload of an update as it was sent;
    `tensors_bytes_up` what it would have been as an adapter; losses are of held-out records."""
    scores = {score["round"]: score for score in report["evaluations"]}
    rounds = [round_figures(entry, scores.get(entry["round"])) for entry in report["rounds"] if entry["round"] > 0]
    workers = [worker for entry in rounds for worker in entry["workers"]]
    return {
        "steps": steps,
        "loss_before": scores[0]["loss"] if 0 in scores else None,
        "rounds": rounds,
        "most_bytes_up": max(worker["bytes_up"] for worker in workers),
        "most_control_bytes_up": max(worker["control_bytes_up"] for worker in workers),
        "bytes_up_limit": UP_LIMIT,
        "control_bytes_up_limit": CONTROL_LIMIT,
        "tensors_bytes_up": adapter_bytes,
        "adapter_sha256": adapter_sha256,
    }


def round_figures(entry: dict[str, Any], score: dict[str, Any] | None) -> dict[str, Any]:
    """One round, worker by worker."""
    # A report leaves out a count that is 0.
    zero = {"skipped_steps": 0, "control_bytes_up": 0}
    taken = ("bytes_up", "control_bytes_up", "bytes_down", "loss", "steps", "skipped_steps", "tokens_per_second", "peak_memory_bytes")
    return {
        "round": entry["round"],
        "seconds": entry["seconds"],
        "loss": score and score["loss"],
        "evaluation_bytes_down": fetched(score),
        "workers": [{"worker": one["worker"], **{name: (zero | one["metrics"])[name] for name in taken}} for one in entry["workers"]],
    }


def beyond(result: dict[str, Any]) -> list[str]:
    """What went beyond its limit, in words."""
    found = []
    for name in ("bytes_up", "control_bytes_up"):
        most, limit = result[f"most_{name}"], result[f"{name}_limit"]
        if most > limit:
            found.append(f"{name}: {most} bytes of one site in one round, the limit is {limit}")
    return found


def text(result: dict[str, Any]) -> str:
    """The closing table."""
    lines = [f"{'round':>5} {'worker':10} {'up':>8} {'control up':>11} {'down':>10} {'loss':>7} {'skipped':>8} {'tokens/s':>9} {'peak memory':>12}"]
    for entry in result["rounds"]:
        for one in entry["workers"]:
            lines.append(
                f"{entry['round']:5} {one['worker']:10} {size(one['bytes_up']):>8} {size(one['control_bytes_up']):>11} "
                f"{size(one['bytes_down']):>10} {one['loss']:7.3f} {one['skipped_steps']:8} {one['tokens_per_second']:9.1f} "
                f"{size(one['peak_memory_bytes']):>12}"
            )
    lines.append("")
    lines.append(
        f"a site sends at most {result['most_bytes_up']} bytes a round of {result['steps']} steps (and {result['most_control_bytes_up']} of "
        f"beats and acknowledgements); its adapter would have been {size(result['tensors_bytes_up'])}"
    )
    last = result["rounds"][-1]["loss"]
    if result["loss_before"] is not None and last is not None:
        lines.append(f"held-out loss {result['loss_before']:.4f} before, {last:.4f} after {len(result['rounds'])} rounds")
    return "\n".join(lines)
