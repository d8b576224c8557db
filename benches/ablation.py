#!/usr/bin/env python3
"""What each part of a plan is worth: `fedpipe simulate` on the fleet of four, with parts of the plan switched off.

Every cell of a table has the same fleet, data, seeds and virtual time; only what its job file fixes differs. A cell
that was run is not run again: its result is kept by the digest of binary, fleet, job, model, data and time. Cells whose
plans have the sites train the same are one.

    benches/ablation.py                                              what parts of plans are worth: at most two hours on two cores
    benches/ablation.py --only ranks,small --tasks mail              some parts, some tasks
    benches/ablation.py --only smollm2 --cells uniform,full --seeds 1    some cells, some seeds: a piece of the whole
    benches/ablation.py --only zeroth,both,rates                     without gradients: two hours of its own
    benches/ablation.py --only zeroth --models small --minutes 40 --seeds 3    of it one model, in about so many minutes
    benches/ablation.py --only zeroth,both,rates --estimate          how long that would take, and run none of it
    benches/ablation.py --quick                                      a smoke run of everything, what is without gradients among it

The virtual time of a table follows from measured step times and --minutes as if all cells and seeds were run, and is
kept: whatever is run in pieces or interrupted goes on with the same. What is without gradients has as many minutes for itself, and
its rounds follow from them and from the cells and seeds that are asked for. Writes results/ablation.json and results/ablation.md,
where tables that were not asked for stay, each with the machine and the binary that it is of.
"""

import argparse
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import ablation_cells as cells
import ablation_fleet as fleet
import ablation_page as page
import ablation_zeroth as zeroth
import ablation_zeroth_plot as zeroth_plot
import ablation_zeroth_run as zeroth_run
import engine

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
RANKS = (16, 8, 4, 2, 1)
RUN_TIMEOUT_SECONDS = 3600
# The small model needs less than half of SmolLM2's memory for the same steps; its machines have as much less.
SMALL_MEMORY_SHARE = 0.45
# What parts of plans are worth; and what is without gradients, which has a time of its own and is run when it is asked for.
PLANNED = ("ranks", "small", "smollm2")
WITHOUT_GRADIENTS = ("zeroth", "both", "rates")
PARTS = (*PLANNED, *WITHOUT_GRADIENTS)
MODELS = ("small", "smollm2")
# Shares of the time that is given; an accuracy on some hundred mails needs more of it than a loss does. What is left is for
# what does not depend on it: measuring the sites, making the small model, and the rules of merging.
SHARES = {"smollm2-mail": 0.165, "smollm2-gsm8k": 0.165, "small-mail": 0.26, "small-gsm8k": 0.12}
# Of a table's time the steps of its cells take so much; the rest is scoring and loading.
STEPS_SHARE = 0.75
# The small model shows part by part, the headline what they come to together; --cells asks for others.
CELLS = {"smollm2": ("uniform", "full"), "small": tuple(cells.CELLS)}
SEEDS = {"smollm2": (1, 2, 3), "small": (1, 2, 3, 4, 5), "ranks": (1, 2, 3), "both": (1, 2, 3, 4, 5), "rates": (1, 2, 3)}
# The headline of the zeroth-order part is long: one seed.
ZEROTH_SEEDS = {"small": SEEDS["small"], "smollm2": (1,)}
RANKS_ROUNDS = 6


class AblationError(Exception):
    """What went wrong and what to do next, in words for the terminal."""


@dataclass(frozen=True)
class Table:
    """One model on one task."""

    model: str
    task: cells.Task
    part: str = ""

    @property
    def name(self) -> str:
        """As results are filed."""
        return f"{self.model}-{self.task.name}"


