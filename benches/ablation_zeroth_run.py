"""The zeroth-order parts of the ablation, run in the time that is given.

Promises: how many rounds a table's cells have follows from what their steps take here and the time that the table is given,
is decided once, and is kept, as is the bound of the cell that has one; a table is written seed by seed, and ends with a whole seed when its time is over. Does not: know
what a cell is (`ablation_zeroth.py`), or how a simulation is started and kept (`ablation.py`).
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import ablation_cells as cells
import ablation_zeroth as zeroth

if TYPE_CHECKING:
    from ablation import Lab, Table

Say = Callable[[str], None]
QUICK_ROUNDS = 1


class Clock:
    """A table's share of the time."""

    def __init__(self, table: str, asked: list[str], minutes: float) -> None:
        shares = [zeroth.SHARES[name] for name in asked]
        self.minutes = minutes * zeroth.SHARES[table] / sum(shares)
        self.began = time.monotonic()

    def left(self) -> float:
        """Seconds that are left of it."""
        return 60 * self.minutes - (time.monotonic() - self.began)


def without_gradients(lab: "Lab", table: "Table", clock: Clock, seeds: tuple[int, ...], say: Say) -> Iterator[dict]:
    """The zeroth-order cells of a table, as far as it came: each seed's are there together, or not at all."""
    small, quick = table.model == "small", lab.options.quick
    # A smoke run of the long model is one cell.
    asked = lab.options.cells or (tuple(zeroth.cells_of(table.task)) if small else ("tuned",) if quick else zeroth.HEADLINE)
    wanted = [cell for cell in zeroth.cells_of(table.task) if cell in asked]
    left_out, bound = {}, None
    if zeroth.VARIANCE in wanted and not lab.options.estimate:
        try:
            # Before the rounds are decided, so that they are of the time that this leaves.
            # The bound is of this very job.
            job = hashlib.sha256(json.dumps(zeroth.job(table.task, "tuned", 1, zeroth.Budget(1), table.model)).encode()).hexdigest()
            bound = lab.decided(f"{table.name} {lab.binary} {job[:12]} variance", lambda: bound_of(lab, table, say))
        except ValueError as error:
            left_out[zeroth.VARIANCE] = str(error)
            say(f"{table.name}: without `{zeroth.VARIANCE}`: {error}")
            wanted.remove(zeroth.VARIANCE)
    if not wanted:
        return
    costs = lambda: {cell: cells.seconds_here(planned(lab, table, cell, "alike")) for cell in wanted}
    rounds = decided(lab, (table.name, wanted, zeroth.ROUNDS[table.model]), costs, seeds, clock, say)
    if lab.options.estimate:
        return
    budget = budget_of(lab, rounds)
    if bound is not None:
        budget = dataclasses.replace(budget, variance=bound)

    def cell(name: str, seed: int) -> dict:
        job = zeroth.job(table.task, name, seed, budget, table.model)
        return lab.cell(table, job, kind="alike", outcome=zeroth.outcome_of(table.task))

    # What has other rounds tells least of what the others do: it comes last.
    ordered = sorted(wanted, key=lambda name: name in zeroth.OTHER_ROUNDS)
    pieces = by_seed(ordered, rounds, seeds, cell, clock, lambda text: say(f"{table.name}: {text}"))
    yield from (piece | {"left_out": left_out, "variance": bound} for piece in pieces)


def both_kinds(lab: "Lab", table: "Table", clock: Clock, seeds: tuple[int, ...], say: Say) -> Iterator[dict]:
    """Sites with and without room for gradients in one job, beside the first of these alone."""
    name, wanted = f"both-{table.name}", list(zeroth.BOTH)
    # A smoke run of the long model is one cell of the other part.
    if (lab.options.cells and not set(wanted) & set(lab.options.cells)) or (lab.options.quick and table.model != "small"):
        return
    try:
        limit = zeroth.between(planned(lab, table, zeroth.MIXED, "alike"), "site-3")
    except ValueError as error:
        say(f"{name}: not run: {error}")
        if lab.options.estimate:
            return
        yield {"seeds": [], "asked_seeds": list(seeds), "rounds": 0, "minutes": 0.0, "cells": {}, "left_out": {zeroth.MIXED: str(error)}}
        return
    kinds = {zeroth.MIXED: f"alike-{limit}", zeroth.WITHOUT: "alike-all"}
    costs = lambda: {cell: cells.seconds_here(planned(lab, table, cell, kinds[cell])) for cell in wanted}
    rounds = decided(lab, (name, wanted, zeroth.ROUNDS[table.model]), costs, seeds, clock, say)
    if lab.options.estimate:
        return

    def cell(kind: str, seed: int) -> dict:
        job = zeroth.job(table.task, kind, seed, zeroth.Budget(rounds), table.model)
        return lab.cell(table, job, kind=kinds[kind], outcome=zeroth.outcome_of(table.task))

    yield from by_seed(wanted, rounds, seeds, cell, clock, lambda text: say(f"{name}: {text}"))


