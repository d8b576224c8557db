"""The zeroth-order parts of the ablation: cells, figures, time and what is run, on made-up runs."""

import argparse
import contextlib
import io
import pathlib
import sys
import tomllib
import unittest
import unittest.mock

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent), str(pathlib.Path(__file__).resolve().parent.parent.parent / "benches")]

import ablation
import ablation_cells as cells
import ablation_fleet as fleet
import ablation_zeroth as zeroth
import ablation_zeroth_page as page
import ablation_zeroth_plot as plot
import ablation_zeroth_run as zeroth_run
from made_runs import report, run

MAIL = cells.TASKS["mail"]


class Cells(unittest.TestCase):
    def test_an_extension_is_the_tuned_cell_and_its_own_fields(self) -> None:
        of = lambda cell: zeroth.job(MAIL, cell, 3, zeroth.Budget(6))
        tuned = of("tuned")
        for cell, fields in zeroth.EXTENSIONS.items():
            now = of(cell)
            bound = {"variance": 1.0} if cell == "variance" else {}
            if cell == zeroth.WORDS:
                # The loss of all words, and what that bears, is its own.
                self.assertNotIn("choices", now["training"])
                bound["clip"] = zeroth.WORDS_CLIP
            else:
                self.assertEqual(now["training"]["choices"], [" yes", " no"])
            self.assertEqual(now["training"]["mezo"], tuned["training"]["mezo"] | fields | bound)
            other = {"name": None, "training": None}
            if cell in zeroth.OTHER_ROUNDS:
                other |= {"rounds": None, "evaluation": None}
            self.assertEqual(now | other, tuned | other)

    def test_a_task_without_choices_has_one_loss(self) -> None:
        questions = cells.TASKS["gsm8k"]
        self.assertEqual(set(zeroth.CELLS) - set(zeroth.cells_of(questions)), {zeroth.WORDS})
        self.assertEqual(zeroth.cells_of(MAIL), list(zeroth.CELLS))
        for cell in zeroth.cells_of(questions):
            self.assertNotIn("choices", zeroth.job(questions, cell, 1, zeroth.Budget(2))["training"])
            self.assertFalse(zeroth.by_words(questions, cell))

    def test_what_begins_after_a_round_has_rounds_left_however_short_the_time_is(self) -> None:
        rounds = zeroth.rounds_in(1.0, {"mask": 100.0}, 5, 40)
        self.assertGreaterEqual(rounds - zeroth.EXTENSIONS["mask"]["mask"]["after"], 3)

    def test_the_bound_is_what_tuned_varied_by_and_goes_into_the_job(self) -> None:
        self.assertEqual(zeroth.bound({"mean_square": 6.0}), 6.0 / zeroth.DIRECTIONS)
        budget = zeroth.Budget(4, variance=1.5)
        bounds = {cell: zeroth.job(MAIL, cell, 1, budget)["training"].get("mezo", {}).get("variance") for cell in zeroth.CELLS}
        self.assertEqual({cell: bound for cell, bound in bounds.items() if bound is not None}, {"variance": 1.5})
        for first in ({}, {"mean_square": None}, {"mean_square": 0.0}):
            with self.assertRaises(ValueError):
                zeroth.bound(first)

    def test_first_order_has_as_many_passes(self) -> None:
        tuned, first = (zeroth.job(MAIL, cell, 1, zeroth.Budget(6))["training"] for cell in ("tuned", "adamw"))
        passes = 2 * tuned["local_steps"] * tuned["mezo"]["perturbations"]
        self.assertEqual(passes, zeroth.FIRST_ORDER_PASSES * first["local_steps"])
        self.assertEqual(tuned["batch"], first["batch"])

    def test_the_papers_cell_is_the_papers(self) -> None:
        job = zeroth.job(MAIL, "paper", 1, zeroth.Budget(20))
        training = job["training"]
        self.assertEqual((training["local_steps"], training["batch"], training["learning_rate"]), (30, 1, 1e-5))
        self.assertEqual((training["mezo"]["perturbation"], training["mezo"]["seeds"], job["rounds"]["count"]), (1e-3, "per-worker", 20))

    def test_the_papers_cell_has_its_stretch_whatever_the_others_have(self) -> None:
        for rounds in (1, 2, 12, 40):
            self.assertEqual(zeroth.Budget(rounds).of("paper"), 20)
        options = argparse.Namespace(quick=True)
        self.assertEqual(zeroth_run.budget_of(argparse.Namespace(options=options), 1).of("paper"), 1)
        options.quick = False
        self.assertEqual(zeroth_run.budget_of(argparse.Namespace(options=options), 7).of("paper"), 20)

    def test_a_run_is_scored_as_often_however_long_it_is(self) -> None:
        for rounds in (1, 2, 7, 40):
            for cell in zeroth.CELLS:
                job = zeroth.job(MAIL, cell, 1, zeroth.Budget(rounds))
                self.assertLessEqual(job["rounds"]["count"] / job["evaluation"]["every"], zeroth.SCORES)

    def test_rates_differ_in_rates_alone(self) -> None:
        jobs = [zeroth.rates_job(MAIL, rates, 1, 20) for rates in zeroth.RATES]
        self.assertEqual([job["training"]["mezo"].pop("rates") for job in jobs], list(zeroth.RATES))
        for job in jobs:
            self.assertEqual({**job, "name": ""}, {**jobs[0], "name": ""})

    def test_sites_consent_to_scalars_of_one_record(self) -> None:
        text = zeroth.consenting(fleet.fleet_toml(fleet.EVEN, "mail", pathlib.Path("data")))
        workers = tomllib.loads(text)["workers"]
        self.assertEqual([site["policy"]["share_small_counts"] for site in workers], [True] * 3)
        self.assertEqual(workers[2]["datasets"]["mail"]["train"], "data/site-3/train.jsonl")

    def test_a_limit_lies_between_what_both_kinds_of_steps_need(self) -> None:
        def found(optimizer: int, checkpoint: int | None) -> int:
            rejected = [{"change": "optimizer", "memory_bytes": optimizer}, {"change": "checkpoint", "memory_bytes": checkpoint}]
            plan = {"optimizer": "adamw", "predicted": {"peak_memory_bytes": 900}, "why": {"rejected": rejected}}
            return zeroth.between({"plan": {"workers": {"c": plan}}}, "c")

        self.assertEqual(found(500, 700), 600)
        self.assertEqual(found(500, None), 700)
        with self.assertRaises(ValueError):
            found(700, 600)


