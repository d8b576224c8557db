"""Plots of the zeroth-order parts of the ablation: each score against each thing that it costs.

Promises: a panel for each pair, its axes labelled, the cells' colours the same in all; what is not there (balanced accuracy of a
task without choices) has no panel. Does not: judge; `ablation_zeroth_page.py` does.
"""

import html
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import ablation_cells as cells
import ablation_zeroth as zeroth

# Hues that people who see few colours tell apart (Okabe and Ito).
HUES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999933", "#882255")
# What a score costs, and how it is written; updates by gradients have ten thousand times the bytes of scalars.
PASSES, SECONDS, BYTES, PEAK = "passes", "seconds", "bytes_up", "planned_peak_bytes"
COSTS = {
    PASSES: "forward-equivalent passes of a site",
    SECONDS: "seconds by the clock",
    BYTES: "bytes up, all sites (logarithmic)",
    PEAK: "planned peak memory of the largest site",
}
LOGARITHMIC = (BYTES,)
SCORES = {"loss": "held-out loss", "balanced_accuracy": "balanced accuracy"}
# Of a panel, its frame's margins, and the legend beside all of them.
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 360, 260, 60, 16, 10, 44
TITLE, LEGEND = 34, 150

Line = list[tuple[float, float]]


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def plots(results: dict) -> dict[str, str]:
    """Each picture by the name of its file."""
    found = {}
    for name, table in results.get("zeroth", {}).items():
        alike = zeroth.same(table["cells"])
        compared = {cell: runs for cell, runs in table["cells"].items() if cell not in zeroth.OTHER_ROUNDS and cell not in alike}
        if compared:
            task = cells.TASKS[name.split("-")[1]]
            of_words = tuple(cell for cell in compared if zeroth.by_words(task, cell))
            found[f"zeroth-{name}.svg"] = picture(f"Without gradients: {name}", compared, tuple(COSTS), of_words)
        if zeroth.LONG in table["cells"]:
            # It goes several times as far as the others, which would be lost beside it.
            further = {cell: runs for cell, runs in table["cells"].items() if cell in ("tuned", zeroth.LONG)}
            found[f"zeroth-{name}-long.svg"] = picture(f"Many more rounds: {name}", further, (PASSES,))
    for name, table in results.get("rates", {}).items():
        found[f"rates-{name}.svg"] = picture(f"How rates are chosen: {name}", table["cells"], (PASSES,))
    return found


def mean_curve(runs: list[dict], cost: str = PASSES, score: str = "loss") -> Line:
    """The seeds' mean score each time that they were scored, by the mean cost up to there; of the peak there is one, at the end.
    The peak is the plan's: one process plays all sites, and its own is no site's."""
    curves = [run["curve"] for run in runs]
    mean = lambda values: sum(values) / len(values)
    if any(point[score] is None for curve in curves for point in curve):
        return []
    if cost == PEAK:
        peaks = [max(planned) for run in runs if (planned := zeroth.planned_peaks(run))]
        return [(mean(peaks), mean([curve[-1][score] for curve in curves]))] if peaks else []
    times = range(min(map(len, curves)))
    return [(mean([curve[at][cost] for curve in curves]), mean([curve[at][score] for curve in curves])) for at in times]


