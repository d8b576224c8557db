"""The cells of the ablation: which parts of the plan are on, for which task, with which job file.

A cell fixes in the job what it takes away from the planner, so that every cell is a job anybody could submit.
"""

import copy
import math
import statistics
from dataclasses import dataclass

RANK_MAX = 16
ALPHA = 32.0
TARGETS = ["q", "k", "v", "o", "gate", "up", "down"]
UNIFORM_BATCH = 2
# What a round is: few steps, because the slowest site has an eighth of the speed.
LOCAL_STEPS = 4
# Far more than any budget holds; the clock ends a run.
ROUNDS = 1000
DEADLINE_SECONDS = 30 * 86_400


@dataclass(frozen=True)
class Task:
    """What is learned, and how it is scored."""

    name: str
    title: str
    sequence_length: int
    learning_rate: float
    order: str
    choices: tuple[str, ...]
    score: str  # "loss" or "balanced_accuracy"
    held_out: int  # records a site
    sample: int  # of them after a round: as many as leave eight that fit the sequence, below which no site shares a score


# Rates at which few steps learn: GSM8K's questions bear four times as much as mail, whose loss leaps at 2e-3.
TASKS = {
    "gsm8k": Task("gsm8k", "GSM8K, held-out loss per token", 128, 2e-3, "shuffle", (), "loss", 32, 32),
    "mail": Task("mail", "mail, balanced accuracy", 80, 5e-4, "balanced", (" yes", " no"), "balanced_accuracy", 64, 16),
}

# Each cell adds one part to the one above it.
CELLS = {
    "uniform": "uniform LoRA: the rank that all can hold, one batch",
    "ranks": "planned ranks",
    "batch": "… and planned batches",
    "bits": "… and planned precision of base and arithmetic",
    "importance": "… and ranks by measured importance",
    "full": "full FedPipe: everything but the number of steps is the planner's",
}
ORDER = list(CELLS)


def job(task: Task, cell: str, seed: int, uniform_rank: int) -> dict:
    """The cell's job file."""
    at = ORDER.index(cell)
    on = lambda part: at >= ORDER.index(part)
    found = {
        "name": f"ablation-{task.name}-{cell}",
        "model": {"source": "file:///ablation"},  # --model takes its place
        "data": {"dataset": task.name},
        "adapter": {
            "targets": TARGETS,
            "rank": "auto" if on("ranks") else uniform_rank,
            "rank_max": RANK_MAX,
            "alpha": ALPHA,
            "importance": "sketch" if on("importance") else "uniform",
        },
        "training": {
            "optimizer": "auto" if on("full") else "adamw",
            "local_steps": LOCAL_STEPS,
            "batch": "auto" if on("batch") else UNIFORM_BATCH,
            "sequence_length": task.sequence_length,
            "learning_rate": task.learning_rate,
            "order": task.order,
            "seed": seed,
        },
        "precision": {"base": "auto", "compute": "auto"} if on("bits") else {"base": "source", "compute": "f32"},
        "rounds": {"count": ROUNDS, "quorum": "all"},
        "aggregation": {"strategy": "product"},
        "evaluation": {"choices": list(task.choices), "every": 2, "sample": task.sample},
        "deadline_seconds": DEADLINE_SECONDS,
    }
    return found


def trained(report: dict) -> dict:
    """What a plan has its sites train: two cells that agree in this are one."""
    names = ("ranks", "batch", "local_steps", "base", "kernel", "checkpoint", "optimizer")
    return {site: {name: plan[name] for name in names} for site, plan in report["plan"]["workers"].items()}


def ranks_job(task: Task, strategy: str, rank: int, seed: int, rounds: int) -> dict:
    """A job of the comparison of merging rules: everything but the rule is fixed."""
    found = copy.deepcopy(job(task, "uniform", seed, rank))
    found["name"] = f"ranks-{task.name}-{strategy}"
    found["training"] |= {"local_steps": 8, "batch": 4}
    found["rounds"]["count"] = rounds
    found["aggregation"]["strategy"] = strategy
    found["evaluation"]["every"] = rounds
    return found