class Figures(unittest.TestCase):
    def test_passes_are_counted_in_batches_of_one_size_and_a_gradient_costs_three(self) -> None:
        found = zeroth.outcome(report("mezo", 1, 60), 8)
        passes = 2 * 60 / 8
        self.assertEqual(found["passes"], passes)
        self.assertEqual([point["passes"] for point in found["curve"]], [0.0, passes])
        self.assertEqual((found["bytes_up"], found["peak_memory_bytes"], found["adapter_bytes"]), (400, 7, 50))
        self.assertEqual(zeroth.planned_peaks(found), [3, 4])
        self.assertEqual([point["records"] for point in found["curve"]], [90, 90])
        self.assertEqual(zeroth.outcome(report("adamw", 8, 16), 8)["passes"], 2 * 16 * 3)

    def test_directions_and_squares_of_scalars_are_of_steps_without_gradients(self) -> None:
        found = zeroth.outcome(report("mezo", 8, 60), 8)
        # Six steps of 60 passes, two for each direction.
        self.assertEqual((found["directions"], found["mean_square"]), (5.0, 3.0))
        first = zeroth.outcome(report("adamw", 8, 16), 8)
        self.assertEqual((first["directions"], first["mean_square"]), (None, None))
        own_ways = report("mezo", 8, 60)
        for one in own_ways["run"]["rounds"]:
            one["workers"] = [{key: value for key, value in site.items() if key != "slopes"} for site in one["workers"]]
        found = zeroth.outcome(own_ways, 8)
        self.assertEqual((found["directions"], found["mean_square"]), (5.0, None))

    def test_a_cell_trains_the_same_as_tuned_where_every_seed_ends_in_its_adapter(self) -> None:
        ended = lambda *digests: [run(2.5) | {"adapter": digest} for digest in digests]
        runs = {"tuned": ended("a", "b"), "mask": ended("a", "b"), "scaling": ended("a", "c"), "abreast": ended("a"), "long": ended("a", "b")}
        self.assertEqual(zeroth.same(runs), ["mask"])
        self.assertEqual(zeroth.same({"mask": ended("a")}), [])
        self.assertEqual(zeroth.same({"tuned": [run(2.5)], "mask": [run(2.5)]}), [])  # kept before digests were


