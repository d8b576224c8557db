"""The demonstration's figures, from the job's report: what report.json holds and what the terminal shows.

Promises: every figure is the job report's own or a sum of them. Does not: measure anything itself.
"""

from typing import Any


def figures(report: dict[str, Any], adapter_sha256: str) -> dict[str, Any]:
    """What out/demo/report.json holds. Accuracies are balanced; seconds are wall time; bytes are of all sites together."""
    scores = {score["round"]: score for score in report["evaluations"]}
    # Round 0 is the untrained adapter: it has a score, and nobody worked in it.
    rounds = [entry for entry in report["rounds"] if entry["round"] > 0]
    first, last = scores[0], scores[rounds[-1]["round"]]
    return {
        "accuracy_before": first["balanced_accuracy"],
        "accuracy_after": last["balanced_accuracy"],
        "accuracy_constant": 0.5,
        "held_out": last["records"],
        "before": {"seconds": seconds(first), "bytes_down": fetched(first)},
        "rounds": [round_figures(entry, scores.get(entry["round"])) for entry in rounds],
        "adapter_sha256": adapter_sha256,
    }


def round_figures(entry: dict[str, Any], score: dict[str, Any] | None) -> dict[str, Any]:
    """One round. `accuracy` is on the fixed sample, in the last round on all held-out mails. What scoring the round's adapter
    fetched is in `bytes_down`: the next round then finds it there; `evaluation_bytes_down` is that part of it."""
    workers = entry["workers"]
    return {
        "round": entry["round"],
        "accuracy": score and score["balanced_accuracy"],
        "accuracy_on": score and score["records"],
        "seconds": entry["seconds"],
        "overhead_seconds": entry["overhead_seconds"],
        "evaluation_seconds": score and seconds(score),
        "evaluation_bytes_down": fetched(score),
        "bytes_up": sum(worker["metrics"]["bytes_up"] for worker in workers),
        "bytes_down": fetched(score) + sum(worker["metrics"]["bytes_down"] for worker in workers),
        "control_bytes_up": sum(worker["metrics"]["control_bytes_up"] for worker in workers),
        "workers": [
            {
                "worker": worker["worker"],
                "rank": worker["rank"],
                "batch": worker["batch"],
                "tokens_per_second": worker["metrics"]["tokens_per_second"],
                "peak_memory_bytes": worker["metrics"]["peak_memory_bytes"],
                "loss": worker["metrics"]["loss"],
                "step_seconds": worker["metrics"]["compute_seconds"] / max(1, worker["metrics"]["steps"]),
            }
            for worker in workers
        ],
    }


def fetched(score: dict[str, Any] | None) -> int:
    """Bytes that the sites fetched to score."""
    return score["detail"]["score"]["bytes_down"] if score else 0


def seconds(score: dict[str, Any]) -> float:
    """Wall time from asking for a score to having it."""
    return score["detail"]["seconds"]


def plan_text(plan: dict[str, Any]) -> str:
    """Each worker's plan in a line, and why in the next."""
    lines = []
    for name, worker in sorted(plan["workers"].items()):
        ranks = sorted({rank for row in worker["ranks"].values() for rank in row})
        lines.append(
            f"{name}: rank {'/'.join(map(str, ranks))}, batch {worker['batch']}, {worker['local_steps']} steps, "
            f"{worker['threads']} thread(s), base {worker['base']}, {worker['kernel']}"
        )
        lines.append(f"  {worker['why']['text']}")
    return "\n".join(lines)


def kept_text(plan: dict[str, Any], result: dict[str, Any]) -> str:
    """What the plan expected of each worker's round, and what became of it in the last."""
    lines = [f"{'worker':10} {'memory planned':>15} {'at most seen':>13} {'limit binds':>12} {'step planned':>13} {'seen':>8}"]
    for name, worker in sorted(plan["workers"].items()):
        seen = [one for entry in result["rounds"] for one in entry["workers"] if one["worker"] == name]
        if not seen:
            continue
        peak = max(one["peak_memory_bytes"] for one in seen)
        lines.append(
            f"{name:10} {size(worker['predicted']['peak_memory_bytes']):>15} {size(peak):>13} {worker['why']['binding']:>12} "
            f"{worker['predicted']['step_seconds']:11.2f} s {seen[-1]['step_seconds']:6.2f} s"
        )
    return "\n".join(lines)


def text(result: dict[str, Any]) -> str:
    """The closing table."""
    lines = [f"{'round':>5} {'accuracy':>9} {'of mails':>8} {'seconds':>8} {'overhead':>9} {'up':>10} {'down':>10} {'control up':>11}"]
    for entry in result["rounds"]:
        accuracy = "–" if entry["accuracy"] is None else f"{entry['accuracy']:.3f}"
        lines.append(
            f"{entry['round']:5} {accuracy:>9} {entry['accuracy_on'] or '–':>8} {entry['seconds']:8.1f} {entry['overhead_seconds']:9.2f} "
            f"{size(entry['bytes_up']):>10} {size(entry['bytes_down']):>10} {size(entry['control_bytes_up']):>11}"
        )
    lines.append("")
    lines.append(f"{'round':>5} {'worker':10} {'rank':>5} {'batch':>6} {'tokens/s':>9} {'peak memory':>12} {'loss':>7}")
    for entry in result["rounds"]:
        for worker in entry["workers"]:
            lines.append(
                f"{entry['round']:5} {worker['worker']:10} {worker['rank']:5} {worker['batch']:6} {worker['tokens_per_second']:9.1f} "
                f"{size(worker['peak_memory_bytes']):>12} {worker['loss']:7.3f}"
            )
    lines.append("")
    lines.append(
        f"balanced accuracy on {result['held_out']} held-out mails: {result['accuracy_before']:.3f} before, "
        f"{result['accuracy_after']:.3f} after (a constant answer: {result['accuracy_constant']:.3f})"
    )
    return "\n".join(lines)


def size(count: float) -> str:
    """Bytes for people, in powers of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")
