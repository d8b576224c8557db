"""The zeroth-order parts of the ablation: FedMeZO as in its paper, tuned, each extension, first-order at the same number of
forward-equivalent passes, both kinds of sites in one job; and rates of each site's own.

Promises: every cell is a job anybody could submit; cells of a table have the same budget of passes and differ only in what
they are named for, but for those of `OTHER_ROUNDS` and the paper's, which is a stretch of its run whatever the others have. Does not: run
anything; `ablation_zeroth_run.py` does.
"""

import copy
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import ablation_cells as cells

# A step by gradients is a forward pass and a backward of about twice its products.
FIRST_ORDER_PASSES = 3
# The least that both kinds of steps come to evenly: 6 steps of 4 directions are 48 passes, 16 steps by gradients as many.
STEPS, DIRECTIONS = 6, 4
PASSES = 2 * STEPS * DIRECTIONS
# Eight mails take twice the time of two (small model), and bear a rate at which two blow up in the sixth round. A question has words enough for two of them
# to tell as much of the slope, which is more the directions' than the records'.
BATCH = {"mail": 8, "gsm8k": 2}
RANK = 8
# The most; the time that is given decides (`rounds_in`), which leaves room for these at least: a cell that differs from the second
# round on has three of its own.
ROUNDS = {"small": 40, "smollm2": 12}
LEAST_ROUNDS = 4
# Rounds of the paper's run, and how many of them stand here.
PAPER_RUN = 500
PAPER_ROUNDS = 20
PAPER_STEPS = 30
# How far a model may be moved depends on what it is asked. Of the small model's mail, among its two answers, twenty rounds come to a balanced accuracy
# of 0.78 at this rate with scalars clipped so; without, it blows up in the thirteenth, and at a third of the rate the loss has only begun to tell the
# two apart in the twelfth. Its GSM8K falls by 0.004 in four rounds at 4e-2, rises from the third on at 6e-2 and blows up in the second at 8e-2.
# SmolLM2 has five times the numbers to move. Its mail falls from 1.106 to 0.895 in five rounds at 8e-3, and to 1.006 in six at 3e-3; of its GSM8K
# nothing was tried but a fifth of the small model's rate.
RATE = {"small-mail": 1e-2, "small-gsm8k": 3e-2, "smollm2-mail": 8e-3, "smollm2-gsm8k": 6e-3}
CLIP = {"mail": 2, "gsm8k": 1}
# Of a loss among all words: mail's is 10 at first, and slopes as much larger. With two records ten rounds take it to 6.5, and at three times as much it
# blows up in the third.
WORDS_RATE = {"small-mail": 3e-3, "smollm2-mail": 5e-4}
WORDS_CLIP = 20

CELLS = {
    "paper": "FedMeZO with the paper's H 30, batch 1, μ 1e-3, η 1e-5 on q and v (rank 16 and a model of this size, where it has rank 128 and 3B parameters)",
    "tuned": f"FedMeZO tuned: {DIRECTIONS} directions, μ 1e-2, scalars clipped; where answers are choices the loss is among these",
    "words": "tuned, but the loss is of all words, at the rate that this bears",
    "abreast": "tuned, the passes of a step computed as one (some rounds: it changes speed alone)",
    "variance": f"tuned, directions until the estimate varies no more than tuned's own did in the mean of a first round (at most {2 * DIRECTIONS})",
    "mask": "tuned, a quarter of the numbers moves (largest after the first round)",
    "scaling": "tuned, directions scaled as in HiSo",
    "adamw": "first-order: AdamW LoRA",
    "long": "tuned, many more rounds: how far it comes",
}
# Rates of sites beside gradients, of those above: half the directions bear half the rate. Of GSM8K that is more than they find: with two seeds the
# mixed fleet's loss was 0.009 and 0.014 above that of its first-order sites alone; and of SmolLM2's mail, 0.028 in eight rounds with one. These have
# the default, a tenth of the others' rate.
BESIDE_RATE_SHARE = {"small-mail": 0.5}
# What SmolLM2 shows by default; the small model shows all.
HEADLINE = ("paper", "tuned", "adamw")
# Both kinds of sites in one job, a table of its own: its third site has no room for gradients.
MIXED, WITHOUT = "mixed", "without"
BOTH = {MIXED: "two first-order sites and one without room for gradients", WITHOUT: "the two first-order sites alone"}
# Where another number of rounds is the point: they are not compared by loss, and run with so many of the seeds.
ABREAST, LONG = "abreast", "long"
OTHER_ROUNDS = {ABREAST: 1, LONG: 1}
ABREAST_ROUNDS = 2
LONG_TIMES = 3
# Whose loss is of all words where the others' is among the answers: they are compared by what they answer.
PAPER, WORDS = "paper", "words"
BY_WORDS = (PAPER, WORDS)
# Extensions are run with so many of the seeds, and compared with the tuned cell's same ones; what is promised is of all.
OTHER_SEEDS = 2
# How often a run is scored, about.
SCORES = 6