class Time(unittest.TestCase):
    COSTS = {"paper": 2.0, "tuned": 10.0, "abreast": 8.0, "long": 10.0}

    def test_rounds_are_the_most_that_there_is_time_for(self) -> None:
        took = lambda rounds: zeroth.seconds_of(self.COSTS, 3, zeroth.Budget(rounds))
        # Three seeds of tuned and paper; the long one, and abreast for two rounds, with the first seed alone.
        self.assertEqual(took(5), 3 * (5 * 10.0 + 20 * 2.0) + 2 * 8.0 + 5 * zeroth.LONG_TIMES * 10.0)
        self.assertEqual([zeroth.seeds_of(cell, 5) for cell in ("tuned", "adamw", "mask", "long", "abreast")], [5, 5, zeroth.OTHER_SEEDS, 1, 1])
        self.assertEqual([zeroth.seeds_of(cell, 1) for cell in ("tuned", "mask", "long", "abreast")], [1, 1, 1, 1])
        for seconds in (1000.0, 1800.0, 2400.0):
            rounds = zeroth.rounds_in(seconds, self.COSTS, 3, 40)
            self.assertLessEqual(took(rounds), zeroth.STEPS_SHARE * seconds)
            self.assertGreater(took(rounds + 1), zeroth.STEPS_SHARE * seconds)
        self.assertEqual(zeroth.rounds_in(1e9, self.COSTS, 3, 40), 40)
        self.assertEqual(zeroth.rounds_in(1.0, self.COSTS, 3, 40), zeroth.LEAST_ROUNDS)

    def test_tables_share_the_time_of_those_that_are_asked_for(self) -> None:
        asked = ["small-mail", "small-gsm8k"]
        minutes = [zeroth_run.Clock(name, asked, 40.0).minutes for name in asked]
        self.assertAlmostEqual(sum(minutes), 40.0)
        self.assertGreater(minutes[0], minutes[1])
        self.assertEqual(zeroth_run.Clock("rates-small-mail", ["rates-small-mail"], 7.0).minutes, 7.0)

    def test_a_table_ends_with_a_whole_seed_when_its_time_is_over(self) -> None:
        clock = zeroth_run.Clock("small-mail", ["small-mail"], 1.0)
        ran, said = [], []

        def cell(name: str, seed: int) -> dict:
            ran.append((name, seed))
            if seed == 2:
                clock.began -= 60
            return {"of": name}

        *_, found = zeroth_run.by_seed(["tuned", "abreast"], 5, (1, 2, 3), cell, clock, said.append)
        self.assertEqual(ran, [("tuned", 1), ("abreast", 1), ("tuned", 2)])
        self.assertEqual((found["seeds"], found["asked_seeds"]), ([1, 2], [1, 2, 3]))
        self.assertEqual({name: len(runs) for name, runs in found["cells"].items()}, {"tuned": 2, "abreast": 1})
        self.assertIn("no time for seed 3", said[0])
        self.assertEqual(page.seeds(found), "2 seed(s) of 3: there was no time for more")

    def test_a_seed_needs_time_for_its_own_cells_alone(self) -> None:
        clock = zeroth_run.Clock("small-mail", ["small-mail"], 10.0)
        now, costs = [clock.began], {"tuned": 50.0, "mask": 100.0}

        def cell(name: str, seed: int) -> dict:
            now[0] += costs[name]
            return {}

        with unittest.mock.patch.object(zeroth_run.time, "monotonic", lambda: now[0]):
            *_, found = zeroth_run.by_seed(["tuned", "mask"], 5, (1, 2, 3, 4, 5), cell, clock, lambda _: None)
        # After two seeds of both 300 of the 600 seconds are left, which three more of tuned fit.
        self.assertEqual({name: len(runs) for name, runs in found["cells"].items()}, {"tuned": 5, "mask": zeroth.OTHER_SEEDS})

    def test_rounds_are_decided_once_and_only_said_when_asked_how_long_it_takes(self) -> None:
        kept: dict[str, int] = {}

        class Lab:
            binary = "b"
            options = argparse.Namespace(quick=False, rounds=None, estimate=False)

            def decided(self, what: str, decide) -> int:
                return kept.setdefault(what, kept[what] if what in kept else decide())

        clock = zeroth_run.Clock("small-mail", ["small-mail"], 10.0)
        decide = lambda costs: zeroth_run.decided(Lab(), ("t", ["tuned"], 40), lambda: costs, (1, 2), clock, lambda _: None)
        first = decide({"tuned": 20.0})
        self.assertEqual(first, 11)  # 480 of 600 seconds, two seeds of 20
        self.assertEqual(decide({"tuned": 90.0}), first)
        Lab.options.estimate = True
        self.assertEqual((decide({"tuned": 40.0}), len(kept)), (5, 1))
        Lab.options = argparse.Namespace(quick=False, rounds=7, estimate=False)
        self.assertEqual(decide({"tuned": 40.0}), 7)