# ---------------------------------------------------------------------------------------------------------------------
# What comes out of a run.
# ---------------------------------------------------------------------------------------------------------------------

# Two-sided 95 % quantiles of Student's t, by degrees of freedom.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def outcome(report: dict) -> dict:
    """The figures of a simulation that are kept."""
    run = report["run"]
    rounds = run["rounds"]
    # A score has seconds of its own, those of scoring; a point of the curve has those of the rounds' clock.
    curve = [{**run["start"], "seconds": 0.0}] if run["start"] else []
    curve += [{**one["score"], "seconds": one["ends_at"]} for one in rounds if one["score"]]
    planned = report["plan"]["workers"]
    return {
        "curve": curve,
        "rounds": len(rounds),
        "seconds": run["seconds"],
        "real_seconds": run["real_seconds"],
        "tokens": sum(site["tokens"] for one in rounds for site in one["workers"]),
        "records": sum(site["records"] for one in rounds for site in one["workers"]),
        "apart": statistics.mean(one["together"]["apart"] for one in rounds),
        "waiting": statistics.mean(one["together"]["waiting"] for one in rounds),
        "sites": {name: site(plan) | told(plan, name, rounds) for name, plan in planned.items()},
        "excluded": [trouble["worker"] for trouble in report["plan"]["excluded"]],
        "plans": 1 + sum("plan" in look for look in run["looks"]),
        "adapter": run["adapter"]["sha256"],
    }


def told(plan: dict, name: str, rounds: list[dict]) -> dict:
    """Seconds of a site's round as the first plan predicts them, and as they came."""
    spent = [site["spent"]["seconds"] for one in rounds for site in one["workers"] if site["worker"] == name]
    return {"predicted": plan["predicted"]["round_seconds"], "spent": statistics.mean(spent) if spent else None}


def site(plan: dict) -> dict:
    """What a site trains, in short."""
    ranks = [rank for row in plan["ranks"].values() for rank in row if rank > 0]
    return {
        "rank": statistics.mean(ranks) if ranks else 0,
        "weights": len(ranks),
        "batch": plan["batch"],
        "steps": plan["local_steps"],
        "base": plan["base"],
        "kernel": plan["kernel"],
        "checkpoint": plan["checkpoint"],
        "optimizer": plan["optimizer"],
    }


def seconds_here(report: dict) -> float:
    """About what a round takes here, by its plan: the steps of all sites at full speed, one after the other."""
    speeds = {site["worker"]: site["speed"] or 1.0 for site in report["sites"]}
    workers = report["plan"]["workers"].items()
    return sum(plan["local_steps"] * plan["predicted"]["step_seconds"] * speeds[name] for name, plan in workers)


def last(found: dict, what: str) -> float:
    """A score at the end, on all held-out records."""
    return found["curve"][-1][what]


def time_to(found: dict, what: str, target: float) -> float | None:
    """When a score was first as good as the target, on the straight line between two scores; None: never."""
    better = (lambda value: value <= target) if what == "loss" else (lambda value: value >= target)
    before = None
    for point in found["curve"]:
        if better(point[what]):
            if before is None or point[what] == before[what]:
                return point["seconds"]
            share = (target - before[what]) / (point[what] - before[what])
            return before["seconds"] + share * (point["seconds"] - before["seconds"])
        before = point
    return None


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half of its 95 % interval; NaN where one value has none."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return mean, math.nan
    return mean, STUDENT[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))


def effect(now: list[float], before: list[float], score: str) -> str:
    """What a part did, seed by seed: helps, hurts, or neither as far as the seeds can tell."""
    differences = [a - b for a, b in zip(now, before, strict=True)]
    mean, half = interval(differences)
    if math.isnan(half):
        return "one seed"
    if abs(mean) <= half:
        return "no measurable effect"
    better = mean < 0 if score == "loss" else mean > 0
    return "helps" if better else "hurts"