RATES = {
    "fixed": "one rate for all",
    "random": "drawn anew for each site and round",
    "round-loss": "by the loss of the round before",
    "five-round-loss": "by the mean loss of five rounds",
    "model-difference": "by how far a site's change lies from the mean",
}
RATES_ROUNDS = 20

# Whose bound is a share of the mean square of tuned's scalars in a first round. An estimate of n directions varies, in each number, by the
# mean square over n: with this share by no more than tuned's own in the mean, so that it takes about as many directions where slopes are as
# large, and more or fewer where they are not. A bound as a plain number would be reached at once on one task and never on another.
VARIANCE = "variance"
VARIANCE_SHARE = 1 / DIRECTIONS

# Fields of `training.mezo` beside those of the tuned cell; the bound of `variance` is the table's.
EXTENSIONS = {
    "tuned": {},
    WORDS: {},
    ABREAST: {"abreast": 2 * DIRECTIONS},
    VARIANCE: {"perturbations": 2 * DIRECTIONS},
    "mask": {"mask": {"share": 0.25, "after": 1}},
    "scaling": {"scaling": {"weight": 0.1, "rounds": 4}},
    LONG: {},
}

# What each table gets of the time, of those that are asked for: scores of words need more steps than losses do.
SHARES = {"small-mail": 0.36, "small-gsm8k": 0.2, "smollm2-mail": 0.1, "smollm2-gsm8k": 0.08, "rates-small-mail": 0.1}
SHARES |= {"both-small-mail": 0.06, "both-small-gsm8k": 0.04, "both-smollm2-mail": 0.03, "both-smollm2-gsm8k": 0.03}
# Of it the steps take so much; the rest goes to scoring, loading and merging.
STEPS_SHARE = 0.8
# A probe has nothing to choose here but needs to know what steps take: a few of each size are enough.
PROBE_SECONDS = {"small": 10, "smollm2": 40}


@dataclass(frozen=True)
class Budget:
    """How long the cells of a table run, and what bounds the estimate of the one that has a bound."""

    rounds: int
    # Of the paper's cell, whatever the others have; fewer in a smoke run alone.
    paper: int = PAPER_ROUNDS
    # Any will do for a plan, which counts the most directions that there may be.
    variance: float = 1.0

    def of(self, cell: str) -> int:
        """A cell's rounds."""
        if cell == PAPER:
            return self.paper
        if cell == ABREAST:
            return min(self.rounds, ABREAST_ROUNDS)
        return self.rounds * LONG_TIMES if cell == LONG else self.rounds


def seeds_of(cell: str, seeds: int) -> int:
    """With how many of so many seeds a cell is run."""
    return min(seeds, OTHER_ROUNDS.get(cell, OTHER_SEEDS)) if cell in EXTENSIONS and cell != "tuned" else seeds


def seconds_of(costs: dict[str, float], seeds: int, budget: Budget) -> float:
    """What the cells of a table take here, each with what a round of it takes, if they are run with so many seeds."""
    return sum(cost * budget.of(cell) * seeds_of(cell, seeds) for cell, cost in costs.items())


def rounds_in(seconds: float, costs: dict[str, float], seeds: int, most: int) -> int:
    """The most rounds for which the cells of a table take no more than so many seconds, scoring included; never fewer than the
    least, for then there would be nothing to compare."""
    fits = lambda rounds: seconds_of(costs, seeds, Budget(rounds)) <= STEPS_SHARE * seconds
    return max(filter(fits, range(LEAST_ROUNDS, most + 1)), default=LEAST_ROUNDS)


def cells_of(task: cells.Task) -> list[str]:
    """The cells of a task: where answers are no choices, all losses are of words."""
    return [cell for cell in CELLS if task.choices or cell != WORDS]