class Laboratory:
    """Plans and runs that are made up; what was asked for is kept."""

    binary = "b"

    def __init__(self, *words: str) -> None:
        self.options = ablation.arguments(["--only", "zeroth,both,rates", *words])
        self.kept: dict[str, float] = {}
        self.ran: list[tuple[str, str, int, int]] = []
        self.bounds: set[float | None] = set()

    def simulate(self, table: ablation.Table, job: dict, *flags: str, kind: str) -> dict:
        assert flags == ("--plan-only",), flags
        rejected = [{"change": "optimizer", "memory_bytes": 500}, {"change": "checkpoint", "memory_bytes": 700}]
        predicted = {"step_seconds": 1.0, "peak_memory_bytes": 900}
        plan = {"local_steps": job["training"]["local_steps"], "optimizer": "adamw", "predicted": predicted, "why": {"rejected": rejected}}
        sites = job["data"].get("sites", ["site-1", "site-2", "site-3"])
        return {"sites": [{"worker": name, "speed": 1.0} for name in sites], "plan": {"workers": dict.fromkeys(sites, plan)}}

    def cell(self, table: ablation.Table, job: dict, *, kind: str, outcome) -> dict:
        self.ran.append((job["name"], kind, job["rounds"]["count"], job["training"]["seed"]))
        self.bounds.add(job["training"].get("mezo", {}).get("variance"))
        return run(2.5)

    def decided(self, what: str, decide) -> float:
        if what not in self.kept:
            self.kept[what] = decide()
        return self.kept[what]