def picture(title: str, runs_of: dict, costs: tuple[str, ...], of_words: tuple[str, ...] = ()) -> str:
    """A row of panels for each score, a column for each cost, a line for each cell; losses `of_words` are others and have none."""
    curve = lambda cell, cost, score: [] if score == "loss" and cell in of_words else mean_curve(runs_of[cell], cost, score)
    lines = {(score, cost): {cell: curve(cell, cost, score) for cell in runs_of} for score in SCORES for cost in costs}
    scores = [score for score in SCORES if any(lines[score, costs[0]].values())]
    wide, high = WIDTH * len(costs) + LEGEND, TITLE + max(HEIGHT * len(scores), 20 * len(runs_of) + 20)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" font-family="sans-serif" font-size="12" role="img">',
        f"<title>{html.escape(title)}</title>",
        f'<rect width="{wide}" height="{high}" fill="white"/>',
        text(LEFT, 20, title, 'font-size="14"'),
    ]
    for row, score in enumerate(scores):
        for column, cost in enumerate(costs):
            parts.append(f'<g transform="translate({WIDTH * column} {TITLE + HEIGHT * row})">')
            parts += [*panel(lines[score, cost], cost, score), "</g>"]
    for number, cell in enumerate(runs_of):
        y = TITLE + 10 + 20 * number
        parts.append(f'<line x1="{wide - LEGEND}" x2="{wide - LEGEND + 24}" y1="{y}" y2="{y}" stroke="{hue(number)}" stroke-width="3"/>')
        parts.append(text(wide - LEGEND + 30, y + 4, cell))
    return "\n".join([*parts, "</svg>"]) + "\n"


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high`, placed from `begin` to `end`."""

    low: float
    high: float
    begin: float
    end: float
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """How far along a value lies."""
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def at(self, value: float) -> float:
        """Where a value is drawn."""
        return self.begin + (self.end - self.begin) * self.share(value)

    def ticks(self) -> Iterable[float]:
        """Values along it, both ends among them."""
        shares = (0.0, 1 / 3, 2 / 3, 1.0)
        return (self.low * (self.high / self.low) ** share if self.logarithmic else self.low + (self.high - self.low) * share for share in shares)


def across(values: list[float], cost: str) -> Axis:
    """The axis of a cost."""
    logarithmic = cost in LOGARITHMIC
    low, high = (min(values) / 1.5, max(values) * 1.5) if logarithmic else (0.0, max(values) * 1.05 or 1.0)
    return Axis(low, high, LEFT, WIDTH - RIGHT, logarithmic)


def down(values: list[float]) -> Axis:
    """The axis of a score."""
    low, high = min(values), max(values)
    margin = (high - low) * 0.05 or 0.01
    return Axis(low - margin, high + margin, HEIGHT - BOTTOM, TOP)


def panel(lines: dict[str, Line], cost: str, score: str) -> list[str]:
    """One score against one cost."""
    # What cost nothing yet has no place on a logarithmic axis.
    lines = {cell: [point for point in line if cost not in LOGARITHMIC or point[0] > 0] for cell, line in lines.items()}
    points = [point for line in lines.values() for point in line]
    if not points:
        return []
    x_axis, y_axis = across([x for x, _ in points], cost), down([y for _, y in points])
    label: Callable[[float], str] = size if cost in (BYTES, PEAK) else "{:.0f}".format
    parts = [
        text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, COSTS[cost], 'text-anchor="middle"'),
        text(14, (TOP + HEIGHT - BOTTOM) / 2, SCORES[score], f'text-anchor="middle" transform="rotate(-90 14 {(TOP + HEIGHT - BOTTOM) / 2:.1f})"'),
    ]
    for y in y_axis.ticks():
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y_axis.at(y):.1f}" y2="{y_axis.at(y):.1f}" stroke="#ddd"/>')
        parts.append(text(LEFT - 4, y_axis.at(y) + 4, f"{y:.3f}", 'text-anchor="end" font-size="10"'))
    parts += [text(x_axis.at(x), HEIGHT - BOTTOM + 16, label(x), 'text-anchor="middle" font-size="10"') for x in x_axis.ticks()]
    for number, line in enumerate(lines.values()):
        placed = [(x_axis.at(x), y_axis.at(y)) for x, y in line]
        if len(placed) > 1:
            parts.append(f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in placed)}" fill="none" stroke="{hue(number)}" stroke-width="2"/>')
        radius = 5 if cost == PEAK else 2.5
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{hue(number)}"/>' for x, y in placed]
    return parts


def hue(number: int) -> str:
    """A cell's colour."""
    return HUES[number % len(HUES)]


def text(x: float, y: float, words: str, more: str = "") -> str:
    """Words at a place."""
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{html.escape(words)}</text>'
