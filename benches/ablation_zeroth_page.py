"""The zeroth-order parts of the ablation as a page.

Promises: every figure that they must show stands there with whether it is as promised, the disappointing included.
"""

import math
from collections.abc import Callable, Iterable

import ablation_cells as cells
import ablation_page as page
import ablation_zeroth as zeroth
from ablation_zeroth_plot import size

# By how much balanced accuracy has to pass the constant answer's.
RISE = 0.15
CONSTANT = 0.5
SITES = 3
# A site's scalars are counted as so much, which is the most that their message may have.
COUNTED = "4·H·P + 512 bytes"
STATISTICS = ("round-loss", "five-round-loss", "model-difference")


def table(name: str, found: dict) -> list[str]:
    """One model on one task."""
    model, task = name.split("-")[0], cells.TASKS[name.split("-")[1]]
    runs_of = found["cells"]
    lines = [
        f"## Without gradients: {page.MODELS[model]}, {task.title.split(',')[0]}",
        "",
        f"Three sites, {found['rounds']} rounds of {zeroth.STEPS} steps of the tuned cell, {seeds(found)}. A pass is a forward pass over {zeroth.BATCH[task.name]} records at one "
        f"site; a step by gradients counts as {zeroth.FIRST_ORDER_PASSES}. {untrained(runs_of, task)} Seconds are of the virtual clock. A "
        "site's planned peak is what the plan expects of it alone, from the least to the most of the sites: cells compare by this. The peak of the simulation is no "
        "site's own: one process plays them all.",
        "",
        f"Bytes up are of all sites' updates; scalars are counted as {COUNTED} a site and round (H steps of P directions). {down(runs_of)}",
        *bounded(found),
        *([] if task.choices else ["", unasked(next(iter(runs_of.values())), task)]),
        "",
        "| cell | loss | balanced accuracy | loss falls from the start by | rounds | directions a step | passes | seconds | bytes up | planned peak of a site "
        "| peak of the simulation |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    alike = zeroth.same(runs_of)
    for cell, runs in runs_of.items():
        mean = lambda key, runs=runs: sum(run[key] for run in runs) / len(runs)
        title = titled(cell, mean("rounds")) + ("" if len(runs) == len(found["seeds"]) else f" ({len(runs)} seed(s))")
        scores = "trains the same as `tuned` | | |" if cell in alike else f"{page.plus(ends(runs, 'loss'), 4)} | {exact(runs)} | {page.plus(falls(runs), 4)} |"
        lines.append(
            f"| {title} | {scores} {mean('rounds'):.0f} | {directions(runs)} | {mean('passes'):.0f} | {mean('seconds'):.0f} "
            f"| {size(mean('bytes_up'))} | {planned(runs)} | {mean('peak_memory_bytes') / 2**20:.0f} MiB |"
        )
    lines += [f"| {zeroth.CELLS[cell]} | not run: {why} | | | | | | | | | |" for cell, why in found.get("left_out", {}).items()]
    lines += ["", *(f"- {said}" for said in judged(runs_of, task)), "", f"![scores against passes, seconds, bytes and planned peak memory](zeroth-{name}.svg)"]
    if zeroth.LONG in runs_of:
        lines.append(f"![many more rounds](zeroth-{name}-long.svg)")
    return lines


def titled(cell: str, rounds: float) -> str:
    """What a cell is; the paper's with how much of the paper's run it is."""
    return zeroth.CELLS[cell] + (f", a stretch of {rounds:.0f} of its {zeroth.PAPER_RUN} rounds" if cell == zeroth.PAPER else "")


def bounded(found: dict) -> list[str]:
    """What bounds the cell that has a bound, where it was run."""
    if found.get("variance") is None or zeroth.VARIANCE not in found["cells"]:
        return []
    return [
        "",
        f"`{zeroth.VARIANCE}` adds directions to a step until its estimate varies by at most {found['variance']:g} in each number: {zeroth.VARIANCE_SHARE:g} of the mean "
        f"square of the scalars that `tuned` found in a first round (one seed), by which its own estimate of {zeroth.DIRECTIONS} directions varied in the mean.",
    ]


def directions(runs: list[dict]) -> str:
    """Directions of a step without gradients, in the mean; none of steps by gradients, or of a run that was kept before they were counted."""
    counts = [run["directions"] for run in runs if run.get("directions") is not None]
    return f"{average(counts):.1f}" if counts else "–"


def planned(runs: list[dict]) -> str:
    """What plans expect a site to need, from the least to the most."""
    peaks = [peak for run in runs for peak in zeroth.planned_peaks(run)]
    return span([f"{peak / 2**20:.0f}" for peak in (min(peaks), max(peaks))]) + " MiB" if peaks else "–"


def span(ends_of: list[str]) -> str:
    """From one figure to another, which may be the same."""
    return "–".join(dict.fromkeys(ends_of))


def whole(runs: Iterable[dict]) -> str:
    """What the whole adapter is in bytes, where the runs tell."""
    sizes = [run["adapter_bytes"] for run in runs if "adapter_bytes" in run]
    return f" ({span([size(min(sizes)), size(max(sizes))])})" if sizes else ""


def down(runs_of: dict) -> str:
    """What comes down to a site, which the simulation's report does not count."""
    together = [cell for cell in runs_of if cell in zeroth.EXTENSIONS]
    each = [cell for cell in runs_of if cell not in together]
    runs = lambda cells_of: whole(run for cell in cells_of for run in runs_of[cell])
    named = lambda cells_of: ", ".join(f"`{cell}`" for cell in cells_of)
    said = []
    if together:
        rounds = zeroth.EXTENSIONS["scaling"]["scaling"]["rounds"]
        more = f" (`scaling`: of up to {rounds} before it too)" if "scaling" in together else ""
        said.append(
            f"where all sites go along the same directions ({named(together)}) the whole adapter{runs(together)} once, and then in each round the mean scalars "
            f"of the one before{more}, 4·H·P bytes"
        )
    if each:
        said.append(f"for {named(each)} the whole adapter{runs(each)} in every round")
    return f"What comes down is not counted; it is, to each site, {'; '.join(said)}."


def scored(runs: list[dict], task: cells.Task) -> str:
    """How many records the last score is of."""
    found = {run["curve"][-1].get("records") for run in runs}
    if None in found:  # runs that were kept before the number was
        return f"at most {SITES * task.held_out} held-out records"
    return f"{span([str(min(found)), str(max(found))])} held-out records"


def unasked(runs: list[dict], task: cells.Task) -> str:
    """Why there is no accuracy, and what a loss is of."""
    return (
        f"No accuracy is asked: the questions have no choices, and free answers are not scored. Losses are of {scored(runs, task)}: of the "
        f"{SITES * task.held_out} that sites hold those that fit {task.sequence_length} tokens with their answers."
    )


def ends(runs: list[dict], score: str) -> list[float]:
    """The last score of each seed."""
    return [run["curve"][-1][score] for run in runs]


def falls(runs: list[dict], score: str = "loss") -> list[float]:
    """By how much a score fell from the start, seed by seed."""
    return [run["curve"][0][score] - run["curve"][-1][score] for run in runs]


def exact(runs: list[dict]) -> str:
    """Balanced accuracy at the end, where the task has one."""
    scores = ends(runs, "balanced_accuracy")
    return page.plus(scores, 3) if all(score is not None for score in scores) else "–"


def most_surely(among: list[str], values: Callable[[str], list[float]]) -> str:
    """The cell whose values are the highest by their interval's lower end, for cells differ in their seeds; where all have one, by
    the value."""
    several = [cell for cell in among if len(values(cell)) > 1]
    least = lambda cell: (lambda mean, half: mean if math.isnan(half) else mean - half)(*cells.interval(values(cell)))
    return max(several or among, key=least)


def average(values: list[float]) -> float:
    """Their mean."""
    return sum(values) / len(values)


def judged(runs_of: dict, task: cells.Task) -> list[str]:
    """What the table says, the disappointing included."""
    alike = zeroth.same(runs_of)
    said = [f"`{cell}` trains the same as `tuned`: with each seed the same adapter, bit for bit, so it shows nothing of what it is named for." for cell in alike]
    known = [cell for cell in (*zeroth.EXTENSIONS, zeroth.PAPER) if cell in runs_of and cell not in alike]
    without = [cell for cell in known if cell not in zeroth.OTHER_ROUNDS and not zeroth.by_words(task, cell)]
    if without:
        best = most_surely(without, lambda cell: falls(runs_of[cell]))
        said.append(f"The best without gradients is `{best}`{surest(runs_of, without)}. {fell(runs_of[best])}")
        if "adamw" in runs_of:
            said.append(behind(best, runs_of[best], runs_of["adamw"]))
    if known and task.score == "balanced_accuracy":
        said.append(risen(runs_of, known, task))
    if "tuned" in runs_of:
        tuned = runs_of["tuned"]
        for cell in known:
            if cell == "tuned" or cell in zeroth.OTHER_ROUNDS:
                continue
            runs, same = runs_of[cell], tuned[: len(runs_of[cell])]
            score, by = ("balanced_accuracy", "balanced accuracy") if zeroth.by_words(task, cell) else ("loss", "loss")
            said.append(f"`{cell}` against `tuned`, by {by}: {cells.effect(ends(runs, score), ends(same, score), score)}{unlike(runs, same)}.")
        if zeroth.ABREAST in runs_of:
            said.append(f"Passes computed as one take {pace(runs_of[zeroth.ABREAST]) / pace(tuned):.2f} of the time.")
    if zeroth.LONG in runs_of:
        longest = runs_of[zeroth.LONG]
        said.append(f"In {longest[0]['rounds']} rounds ({len(longest)} seed(s)) the loss falls by {page.plus(falls(longest), 4)} nats.")
    return said


def surest(runs_of: dict, without: list[str]) -> str:
    """By what the best is the best, where cells differ in their seeds: with few, an interval is wide."""
    return ", by the lower end of what it falls by" if len({len(runs_of[cell]) for cell in without}) > 1 else ""


def fell(runs: list[dict]) -> str:
    """Whether the held-out loss clearly fell: the interval over the seeds lies above nothing."""
    mean, half = cells.interval(falls(runs))
    start = average([run["curve"][0]["loss"] for run in runs])
    text = f"From the start its held-out loss falls by {page.plus(falls(runs), 4)} nats of {start:.4f}"
    if math.isnan(half):
        return f"{text} (one seed, by which no fall is clear)." if mean > 0 else f"{text} (NOT as promised: it does not fall)."
    return f"{text} ({'clearly, as promised' if mean > half else 'NOT clearly, and so NOT as promised'})."


def passes(runs: list[dict]) -> float:
    """Passes of a run, in the mean."""
    return average([run["passes"] for run in runs])


def unlike(runs: list[dict], others: list[dict]) -> str:
    """Both sides' passes, where they are not the same."""
    mine, theirs = f"{passes(runs):.0f}", f"{passes(others):.0f}"
    return "" if mine == theirs else f" ({mine} passes against {theirs})"


def behind(cell: str, runs: list[dict], first: list[dict]) -> str:
    """How far the best without gradients stays behind first-order training."""
    first = first[: len(runs)]
    gaps = [a - b for a, b in zip(ends(runs, "loss"), ends(first, "loss"), strict=True)]
    gap = average(gaps)
    stays = f"stays {page.plus(gaps, 4)} nats behind" if gap > 0 else f"comes {page.plus([-gap for gap in gaps], 4)} nats further than"
    text = f"`{cell}` {stays} first-order AdamW ({passes(runs):.0f} passes against {passes(first):.0f}"
    if (most := average(falls(first))) > 0:
        text += f"; its loss falls by {100 * average(falls(runs)) / most:.0f} % of what AdamW's does"
    if exact(runs) != "–" and exact(first) != "–":
        text += f"; balanced accuracy {exact(runs)} against {exact(first)}"
    return f"{text})."


def risen(runs_of: dict, known: list[str], task: cells.Task) -> str:
    """Whether the best balanced accuracy without gradients is as far above the constant answer's as promised: its whole interval,
    which one seed does not have. The best is the one that promises the most, for cells differ in their seeds."""
    scores = lambda cell: ends(runs_of[cell], "balanced_accuracy")
    mean = lambda cell: average(scores(cell))
    best, first = most_surely(known, scores), max(known, key=mean)
    runs = runs_of[best]
    exactly, half = cells.interval(ends(runs, "balanced_accuracy"))
    asked = f"at least {RISE:+} over two or more seeds, the interval's lower end"
    # Scores are counts of records: what is less than one of them is rounding.
    kept = "one seed promises nothing; asked is" if math.isnan(half) else "as promised:" if exactly - half - CONSTANT >= RISE - 1e-9 else "NOT as promised:"
    beside = f"; first-order AdamW's is {exact(runs_of['adamw'])}{unlike(runs, runs_of['adamw'])}" if "adamw" in runs_of else ""
    further = f", {runs[0]['rounds']} rounds" if best in zeroth.OTHER_ROUNDS else ""
    text = (
        f"The best balanced accuracy without gradients, {exact(runs)} of `{best}` ({len(runs)} seed(s){further}, {scored(runs, task)}), is {exactly - CONSTANT:+.3f} "
        f"from the constant answer's {CONSTANT} ({kept} {asked}){beside}."
    )
    if first != best and mean(first) > mean(best):
        number = len(runs_of[first])
        text += f" `{first}` comes to {exact(runs_of[first])} with {number} seed(s), which promises {'nothing' if number == 1 else 'less'}."
    return text


def mixed(both: list[dict], alone: list[dict]) -> str:
    """Whether the mixed fleet is left worse than its first-order sites alone."""
    sites = both[0].get("sites", {})
    forward = [name for name, plan in sites.items() if plan["optimizer"] == "mezo"]
    if sites and not forward:
        return "In the mixed fleet no site trained without gradients: it shows nothing of both kinds together."
    starts = lambda runs: [(run["curve"][0]["records"], round(run["curve"][0]["loss"], 6)) for run in runs]
    if starts(both) != starts(alone):
        return "The mixed fleet and its first-order sites alone were not scored on the same records: it shows nothing of which learns more."
    differences = [a - b for a, b in zip(falls(both), falls(alone), strict=True)]
    mean, half = cells.interval(differences)
    by_passes = f" ({', '.join(forward)} by forward passes)" if forward else ""
    text = (
        f"The mixed fleet{by_passes} against its first-order sites alone, on the same held-out records of all three: "
        f"its loss falls by {page.plus(falls(both), 4)}, theirs by {page.plus(falls(alone), 4)} nats"
    )
    if exact(both) != "–" and exact(alone) != "–":
        text += f"; balanced accuracy {exact(both)} and {exact(alone)}"
    if math.isnan(half):
        return f"{text}: {'not worse' if mean >= 0 else 'worse'}, by one seed."
    if mean < -half:
        return f"{text}: it is worse (NOT as promised)."
    return f"{text}: it is {'better' if mean > half else 'not measurably worse'} (as promised)."


def both(name: str, found: dict) -> list[str]:
    """First- and zeroth-order sites in one job."""
    model, task = name.split("-")[0], cells.TASKS[name.split("-")[1]]
    heading = f"## Both kinds of sites in one job: {page.MODELS[model]}, {task.title.split(',')[0]}"
    runs_of = found["cells"]
    if not runs_of:
        return [heading, "", *(f"`{cell}` ({zeroth.BOTH[cell]}) was not run: {why}." for cell, why in found["left_out"].items())]
    beside = zeroth.job(task, zeroth.MIXED, 1, zeroth.Budget(1), model)["training"]
    own = beside["mezo"].get("learning_rate")
    rate = f"its η is {own:g}" if own else f"its η is the default, a tenth of the others' {beside['learning_rate']:g}"
    lines = [
        heading,
        "",
        f"{found['rounds']} rounds, {seeds(found)}; the third site's memory is between what a step with gradients and one without needs; {rate}. {untrained(runs_of, task)} "
        f"Passes, seconds, bytes and peaks are counted as without gradients.",
        "",
        "| cell | loss | balanced accuracy | loss falls from the start by | passes | seconds | bytes up | planned peak of a site |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for cell, runs in runs_of.items():
        mean = lambda key, runs=runs: sum(run[key] for run in runs) / len(runs)
        lines.append(
            f"| {zeroth.BOTH[cell]} (`{cell}`) | {page.plus(ends(runs, 'loss'), 4)} | {exact(runs)} | {page.plus(falls(runs), 4)} | {mean('passes'):.0f} "
            f"| {mean('seconds'):.0f} | {size(mean('bytes_up'))} | {planned(runs)} |"
        )
    return [*lines, "", mixed(runs_of[zeroth.MIXED], runs_of[zeroth.WITHOUT])]


def pace(runs: list[dict]) -> float:
    """Seconds of a pass."""
    return sum(run["seconds"] for run in runs) / sum(run["passes"] for run in runs)


def seeds(found: dict) -> str:
    """How many there were, and how many should have been."""
    asked = len(found.get("asked_seeds", found["seeds"]))
    return f"{len(found['seeds'])} seed(s)" + (f" of {asked}: there was no time for more" if asked > len(found["seeds"]) else "")


def rates(name: str, found: dict) -> list[str]:
    """The paper's Figure 4."""
    model, task = name.split("-")[0], cells.TASKS[name.split("-")[1]]
    lines = [
        f"## Rates of each site's own: {page.MODELS[model]}, {task.title.split(',')[0]}",
        "",
        f"Sites that hold whole mailing lists each (no two are alike), {found['rounds']} rounds, {seeds(found)}; rates differ by at most half of the "
        f"job's (FedMeZO, Figure 4). Each site has directions of its own, as in the paper: in every round it sends its scalars, counted as {COUNTED}, and fetches "
        f"the whole adapter{whole(run for runs in found['cells'].values() for run in runs)}.",
        "",
        "| rates | loss | balanced accuracy | against one rate for all, by loss | against random ones |",
        "|---|---|---|---|---|",
    ]
    runs_of = found["cells"]
    losses = {cell: ends(runs, "loss") for cell, runs in runs_of.items()}
    against = lambda cell, other: "" if cell == other or other not in losses else cells.effect(losses[cell], losses[other], "loss")
    for cell, runs in runs_of.items():
        lines.append(
            f"| {zeroth.RATES[cell]} (`{cell}`) | {page.plus(losses[cell], 4)} | {exact(runs)} | {against(cell, 'fixed')} | {against(cell, 'random')} |"
        )
    helps = lambda other: ", ".join(f"`{cell}`" for cell in STATISTICS if cell in losses and against(cell, other) == "helps") or "none"
    best = min(losses, key=lambda cell: average(losses[cell]))
    lines += ["", f"The lowest loss is of `{best}`. Of the three statistics, against one rate for all help measurably: {helps('fixed')}; against random ones: {helps('random')}."]
    return [*lines, "", f"![scores against passes](rates-{name}.svg)"]


def untrained(runs_of: dict, task: cells.Task) -> str:
    """The scores of the start, by either loss that the table has."""
    starts = {zeroth.by_words(task, cell): runs[0]["curve"][0] for cell, runs in reversed(runs_of.items())}
    of = {False: " among the answers" if task.choices else "", True: " of all words"}
    said = " and ".join(f"{start['loss']:.4f}{of[by_words]}" for by_words, start in sorted(starts.items()))
    exactly = next(iter(starts.values()))["balanced_accuracy"]
    also = "" if exactly is None else f", balanced accuracy {exactly:.3f}"
    of_words = [cell for cell in runs_of if zeroth.by_words(task, cell)]
    apart = f" Losses of {', '.join(f'`{cell}`' for cell in of_words)} are of all words, and not compared with the others'." if of_words else ""
    return f"Untrained: loss {said}{also}.{apart}"