class Lab:
    """The binary, the models, the data, and what was measured before."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.work = options.work
        self.work.mkdir(parents=True, exist_ok=True)
        self.binary = digest_of(options.fedpipe)
        # Another program may be faster.
        self.profiles = self.work / f"profiles-{self.binary[:12]}.json"
        if options.profiles and not self.profiles.is_file():
            shutil.copyfile(options.profiles, self.profiles)
        self.models = {"smollm2": options.model, "small": self.work / "small.gguf"}
        self.digests: dict[pathlib.Path, str] = {}
        self.ranks: dict[str, int] = {}

    def prepare(self, wanted: set[str]) -> None:
        """Deals the data, and makes the small model unless it is there."""
        stamp = self.work / "data" / "dealt.json"
        dealt = {"program": digest_of(HERE / "ablation_fleet.py"), "held_out": [task.held_out for task in cells.TASKS.values()]}
        if not stamp.is_file() or json.loads(stamp.read_text()) != dealt:
            say("dealing the data")
            for name, task in cells.TASKS.items():
                source = self.options.gsm8k if name == "gsm8k" else self.options.mail
                for kind, sites in (("fleet", fleet.FLEET), ("even", fleet.EVEN), ("alike", fleet.EVEN)):
                    dealer = fleet.deal_alike if (kind, name) == ("alike", "gsm8k") else fleet.DEALERS[name]
                    dealer(source, self.work / "data" / kind / name, sites, task.held_out)
            fleet.repair(self.options.mail, self.options.gsm8k, self.work / "data" / "repair.jsonl")
            stamp.write_text(json.dumps(dealt))
        without = set(WITHOUT_GRADIENTS) if "small" in self.options.models else set()
        if wanted & ({"small", "ranks"} | without) and not self.models["small"].is_file():
            say("making the small model; this takes minutes, once")
            import small  # numpy and gguf, which the headline does not need

            steps = 2 if self.options.quick else small.STEPS
            small.make(self.options.fedpipe, self.options.model, self.work / "data" / "repair.jsonl", self.models["small"], steps)

    def fleet_file(self, table: Table, kind: str) -> pathlib.Path:
        """The fleet of a table: of kind `fleet`, `even`, `alike`, `alike-N` with N bytes at the last site, or `alike-all` whose first sites
        hold the last one's held-out records between them."""
        kind, _, limit = kind.partition("-")
        sites = fleet.FLEET if kind == "fleet" else fleet.EVEN
        share = SMALL_MEMORY_SHARE if table.model == "small" and kind == "fleet" else 1.0
        without = kind == "alike" or table.part == "rates"
        probing = zeroth.PROBE_SECONDS[table.model] if without else fleet.PROBE_SECONDS
        folder = self.work / "data" / kind / table.task.name
        text = fleet.fleet_toml(sites, table.task.name, folder, share, probing)
        if without:
            text = zeroth.consenting(text)
        if limit == "all":
            text = fleet.scored_on_all(text, sites, folder, self.work / "data" / "all" / table.task.name)
        elif limit:
            before, after = text.rsplit("memory_limit = ", 1)
            text = f'{before}memory_limit = "{int(limit) >> 10}KiB"{after[after.index(chr(10)):]}'
        path = self.work / f"{kind}-{table.name}{limit}.toml"
        path.write_text(text)
        return path

    def simulate(self, table: Table, job: dict, *flags: str, kind: str = "fleet") -> dict | None:
        """A simulation's report; None if there is no plan for the job."""
        path = self.work / "job.json"
        path.write_text(json.dumps(job))
        command = [str(self.options.fedpipe), "simulate", "--fleet", str(self.fleet_file(table, kind)), "--job", str(path)]
        command += ["--model", str(self.models[table.model]), "--profiles", str(self.profiles), "--json", *flags]
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_TIMEOUT_SECONDS, check=False)
        if done.returncode == 0:
            return json.loads(done.stdout)
        if "there is no plan" in done.stderr or "could measure themselves" in done.stderr:
            return None
        raise AblationError(f"{' '.join(command)}\n  {done.stderr.strip()[-1500:]}")

    def cell(self, table: Table, job: dict, *flags: str, kind: str = "fleet", outcome: Callable[[dict], dict] = cells.outcome) -> dict:
        """A cell's outcome, run unless it is there."""
        where = self.work / "cells" / f"{self.key(table, job, flags, kind)}.json"
        if where.is_file():
            return json.loads(where.read_text())
        began = time.monotonic()
        report = self.simulate(table, job, *flags, kind=kind)
        if report is None:
            raise AblationError(f"{table.name}: there is no plan for {job['name']}, although there was one before")
        found = outcome(report)
        where.parent.mkdir(parents=True, exist_ok=True)
        aside = where.with_suffix(".new")
        aside.write_text(json.dumps(found))
        aside.replace(where)
        score = cells.last(found, table.task.score)
        say(
            f"{table.name} {job['name']} seed {job['training']['seed']}: {score:.4f} after {found['rounds']} rounds, "
            f"sites {100 * found['apart']:.0f} % apart, {time.monotonic() - began:.0f} s"
        )
        return found

    def key(self, table: Table, job: dict, flags: tuple[str, ...], kind: str) -> str:
        """Everything that an outcome depends on."""
        data = sorted((self.work / "data" / kind.partition("-")[0] / table.task.name).rglob("*.jsonl"))
        on = [self.binary, self.fleet_file(table, kind).read_text(), json.dumps(job, sort_keys=True), list(flags)]
        on += [self.digest(self.models[table.model]), [self.digest(path) for path in data]]
        return hashlib.sha256(json.dumps(on).encode()).hexdigest()

    def decided(self, what: str, decide: Callable[[], float]) -> float:
        """What was decided of this before, or is now, and kept."""
        path = self.work / "budget.json"
        known = json.loads(path.read_text()) if path.is_file() else {}
        if what not in known:
            known[what] = decide()
            path.write_text(json.dumps(known, indent=1))
        return known[what]

    def digest(self, path: pathlib.Path) -> str:
        """A file's digest, computed once."""
        if path not in self.digests:
            self.digests[path] = digest_of(path)
        return self.digests[path]

    def uniform_rank(self, table: Table) -> int:
        """The highest rank that every site can hold with the uniform batch."""
        if table.name not in self.ranks:
            self.ranks[table.name] = self.highest_rank(table)
        return self.ranks[table.name]

    def highest_rank(self, table: Table) -> int:
        """The same, looked for."""
        for rank in RANKS:
            if self.simulate(table, cells.job(table.task, "uniform", 1, rank), "--plan-only"):
                return rank
        raise AblationError(f"{table.name}: no rank fits every site of the fleet with {cells.UNIFORM_BATCH} records a step")


