"""The zeroth-order parts of the ablation as a page and as plots."""

import html

import ablation_cells as cells
import ablation_page as page
import ablation_zeroth as zeroth

# Hues that people who see few colours tell apart (Okabe and Ito).
HUES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999933", "#882255")
# By how much balanced accuracy has to pass the constant answer's.
RISE = 0.15
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 380, 64, 260, 36, 44


def table(name: str, found: dict) -> list[str]:
    """One model on one task."""
    model, task = name.split("-")[0], cells.TASKS[name.split("-")[1]]
    runs_of = found["cells"]
    start = next(iter(runs_of.values()))[0]["curve"][0]
    lines = [
        f"## Without gradients: {page.MODELS[model]}, {task.title.split(',')[0]}",
        "",
        f"Three sites, {found['rounds']} rounds of {zeroth.STEPS} steps of the tuned cell, {seeds(found)}. A pass is a forward pass over {zeroth.BATCH} records at one "
        f"site; a step by gradients counts as {zeroth.FIRST_ORDER_PASSES}. Untrained: loss {start['loss']:.4f}{accuracy(start)}. Bytes are of all sites' updates, the peak "
        "is of the site that needed most.",
        "",
        "| cell | loss | balanced accuracy | falls from the start | passes | seconds | bytes up | peak memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for cell, runs in runs_of.items():
        losses = [run["curve"][-1]["loss"] for run in runs]
        scores = [run["curve"][-1]["balanced_accuracy"] for run in runs]
        exact = page.plus(scores, 3) if all(score is not None for score in scores) else "–"
        mean = lambda key, runs=runs: sum(run[key] for run in runs) / len(runs)
        fell = [run["curve"][0]["loss"] - run["curve"][-1]["loss"] for run in runs]
        lines.append(
            f"| {zeroth.CELLS[cell]} | {page.plus(losses, 4)} | {exact} | {page.plus(fell, 4)} | {mean('passes'):.0f} | {mean('seconds'):.0f} "
            f"| {size(mean('bytes_up'))} | {mean('peak_memory_bytes') / 2**20:.0f} MiB |"
        )
    return [*lines, "", *judged(runs_of, task), "", f"![loss against passes](zeroth-{name}.svg)"]


def judged(runs_of: dict, task: cells.Task) -> list[str]:
    """What the table says, the disappointing included."""
    ends = lambda cell, key: [run["curve"][-1][key] for run in runs_of[cell]]
    mean = lambda cell, key: sum(ends(cell, key)) / len(ends(cell, key))
    said = []
    known = [cell for cell in (*zeroth.EXTENSIONS, "paper") if cell in runs_of]
    without = [cell for cell in known if cell not in zeroth.ONCE]
    if without:
        best = min(without, key=lambda cell: mean(cell, "loss"))
        said.append(f"The best without gradients is `{best}`.")
        if "adamw" in runs_of:
            said.append(f"It stays {mean(best, 'loss') - mean('adamw', 'loss'):.4f} nats behind AdamW at the same number of passes.")
    for cell in without:
        if cell not in ("tuned", "paper") and "tuned" in runs_of:
            said.append(f"`{cell}` against `tuned`, by loss: {cells.effect(ends(cell, 'loss'), ends('tuned', 'loss'), 'loss')}.")
    if zeroth.ABREAST in runs_of and "tuned" in runs_of:
        said.append(f"Passes computed as one take {pace(runs_of[zeroth.ABREAST]) / pace(runs_of['tuned']):.2f} of the time.")
    if known and task.score == "balanced_accuracy":
        best = max(known, key=lambda cell: mean(cell, task.score))
        rise = mean(best, task.score) - 0.5
        kept = "as" if rise >= RISE else "NOT as"
        said.append(f"The best balanced accuracy without gradients, `{best}`, is {rise:+.3f} from the constant answer's ({kept} promised: {RISE}).")
    if zeroth.LONG in runs_of:
        longest = runs_of[zeroth.LONG][0]
        fell = longest["curve"][0]["loss"] - longest["curve"][-1]["loss"]
        said.append(f"In {longest['rounds']} rounds, with one seed, the loss falls by {fell:.4f} nats.")
    if "mixed" in runs_of and "without" in runs_of:
        # Each is scored by its own sites: what is compared is by how much the loss of these fell.
        change = lambda cell: [run["curve"][-1]["loss"] - run["curve"][0]["loss"] for run in runs_of[cell]]
        said.append(f"The mixed fleet against its first-order sites alone, by how far the loss of its own sites fell: {cells.effect(change('mixed'), change('without'), 'loss')}.")
    return said


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
        "job's (FedMeZO, Figure 4).",
        "",
        "| rates | loss | balanced accuracy | against one rate for all, by loss |",
        "|---|---|---|---|",
    ]
    runs_of = found["cells"]
    ends = lambda cell, key: [run["curve"][-1][key] for run in runs_of[cell]]
    for cell, runs in runs_of.items():
        scores = [run["curve"][-1]["balanced_accuracy"] for run in runs]
        exact = page.plus(scores, 3) if all(score is not None for score in scores) else "–"
        against = "" if cell == "fixed" or "fixed" not in runs_of else cells.effect(ends(cell, "loss"), ends("fixed", "loss"), "loss")
        lines.append(f"| {zeroth.RATES[cell]} (`{cell}`) | {page.plus(ends(cell, 'loss'), 4)} | {exact} | {against} |")
    return [*lines, "", f"![loss against passes](rates-{name}.svg)"]


