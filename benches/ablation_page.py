"""The ablation's results as a page."""

import math

import ablation_cells as cells

MODELS = {"small": "the small model", "smollm2": "SmolLM2-135M-Instruct"}
# The parts, in the page's order.
PARTS = ("tables", "ranks", "zeroth", "both", "rates")
# What the issue asks: within this under the plan, and further than that with one configuration.
TOGETHER = 0.15
APART = 0.60


def page(results: dict) -> str:
    """All of it."""
    lines = ["# What each part of a plan is worth", ""]
    if results["quick"]:
        lines += ["**A smoke run: one seed, a few rounds. No figure here means anything.**", ""]
    lines += [
        "Made by `./run ablation`; each table says on what. How: [README.md](../README.md).",
        "",
        "Four sites: speed 1, 1/2, 1/4, 1/8; memory 8, 2, 1, 0.5 GiB (for the small model 0.45 of that); the third on a link of",
        "4 MiB/s. All cells of a table have the same time by the virtual clock. ± is half of a 95 % interval over the seeds; what a",
        "part does is judged by the differences seed by seed.",
    ]
    import ablation_zeroth_page as zeroth_page  # it is made of this module's parts

    sections = (table, ranks, zeroth_page.table, zeroth_page.both, zeroth_page.rates)
    for part, section in zip(PARTS, sections, strict=True):
        for name, found in results.get(part, {}).items():
            heading, *rest = section(name, found)
            lines += ["", heading, "", measured_on(found["on"]), *rest]
        if part == "tables" and results.get(part):
            lines += ["", *verdict(results[part])]
    return "\n".join(lines) + "\n"


def measured_on(on: dict) -> str:
    """The machine and the program that a table is of."""
    machine = on["machine"]
    return f"Measured on: {machine['cores']} cores of {machine['cpu']} ({', '.join(machine['instructions'])}), {machine.get('memory_gib', '?')} GiB; binary {on['binary']}."


def plus(values: list[float], digits: int) -> str:
    """Mean and interval."""
    mean, half = cells.interval(values)
    return f"{mean:.{digits}f}" if math.isnan(half) else f"{mean:.{digits}f} ± {half:.{digits}f}"


def promised(full: float, uniform: float) -> str:
    """Whether the sites finish as far apart as they should."""
    met = full <= TOGETHER and uniform >= APART
    return (
        f"Slowest and fastest site finish {100 * full:.0f} % apart under the plan and {100 * uniform:.0f} % apart with one configuration "
        f"({'as promised' if met else 'NOT as promised'}: at most {100 * TOGETHER:.0f} %, more than {100 * APART:.0f} %)."
    )


def came(plan: dict) -> str:
    """How long a site's rounds are by the plan, and how long they were."""
    if plan.get("spent") is None:
        return ""
    return f"; a round of {plan['predicted']:.1f} s by the plan, {plan['spent']:.1f} s as it came"


def sites(planned: dict) -> list[str]:
    """What each site trains."""
    return [
        f"- {site}: {plan['weights']} weights at mean rank {plan['rank']:.1f}, batch {plan['batch']}, {plan['steps']} steps, "
        f"base {plan['base']}, {plan['kernel']}{', checkpointing' if plan['checkpoint'] else ''}, {plan['optimizer']}{came(plan)}"
        for site, plan in planned.items()
    ]