def digest_of(path: pathlib.Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def say(text: str) -> None:
    """A line of progress."""
    print(f"ablation: {text}", file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------------------------------------------
# How long a table's clock may run.
# ---------------------------------------------------------------------------------------------------------------------


def load(report: dict) -> tuple[float, float]:
    """Seconds that a round takes by the virtual clock, and about what it takes here: the sites' steps at full speed."""
    workers = report["plan"]["workers"]
    return max(plan["predicted"]["round_seconds"] for plan in workers.values()), cells.seconds_here(report)


def virtual_seconds(loads: list[tuple[float, float]], seeds: int, real_seconds: float) -> float:
    """The time by the clock that lets all cells, run for each seed, take `real_seconds` here; never less than three of the
    longest rounds, for then there would be nothing to compare."""
    rate = sum(here / virtual for virtual, here in loads)
    return max(real_seconds / (seeds * rate), 3.2 * max(virtual for virtual, _ in loads))


def plans(lab: Lab, table: Table, rank: int) -> dict[str, dict]:
    """What each cell's plan is before it runs; a cell for which there is none is left out."""
    # The last cell measures the most: what it was told answers the others.
    found = {cell: lab.simulate(table, cells.job(table.task, cell, 1, rank), "--plan-only") for cell in reversed(cells.ORDER)}
    return {cell: report for cell in cells.ORDER if (report := found[cell]) is not None}


def alike(reports: dict[str, dict]) -> dict[str, str]:
    """For each cell whose sites train what those of an earlier one do: which."""
    first: dict[str, str] = {}
    same = {}
    for cell, report in reports.items():
        before = first.setdefault(json.dumps(cells.trained(report), sort_keys=True), cell)
        if before != cell:
            same[cell] = before
    return same


def budget(lab: Lab, table: Table, loads: list[tuple[float, float]], real_seconds: float) -> float:
    """The table's time, decided once for this binary, fleet and budget."""
    decide = lambda: round(virtual_seconds(loads, len(SEEDS[table.model]), real_seconds * STEPS_SHARE), 1)
    return lab.decided(f"{table.name} {lab.binary} {real_seconds:.0f}", decide)


# ---------------------------------------------------------------------------------------------------------------------
# The whole.
# ---------------------------------------------------------------------------------------------------------------------


def tables(lab: Lab, model: str) -> list[Table]:
    """A model's tables."""
    return [Table(model, task) for name, task in cells.TASKS.items() if name in lab.options.tasks]


def seeds_of(lab: Lab, part: str) -> tuple[int, ...]:
    """The first of the part's seeds, as many as were asked for."""
    most = 1 if lab.options.quick else lab.options.seeds
    return SEEDS[part][:most]


def measured(lab: Lab, table: Table, real_seconds: float) -> dict:
    """The cells of a table."""
    rank = lab.uniform_rank(table)
    reports = plans(lab, table, rank)
    same = alike(reports)
    loads = [load(reports[cell]) for cell in CELLS[table.model] if cell in reports and same.get(cell) not in CELLS[table.model]]
    until = budget(lab, table, loads, real_seconds)
    asked = lab.options.cells or CELLS["smollm2" if lab.options.quick else table.model]
    wanted = [cell for cell in reports if cell in asked]
    unplanned = [cell for cell in cells.ORDER if cell in asked and cell not in reports]
    if not wanted:
        raise AblationError(f"{table.name}: there is no plan for {', '.join(unplanned)}; `fedpipe simulate --plan-only` says what is missing where")
    seeds = seeds_of(lab, table.model)
    say(f"{table.name}: uniform rank {rank}, {until:.0f} s by the clock{''.join(f', {cell} is {before}' for cell, before in same.items())}{''.join(f', no plan for {cell}' for cell in unplanned)}")
    found: dict = {"uniform_rank": rank, "until_seconds": until, "seeds": list(seeds), "same": same, "unplanned": unplanned, "cells": {name: [] for name in wanted}}
    # Seed by seed, so that an interrupted run has whole rows.
    for seed in seeds:
        for cell in wanted:
            job = cells.job(table.task, same.get(cell, cell), seed, rank)
            found["cells"][cell].append(lab.cell(table, job, "--until", f"{until * 1000:.0f}ms"))
    return found


def rules(lab: Lab, rounds: int) -> Iterator[tuple[str, dict]]:
    """The product rule beside averages of the factors, on three sites that are alike."""
    uneven = ("--ranks", "site-1=4,site-2=8,site-3=16")
    seeds = seeds_of(lab, "ranks")
    # The rule knows nothing of the task: one shows it, the other with --tasks.
    for table in tables(lab, "small")[:1]:
        rows = {}
        for title, strategy, rank, flags in (
            ("ranks 4, 8, 16: product", "product", 16, uneven),
            ("ranks 4, 8, 16: slice", "slice", 16, uneven),
            ("rank 8 everywhere: product", "product", 8, ()),
            ("rank 8 everywhere: fedit", "fedit", 8, ()),
        ):
            job = lambda seed, strategy=strategy, rank=rank: cells.ranks_job(table.task, strategy, rank, seed, rounds)
            rows[title] = [lab.cell(table, job(seed), *flags, kind="even") for seed in seeds]
        yield table.task.name, {"seeds": list(seeds), "rounds": rounds, "rows": rows}


def parts_without_gradients(lab: Lab) -> Iterator[tuple[str, Table, dict]]:
    """Each table of the zeroth-order parts, again after each seed: its part, itself, and what is there of it."""
    options = lab.options
    own = lambda part, model: [Table(table.model, table.task, part) for table in tables(lab, model)]
    wanted = [table for part in ("zeroth", "both") if part in options.only for model in options.models for table in own(part, model)]
    if "rates" in options.only and "small" in options.models and "mail" in options.tasks:
        wanted.append(Table("small", cells.TASKS["mail"], "rates"))
    run = {"zeroth": zeroth_run.without_gradients, "both": zeroth_run.both_kinds, "rates": zeroth_run.own_rates}
    shares = [table.name if table.part == "zeroth" else f"{table.part}-{table.name}" for table in wanted]
    for table, share in zip(wanted, shares, strict=True):
        clock = zeroth_run.Clock(share, shares, options.minutes)
        most = ZEROTH_SEEDS[table.model] if table.model == "smollm2" or table.part == "zeroth" else SEEDS[table.part]
        seeds = most[: 1 if options.quick else options.seeds]
        yield from ((table.part, table, piece) for piece in run[table.part](lab, table, clock, seeds, say))


def gsm8k_folder(tools: pathlib.Path, beside: pathlib.Path) -> pathlib.Path:
    """Where GSM8K is looked for unless --gsm8k says: the folder that FEDPIPE_GSM8K names, that of the tools, or the data shared beside
    the repository."""
    if named := os.environ.get("FEDPIPE_GSM8K"):
        return pathlib.Path(named)
    own, shared = tools / "data/gsm8k", beside / "shared/data"
    is_there = lambda folder: all((folder / name).is_file() for name in fleet.GSM8K)
    return shared if is_there(shared) and not is_there(own) else own


def arguments(words: list[str]) -> argparse.Namespace:
    """The command line."""
    tools = pathlib.Path(os.environ.get("FEDPIPE_TOOLS") or ROOT / ".tools")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    several = lambda known: lambda text: chosen(text, known)
    parser.add_argument("--quick", action="store_true", help="one seed and a few rounds, to see that it runs: no figure means anything")
    parser.add_argument("--only", type=several(PARTS), help=f"parts of {','.join(PARTS)} (default: {','.join(PLANNED)}; with --quick all)")
    parser.add_argument("--tasks", type=several(cells.TASKS), default=tuple(cells.TASKS), help=f"tasks (default: {','.join(cells.TASKS)})")
    every = (*cells.CELLS, *zeroth.CELLS, *zeroth.BOTH)
    parser.add_argument("--cells", type=several(every), help=f"of {','.join(every)} (default: all of the small model, of SmolLM2 the headline's)")
    parser.add_argument("--seeds", type=int, default=5, help="at most so many seeds of each part (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=115, help="about what everything together may take, and what is without gradients for itself (default %(default)s)")
    parser.add_argument("--models", type=several(MODELS), default=MODELS, help="models of what is without gradients (default: both)")
    parser.add_argument("--rounds", type=int, help="rounds of what is without gradients (default: as many as --minutes has time for)")
    parser.add_argument("--estimate", action="store_true", help="say how long what is without gradients would take, and run none of it")
    parser.add_argument("--fedpipe", type=pathlib.Path, default=ROOT / "target/release/fedpipe", help="the binary, a release build")
    parser.add_argument("--model", type=pathlib.Path, default=tools / "models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--mail", type=pathlib.Path, default=tools / "data/mail", help="the corpus (`./run setup mail`)")
    parser.add_argument("--gsm8k", type=pathlib.Path, default=gsm8k_folder(tools, ROOT.parent), help="folder of its files (default: $FEDPIPE_GSM8K, else .tools/data/gsm8k, else ../shared/data)")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "out/ablation", help="data, models and cells, kept between runs")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results", help="where ablation.json and ablation.md go")
    parser.add_argument("--profiles", type=pathlib.Path, help="begin with what sites measured of themselves under another binary, whose engine is the same")
    options = parser.parse_args(words)
    options.only = options.only or (PARTS if options.quick else PLANNED)
    if options.profiles and not options.profiles.is_file():
        parser.error(f"--profiles: there is no {options.profiles}: name a profiles-….json of a --work folder")
    if options.seeds < 1:
        parser.error("--seeds: at least one")
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds: at least one")
    if options.estimate and not set(options.only) <= set(WITHOUT_GRADIENTS):
        parser.error(f"--estimate: with --only {','.join(WITHOUT_GRADIENTS)}, or some of these")
    if options.quick:
        options.work = options.work / "quick"
    return options


def chosen(text: str, known: Iterable[str]) -> tuple[str, ...]:
    """Some of what is known."""
    names = tuple(text.split(","))
    if unknown := set(names) - set(known):
        raise argparse.ArgumentTypeError(f"there is no {', '.join(sorted(unknown))}: choose of {', '.join(known)}")
    return names


def of_program(part: str) -> dict:
    """What the words of a table's page are of, where they say more than the table itself."""
    return {"program": digest_of(HERE / "ablation_zeroth.py")[:12]} if part in WITHOUT_GRADIENTS else {}


def is_known(part: str, table: dict) -> bool:
    """Whether a table that was kept can be told of."""
    return "on" in table and of_program(part).items() <= table["on"].items()


def run(options: argparse.Namespace) -> dict:
    """Everything that was asked for, written after each table, so that an interrupted run has what it had."""
    lab = Lab(options)
    lab.prepare(set(options.only))
    out = options.out / ("ablation-quick.json" if options.quick else "ablation.json")
    results = json.loads(out.read_text()) if out.is_file() else {}
    # What a former version of this program wrote does not say what it is of.
    results = {part: {name: one for name, one in found.items() if is_known(part, one)} for part, found in results.items() if part in page.PARTS}
    results["quick"] = options.quick
    here = {"machine": engine.machine(os.cpu_count() or 1), "binary": lab.binary[:12]}
    options.out.mkdir(parents=True, exist_ok=True)

    def keep(part: str, name: str, found: dict) -> None:
        # Cells of a table are of one program; tables that are not measured now keep theirs, and what it was.
        results.setdefault(part, {})[name] = found | {"on": here | of_program(part)}
        out.write_text(json.dumps(results, indent=1) + "\n")
        out.with_suffix(".md").write_text(page.page(results))
        for name, plot in zeroth_plot.plots(results).items():
            (out.parent / name.replace(".svg", "-quick.svg" if options.quick else ".svg")).write_text(plot)

    if "ranks" in options.only:
        for name, found in rules(lab, 1 if options.quick else RANKS_ROUNDS):
            keep("ranks", name, found)
    for part, table, found in parts_without_gradients(lab):
        keep(part, table.name, found)
    for model in ("small", "smollm2"):
        if model not in options.only:
            continue
        for table in tables(lab, model):
            seconds = 0.0 if options.quick else 60 * options.minutes * SHARES[table.name]
            keep("tables", table.name, measured(lab, table, seconds))
    return results


def main(words: list[str]) -> int:
    options = arguments(words)
    try:
        print(page.page(run(options)))
    except (AblationError, fleet.DataError, OSError, RuntimeError) as error:
        print(f"ablation: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