class Parts(unittest.TestCase):
    def run_all(self, *words: str) -> tuple[Laboratory, dict]:
        lab, found = Laboratory(*words), {}
        with contextlib.redirect_stderr(io.StringIO()) as said:
            for part, table, piece in ablation.parts_without_gradients(lab):
                found.setdefault(part, {})[table.name] = piece
        lab.said = said.getvalue()
        return lab, found

    def test_every_cell_of_every_table_is_run_and_shown(self) -> None:
        lab, found = self.run_all("--minutes", "600", "--seeds", "2")
        self.assertEqual(list(found["zeroth"]), ["small-gsm8k", "small-mail", "smollm2-gsm8k", "smollm2-mail"])
        self.assertEqual(list(found["rates"]), ["small-mail"])
        small = found["zeroth"]["small-mail"]
        self.assertEqual(set(small["cells"]), set(zeroth.CELLS))
        self.assertEqual({name: len(runs) for name, runs in small["cells"].items()}, {name: zeroth.seeds_of(name, 2) for name in zeroth.CELLS})
        self.assertEqual(set(found["zeroth"]["smollm2-mail"]["cells"]), set(zeroth.HEADLINE))
        self.assertEqual(found["zeroth"]["smollm2-mail"]["seeds"], [1])
        self.assertEqual(list(found["both"]), list(found["zeroth"]))
        for table, count in (("small-mail", 2), ("smollm2-mail", 1)):
            self.assertEqual({name: len(runs) for name, runs in found["both"][table]["cells"].items()}, dict.fromkeys(zeroth.BOTH, count))
        kinds = {name: {kind for ran, kind, *_ in lab.ran if ran == f"zeroth-mail-{name}"} for name in zeroth.BOTH}
        self.assertEqual(kinds, {"mixed": {"alike-600"}, "without": {"alike-all"}})
        for name, table in found["zeroth"].items():
            self.assertIn("The best without gradients", "\n".join(page.table(name, table)))
        self.assertIn("drawn anew", "\n".join(page.rates("small-mail", found["rates"]["small-mail"])))
        self.assertEqual(sum(name.endswith("-long.svg") for name in plot.plots(found)), 2)
        self.assertEqual(len(plot.plots(found)), 7)

    def test_a_mixed_fleet_that_there_cannot_be_is_left_out_and_the_page_says_why(self) -> None:
        def refused(*_: object) -> int:
            raise ValueError("no limit lies between")

        with unittest.mock.patch.object(zeroth, "between", refused):
            words = ("--models", "small", "--tasks", "mail", "--only", "both", "--seeds", "1")
            self.assertEqual(self.run_all(*words, "--estimate")[1], {})
            _, found = self.run_all(*words)
        table = found["both"]["small-mail"]
        self.assertEqual(table["cells"], {})
        self.assertIn("`mixed` (two first-order sites and one without room for gradients) was not run: no limit lies between.", page.both("small-mail", table))

    def test_the_bound_is_decided_once_from_one_round_of_tuned_and_the_page_says_what_it_is(self) -> None:
        words = ("--models", "small", "--tasks", "mail", "--only", "zeroth", "--cells", "tuned,variance", "--rounds", "5", "--seeds", "2")
        lab, found = self.run_all(*words)
        self.assertEqual(list(lab.kept.values()), [1.5])
        self.assertRegex(*lab.kept, "^small-mail b [0-9a-f]{12} variance$")
        self.assertEqual(lab.ran[0], ("zeroth-mail-tuned", "alike", 1, 1))
        self.assertEqual([rounds for *_, rounds, _ in lab.ran[1:]], [5] * 4)
        self.assertEqual(lab.bounds, {None, 1.5})
        text = "\n".join(page.table("small-mail", found["zeroth"]["small-mail"]))
        self.assertIn("varies by at most 1.5 in each number: 0.25 of the mean square of the scalars that `tuned` found", text)

    def test_without_scalars_there_is_no_bound_and_the_page_says_so(self) -> None:
        def nothing(*_: object) -> float:
            raise ValueError("no scalars")

        with unittest.mock.patch.object(zeroth, "bound", nothing):
            lab, found = self.run_all("--models", "small", "--tasks", "mail", "--only", "zeroth", "--seeds", "1")
        table = found["zeroth"]["small-mail"]
        self.assertNotIn("variance", table["cells"])
        text = "\n".join(page.table("small-mail", table))
        self.assertIn(f"| {zeroth.CELLS['variance']} | not run: no scalars |", text)
        self.assertNotIn("in each number", text)

    def test_rates_are_of_the_models_and_parts_that_are_asked_for(self) -> None:
        self.assertEqual(self.run_all("--models", "smollm2", "--only", "rates,small")[1], {})

    def test_models_tasks_cells_and_rounds_are_those_that_are_asked_for(self) -> None:
        lab, found = self.run_all("--models", "small", "--tasks", "gsm8k", "--cells", "tuned,adamw", "--rounds", "7", "--seeds", "1")
        self.assertEqual(list(found), ["zeroth"])
        self.assertEqual([(name, rounds) for name, _, rounds, _ in lab.ran], [("zeroth-gsm8k-tuned", 7), ("zeroth-gsm8k-adamw", 7)])
        self.assertEqual(lab.kept, {})

    def test_an_estimate_runs_nothing(self) -> None:
        lab, found = self.run_all("--estimate", "--minutes", "40")
        self.assertEqual((lab.ran, found, lab.kept), ([], {}, {}))
        self.assertEqual(lab.said.count("a round's seconds: "), 9)
        self.assertIn("tuned 18", lab.said)  # three sites, six steps of a second


if __name__ == "__main__":
    unittest.main()