def table(name: str, found: dict) -> list[str]:
    """One model on one task."""
    model, task = name.split("-")[0], cells.TASKS[name.split("-")[1]]
    score = task.score
    runs_of, same = found["cells"], found.get("same", {})
    first = next(iter(runs_of))
    ends = [cells.last(run, score) for run in runs_of[first]]
    target = sum(ends) / len(ends)
    digits = 4 if score == "loss" else 3
    start = runs_of[first][0]["curve"][0][score]
    lines = [
        f"## {MODELS[model]}: {task.title}",
        "",
        f"{found['until_seconds']:.0f} s by the clock, {len(found['seeds'])} seed(s), uniform rank {found['uniform_rank']}; untrained {start:.{digits}f}. "
        f"Target: what the {first} cell ends with, {target:.{digits}f}.",
        "",
        "| cell | score | against the cell above | seconds to the target | rounds | records | sites finish apart | fleet waits |",
        "|---|---|---|---|---|---|---|---|",
    ]
    above = None
    for cell, runs in runs_of.items():
        scores = [cells.last(run, score) for run in runs]
        times = [time for run in runs if (time := cells.time_to(run, score, target)) is not None]
        reached = plus(times, 0) if times else "–"
        if len(times) < len(runs):
            reached += f" ({len(times)} of {len(runs)})"
        mean = lambda key, runs=runs: sum(run[key] for run in runs) / len(runs)
        against = f"trains the same as {same[cell]}" if cell in same else cells.effect(scores, above, score) if above else ""
        lines.append(
            f"| {cells.CELLS[cell]} | {plus(scores, digits)} | {against} | {reached} "
            f"| {mean('rounds'):.1f} | {mean('records'):.0f} | {100 * mean('apart'):.0f} % | {100 * mean('waiting'):.0f} % |"
        )
        above = scores
    for cell in found.get("unplanned", []):
        lines.append(f"| {cells.CELLS[cell]} | no plan: what the cell fixes leaves a site no choice that fits | | | | | | |")
    last = list(runs_of)[-1]
    lines += ["", f"What the sites train at first, in the {last} cell:", ""]
    return [*lines, *sites(runs_of[last][0]["sites"])]


def verdict(tables: dict) -> list[str]:
    """What the tables say together, the parts that do not help included."""
    lines = ["## In short", ""]
    for name, found in tables.items():
        score = cells.TASKS[name.split("-")[1]].score
        scores = {cell: [cells.last(run, score) for run in runs] for cell, runs in found["cells"].items()}
        same = found.get("same", {})
        said = []
        if "full" in scores and "uniform" in scores:
            said.append(f"full FedPipe against uniform LoRA {cells.effect(scores['full'], scores['uniform'], score)}")
        pairs = [(before, cell) for before, cell in zip(cells.ORDER, cells.ORDER[1:], strict=False) if before in scores and cell in scores]
        parts = [f"{cell} {'changes nothing' if cell in same else cells.effect(scores[cell], scores[before], score)}" for before, cell in pairs]
        if parts:
            said.append(f"part by part: {'; '.join(parts)}")
        if said:
            lines.append(f"- {name}: {'; '.join(said)}.")
    for name, found in tables.items():
        if {"full", "uniform"} <= set(found["cells"]):
            mean = lambda cell, found=found: sum(run["apart"] for run in found["cells"][cell]) / len(found["cells"][cell])
            lines.append(f"- {name}: {promised(mean('full'), mean('uniform'))}")
    return lines


def ranks(name: str, found: dict) -> list[str]:
    """The rules beside each other."""
    task = cells.TASKS[name]
    lines = [
        f"## Merging rules: the small model, {task.title}",
        "",
        f"Three sites that are alike, {found['rounds']} rounds of 8 steps of 4 records, {len(found['seeds'])} seed(s); everything but the rule is the same.",
        "",
        "| ranks and rule | score | loss |",
        "|---|---|---|",
    ]
    for title, runs in found["rows"].items():
        scores, losses = [cells.last(run, task.score) for run in runs], [cells.last(run, "loss") for run in runs]
        lines.append(f"| {title} | {plus(scores, 4 if task.score == 'loss' else 3)} | {plus(losses, 4)} |")
    rows = list(found["rows"].values())
    losses = [[cells.last(run, "loss") for run in runs] for runs in rows]
    lines += [
        "",
        f"By loss, seed by seed: product against slice {cells.effect(losses[0], losses[1], 'loss')}; product against fedit {cells.effect(losses[2], losses[3], 'loss')}.",
    ]
    return lines