def own_rates(lab: "Lab", table: "Table", clock: Clock, seeds: tuple[int, ...], say: Say) -> Iterator[dict]:
    """Rates of each site's own, on sites that are not alike."""
    job = lambda rates, seed, rounds: zeroth.rates_job(table.task, rates, seed, rounds)

    def costs() -> dict[str, float]:
        # Whatever the rate, a step is the same.
        report = report_of(lab, table, job("fixed", 1, 1), "even")
        return dict.fromkeys(zeroth.RATES, cells.seconds_here(report))

    name = f"rates-{table.name}"
    rounds = decided(lab, (name, list(zeroth.RATES), zeroth.RATES_ROUNDS), costs, seeds, clock, say)
    if lab.options.estimate:
        return
    cell = lambda rates, seed: lab.cell(table, job(rates, seed, rounds), kind="even", outcome=zeroth.outcome_of(table.task))
    yield from by_seed(list(zeroth.RATES), rounds, seeds, cell, clock, lambda text: say(f"{name}: {text}"))


def by_seed(wanted: list[str], rounds: int, seeds: tuple[int, ...], cell: Callable[[str, int], dict], clock: Clock, say: Say) -> Iterator[dict]:
    """All cells of one seed, then of the next, until the time is over; the first is run whatever the time."""
    found: dict = {"seeds": [], "asked_seeds": list(seeds), "rounds": rounds, "minutes": round(clock.minutes, 1), "cells": {name: [] for name in wanted}}
    took = dict.fromkeys(wanted, 0.0)
    for number, seed in enumerate(seeds):
        now = [name for name in wanted if number < zeroth.seeds_of(name, len(seeds))]
        if number and clock.left() < sum(took[name] for name in now):
            say(f"no time for seed {seed} and those after it; the same command with more --minutes and --rounds {rounds} goes on")
            return
        runs = {}
        for name in now:
            began = time.monotonic()
            runs[name] = cell(name, seed)
            took[name] = max(took[name], time.monotonic() - began)
        for name, run in runs.items():
            found["cells"][name].append(run)
        found["seeds"].append(seed)
        yield found


def decided(lab: "Lab", table: tuple[str, list[str], int], costs: Callable[[], dict[str, float]], seeds: tuple[int, ...], clock: Clock, say: Say) -> int:
    """The table's rounds: those that were asked for, or as many as there is time for, decided once for this binary, cells, seeds and
    time; and says what they take."""
    name, wanted, most = table
    fixed = QUICK_ROUNDS if lab.options.quick else lab.options.rounds

    def decide() -> int:
        found = costs()
        rounds = fixed or zeroth.rounds_in(max(clock.left(), 0.0), found, len(seeds), most)
        minutes = zeroth.seconds_of(found, len(seeds), budget_of(lab, rounds)) / zeroth.STEPS_SHARE / 60
        each = ", ".join(f"{cell} {cost:.0f}" for cell, cost in found.items())
        say(f"{name}: {rounds} rounds, {len(seeds)} seed(s): about {minutes:.0f} minutes, where {clock.minutes:.0f} are given; a round's seconds: {each}")
        return rounds

    if lab.options.estimate:
        return decide()
    return fixed or lab.decided(f"{name} {lab.binary} {clock.minutes:.1f} {','.join(wanted)} {len(seeds)}", decide)


def budget_of(lab: "Lab", rounds: int) -> zeroth.Budget:
    """What so many rounds of the table are for each cell: of a smoke run the paper's are no more."""
    return zeroth.Budget(rounds, QUICK_ROUNDS) if lab.options.quick else zeroth.Budget(rounds)


def bound_of(lab: "Lab", table: "Table", say: Say) -> float:
    """The bound of `variance` for a table, from a round of the tuned cell with the first seed."""
    first = lab.cell(table, zeroth.job(table.task, "tuned", 1, zeroth.Budget(1), table.model), kind="alike", outcome=zeroth.outcome_of(table.task))
    found = zeroth.bound(first)
    say(f"{table.name}: directions are added until the estimate varies by at most {found:g}, 1/{zeroth.DIRECTIONS} of the mean square of tuned's scalars in a first round")
    return found


def planned(lab: "Lab", table: "Table", cell: str, kind: str) -> dict:
    """What a cell's plan is."""
    return report_of(lab, table, zeroth.job(table.task, cell, 1, zeroth.Budget(1), table.model), kind)


def report_of(lab: "Lab", table: "Table", job: dict, kind: str) -> dict:
    """A job's plan on a fleet of this kind."""
    report = lab.simulate(table, job, "--plan-only", kind=kind)
    if report is None:
        raise RuntimeError(f"{table.name}: there is no plan for {job['name']}")
    return report