def accuracy(start: dict) -> str:
    """The untrained score in words, where there is one."""
    return "" if start["balanced_accuracy"] is None else f", balanced accuracy {start['balanced_accuracy']:.3f}"


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


# ---------------------------------------------------------------------------------------------------------------------
# Plots.
# ---------------------------------------------------------------------------------------------------------------------


def mean_curve(runs: list[dict]) -> list[tuple[float, float]]:
    """The seeds' mean loss at each score, by passes."""
    curves = [run["curve"] for run in runs]
    length = min(map(len, curves))
    mean = lambda at, key: sum(curve[at][key] for curve in curves) / len(curves)
    return [(mean(at, "passes"), mean(at, "loss")) for at in range(length)]


def plot(title: str, runs_of: dict) -> str:
    """Loss against passes, a line for each cell."""
    lines = {cell: mean_curve(runs) for cell, runs in runs_of.items()}
    points = [point for line in lines.values() for point in line]
    most = max(x for x, _ in points) or 1.0
    low, high = min(y for _, y in points), max(y for _, y in points)
    margin = (high - low) * 0.05 or 0.01
    low, high = low - margin, high + margin
    across = lambda x: LEFT + (WIDTH - LEFT - RIGHT) * x / most
    down = lambda y: TOP + (HEIGHT - TOP - BOTTOM) * (high - y) / (high - low)
    text = lambda x, y, words, more="": f'<text x="{x:.1f}" y="{y:.1f}" {more}>{html.escape(words)}</text>'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12" role="img">',
        f"<title>{html.escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        text(LEFT, 20, title, 'font-size="14"'),
        text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "forward-equivalent passes of a site", 'text-anchor="middle"'),
    ]
    for step in range(5):
        x, y = most * step / 4, low + (high - low) * step / 4
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down(y):.1f}" y2="{down(y):.1f}" stroke="#ddd"/>')
        parts.append(text(LEFT - 6, down(y) + 4, f"{y:.3f}", 'text-anchor="end"'))
        parts.append(text(across(x), HEIGHT - BOTTOM + 16, f"{x:.0f}", 'text-anchor="middle"'))
    for number, (cell, line) in enumerate(lines.items()):
        hue = HUES[number % len(HUES)]
        path = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{hue}" stroke-width="2"/>')
        parts += [f'<circle cx="{across(x):.1f}" cy="{down(y):.1f}" r="2.5" fill="{hue}"/>' for x, y in line]
        row = TOP + 10 + 20 * number
        parts.append(f'<line x1="{WIDTH - RIGHT + 16}" x2="{WIDTH - RIGHT + 40}" y1="{row}" y2="{row}" stroke="{hue}" stroke-width="3"/>')
        parts.append(text(WIDTH - RIGHT + 46, row + 4, cell))
    return "\n".join([*parts, "</svg>"]) + "\n"


def plots(results: dict) -> dict[str, str]:
    """Each plot by the name of its file."""
    found = {}
    for part, title in (("zeroth", "Held-out loss"), ("rates", "Held-out loss by how rates are chosen")):
        for name, table_of in results.get(part, {}).items():
            found[f"{part}-{name}.svg"] = plot(f"{title}: {name}", table_of["cells"])
    return found