def by_words(task: cells.Task, cell: str) -> bool:
    """Whether a cell's loss is another than the tuned one's."""
    return bool(task.choices) and cell in BY_WORDS


def job(task: cells.Task, cell: str, seed: int, budget: Budget, model: str = "small") -> dict:
    """The cell's job file."""
    name = f"{model}-{task.name}"
    rate, clip = (WORDS_RATE[name], WORDS_CLIP) if cell == WORDS else (RATE[name], CLIP[task.name])
    found = {
        "name": f"zeroth-{task.name}-{cell}",
        "model": {"source": "file:///ablation"},
        "data": {"dataset": task.name},
        "adapter": {"targets": ["q", "k", "v", "o"], "rank": RANK, "rank_max": RANK, "alpha": 2 * RANK, "importance": "uniform"},
        "training": {"sequence_length": task.sequence_length, "order": task.order, "seed": seed, "batch": BATCH[task.name]},
        "precision": {"base": "source", "compute": "f32"},
        "rounds": {"count": budget.of(cell), "quorum": "all"},
        "aggregation": {"strategy": "sum"},
        "evaluation": {"choices": list(task.choices), "every": -(-budget.of(cell) // SCORES), "sample": task.sample},
        "deadline_seconds": cells.DEADLINE_SECONDS,
    }
    if task.choices and not by_words(task, cell):
        found["training"]["choices"] = list(task.choices)
    if cell == PAPER:
        found["adapter"] |= {"targets": ["q", "v"], "rank": 16, "rank_max": 16, "alpha": 32}
        found["training"] |= {"optimizer": "mezo", "local_steps": PAPER_STEPS, "batch": 1, "learning_rate": 1e-5}
        found["training"]["mezo"] = {"perturbation": 1e-3, "seeds": "per-worker"}
    elif cell in EXTENSIONS:
        found["training"] |= {"optimizer": "mezo", "local_steps": STEPS, "learning_rate": rate}
        found["training"]["mezo"] = {"perturbation": 1e-2, "perturbations": DIRECTIONS, "clip": clip} | EXTENSIONS[cell]
        if cell == VARIANCE:
            found["training"]["mezo"]["variance"] = budget.variance
    else:
        steps = PASSES // FIRST_ORDER_PASSES
        found["training"] |= {"optimizer": "adamw", "local_steps": steps, "learning_rate": task.learning_rate}
        found["aggregation"] = {"strategy": "product"}
    if cell == MIXED:
        # All sites have as many steps: two directions are 64 passes beside the others' 48.
        found["training"]["optimizer"] = "auto"
        found["training"]["mezo"] = {"perturbation": 1e-2, "perturbations": DIRECTIONS // 2, "clip": clip}
        if name in BESIDE_RATE_SHARE:
            found["training"]["mezo"]["learning_rate"] = rate * BESIDE_RATE_SHARE[name]
    if cell == WITHOUT:
        found["data"]["sites"] = ["site-1", "site-2"]
    return found


def rates_job(task: cells.Task, rates: str, seed: int, rounds: int) -> dict:
    """A job of the comparison of rates, each site along directions of its own as in the paper."""
    found = copy.deepcopy(job(task, "tuned", seed, Budget(rounds)))
    found["name"] = f"rates-{task.name}-{rates}"
    found["training"]["mezo"] |= {"seeds": "per-worker", "rates": rates}
    found["training"]["mezo"]["perturbations"] = 2
    return found


def consenting(fleet: str) -> str:
    """The fleet with sites that consent to figures of few records: the paper's batch is one, and so is a scalar's."""
    return "".join(f"[[workers]]{site}\n[workers.policy]\nshare_small_counts = true\n\n" for site in fleet.split("[[workers]]")[1:])


def between(report: dict, site: str) -> int:
    """Bytes in which a step without gradients has room at a site, and none with them."""
    plan = report["plan"]["workers"][site]
    needed = {other.get("change"): other.get("memory_bytes") for other in plan["why"]["rejected"]}
    without = needed.get("optimizer")
    if plan["optimizer"] != "adamw" or not without:
        raise ValueError(f"{site} did not measure both kinds of steps: {plan['optimizer']}, {sorted(map(str, needed))}")
    least = min(bytes_ for bytes_ in (plan["predicted"]["peak_memory_bytes"], needed.get("checkpoint")) if bytes_)
    if least <= without:
        raise ValueError(f"{site} needs {least} bytes with gradients and {without} without: no limit lies between")
    return (without + least) // 2


def bound(first: dict) -> float:
    """What `variance` is bounded by, after a first round of the tuned cell."""
    square = first.get("mean_square")
    if not square:
        raise ValueError("tuned's first round has no scalars that the bound could be a share of")
    return float(f"{VARIANCE_SHARE * square:.4g}")


def same(runs_of: dict[str, list[dict]]) -> list[str]:
    """Cells that train the same as tuned: with each seed they end in the same adapter, bit for bit, and so show nothing of what they
    are named for."""
    adapters = lambda cell: [run.get("adapter") for run in runs_of.get(cell, [])]
    tuned = adapters("tuned")
    known = bool(tuned) and all(tuned)
    alike = lambda found: bool(found) and found == tuned[: len(found)]
    return [cell for cell in runs_of if known and cell != "tuned" and cell not in OTHER_ROUNDS and alike(adapters(cell))]


def outcome_of(task: cells.Task) -> Callable[[dict], dict]:
    """What is kept of a task's reports."""
    return functools.partial(outcome, batch=BATCH[task.name])


def outcome(report: dict, batch: int) -> dict:
    """The figures of a run that are kept: the scores by passes, seconds and bytes; the process's peak, and what each site's plan expects."""
    run, planned = report["run"], report["plan"]["workers"]
    own = lambda name: FIRST_ORDER_PASSES if planned[name]["optimizer"] != "mezo" else 1
    passes, up, peak = 0.0, 0, 0
    start = run["start"]
    curve = [point(start, 0.0, 0.0, 0)] if start else []
    for one in run["rounds"]:
        sites = one["workers"]
        # Of one site: all have as many. In passes of as many records as the tuned cell's batch.
        passes += max(site["passes"] * own(site["worker"]) * site["batch"] / batch for site in sites)
        up += sum(site["update_bytes"] for site in sites)
        peak = max(peak, *(site["peak_memory_bytes"] for site in sites))
        if one["score"]:
            curve.append(point(one["score"], one["ends_at"], passes, up))
    return {
        "curve": curve,
        "rounds": len(run["rounds"]),
        "passes": passes,
        "seconds": run["seconds"],
        "real_seconds": run["real_seconds"],
        "bytes_up": up,
        "peak_memory_bytes": peak,
        "apart": 0.0,
        "sites": {name: site(plan) for name, plan in planned.items()},
        "adapter": run["adapter"]["sha256"],
        "adapter_bytes": run["adapter"]["bytes"],
    } | slopes([site for one in run["rounds"] for site in one["workers"]], planned)


def slopes(sites: Iterable[dict], planned: dict) -> dict:
    """How many directions a step without gradients took, and the mean square of what it found along them; None where there were no such
    steps, or where each site goes along directions of its own, of which the report does not tell."""
    walked = [site for site in sites if planned[site["worker"]]["optimizer"] == "mezo"]
    steps = sum(planned[site["worker"]]["local_steps"] for site in walked)
    told = [site["slopes"] for site in walked if "slopes" in site]
    count = sum(one["directions"] for one in told)
    return {
        "directions": sum(site["passes"] for site in walked) / 2 / steps if steps else None,
        "mean_square": sum(one["directions"] * one["mean_square"] for one in told) / count if count else None,
    }


def site(plan: dict) -> dict:
    """What a site trains, in short, and the peak that its plan expects of it."""
    kept = {"optimizer": plan["optimizer"], "batch": plan["batch"], "abreast": plan.get("abreast", 1)}
    return kept | {"planned_peak_bytes": plan["predicted"]["peak_memory_bytes"]}


def planned_peaks(run: dict) -> list[int]:
    """Each site's peak as planned; none of a run that was kept before they were."""
    return [site["planned_peak_bytes"] for site in run.get("sites", {}).values() if "planned_peak_bytes" in site]


def point(score: dict, seconds: float, passes: float, up: int) -> dict:
    """A score, and what it took up to there."""
    kept = {key: score[key] for key in ("loss", "balanced_accuracy", "records")}
    return kept | {"seconds": seconds, "passes": passes, "bytes_up": up}
