"""The zeroth-order parts of the ablation: cells, figures, page and plots, on made-up runs."""

import argparse
import contextlib
import io
import pathlib
import sys
import tomllib
import unittest
import unittest.mock
import xml.etree.ElementTree as tree

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "benches"))

import ablation
import ablation_cells as cells
import ablation_fleet as fleet
import ablation_zeroth as zeroth
import ablation_zeroth_page as page
import ablation_zeroth_plot as plot
import ablation_zeroth_run as zeroth_run

MAIL = cells.TASKS["mail"]


def run(loss: float, exact: float | None = 0.7) -> dict:
    """A run whose loss falls in a straight line from 3, and whose balanced accuracy is `exact` all along."""
    scores = lambda found: {"loss": found, "balanced_accuracy": exact, "records": 90}
    of = lambda passes, found: {**scores(found), "seconds": passes / 2, "passes": passes, "bytes_up": round(21 * passes)}
    kept = {"curve": [of(0.0, 3.0), of(96.0, loss)], "rounds": 2, "passes": 96.0, "seconds": 48.0, "bytes_up": 2048, "peak_memory_bytes": 2**29}
    site = lambda peak: {"optimizer": "mezo", "planned_peak_bytes": peak}
    return kept | {"adapter_bytes": 3 << 20, "sites": {"site-1": site(2**28), "site-3": site(2**27)}}


def kept_before(loss: float) -> dict:
    """The same of a run that was kept before plans, adapters and records were counted."""
    found = {key: value for key, value in run(loss).items() if key not in ("adapter_bytes", "sites")}
    found["curve"] = [{key: value for key, value in point.items() if key != "records"} for point in found["curve"]]
    return found


def report(optimizer: str, batch: int, passes: int) -> dict:
    """A simulation of two rounds of two sites, the second scored."""
    score = lambda loss: {"loss": loss, "balanced_accuracy": 0.5, "records": 90}
    site = lambda name, peak: {"worker": name, "batch": batch, "passes": passes, "update_bytes": 100, "peak_memory_bytes": peak}
    sites = [site("a", 5), site("b", 7)]
    rounds = [{"ends_at": 10.0 * number, "workers": sites, "score": found} for number, found in ((1, None), (2, score(1.0)))]
    plan = lambda peak: {"optimizer": optimizer, "batch": batch, "predicted": {"peak_memory_bytes": peak}}
    return {
        "run": {"start": score(3.0), "rounds": rounds, "seconds": 20.0, "real_seconds": 1.0, "adapter": {"sha256": "x", "bytes": 50}},
        "plan": {"workers": {"a": plan(3), "b": plan(4)}},
    }


class Cells(unittest.TestCase):
    def test_an_extension_is_the_tuned_cell_and_its_own_fields(self) -> None:
        of = lambda cell: zeroth.job(MAIL, cell, 3, zeroth.Budget(6))
        tuned = of("tuned")
        for cell, fields in zeroth.EXTENSIONS.items():
            now = of(cell)
            self.assertEqual(now["training"]["mezo"], tuned["training"]["mezo"] | fields)
            other = {"name": None, "training": None}
            if cell in zeroth.ONCE:
                other |= {"rounds": None, "evaluation": None}
            self.assertEqual(now | other, tuned | other)

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
        found = zeroth.outcome(report("mezo", 1, 60))
        passes = 2 * 60 / zeroth.BATCH
        self.assertEqual(found["passes"], passes)
        self.assertEqual([point["passes"] for point in found["curve"]], [0.0, passes])
        self.assertEqual((found["bytes_up"], found["peak_memory_bytes"], found["adapter_bytes"]), (400, 7, 50))
        self.assertEqual(zeroth.planned_peaks(found), [3, 4])
        self.assertEqual([point["records"] for point in found["curve"]], [90, 90])
        self.assertEqual(zeroth.outcome(report("adamw", zeroth.BATCH, 16))["passes"], 2 * 16 * 3)


class Time(unittest.TestCase):
    COSTS = {"paper": 2.0, "tuned": 10.0, "abreast": 8.0, "long": 10.0}

    def test_rounds_are_the_most_that_there_is_time_for(self) -> None:
        took = lambda rounds: zeroth.seconds_of(self.COSTS, 3, zeroth.Budget(rounds))
        # Three seeds of tuned and paper, abreast for two rounds and the long one with the first seed alone.
        self.assertEqual(took(5), 3 * (5 * 10.0 + 20 * 2.0) + 2 * 8.0 + 5 * zeroth.LONG_TIMES * 10.0)
        for seconds in (900.0, 2400.0, 4000.0):
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

        *_, found = zeroth_run.by_seed(["tuned", "long"], 5, (1, 2, 3), cell, clock, said.append)
        self.assertEqual(ran, [("tuned", 1), ("long", 1), ("tuned", 2)])
        self.assertEqual((found["seeds"], found["asked_seeds"]), ([1, 2], [1, 2, 3]))
        self.assertEqual({name: len(runs) for name, runs in found["cells"].items()}, {"tuned": 2, "long": 1})
        self.assertIn("no time for seed 3", said[0])
        self.assertEqual(page.seeds(found), "2 seed(s) of 3: there was no time for more")

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
        self.options = ablation.arguments(["--only", "zeroth,rates", *words])
        self.kept: dict[str, float] = {}
        self.ran: list[tuple[str, str, int, int]] = []

    def simulate(self, table: ablation.Table, job: dict, *flags: str, kind: str) -> dict:
        assert flags == ("--plan-only",), flags
        rejected = [{"change": "optimizer", "memory_bytes": 500}, {"change": "checkpoint", "memory_bytes": 700}]
        predicted = {"step_seconds": 1.0, "peak_memory_bytes": 900}
        plan = {"local_steps": job["training"]["local_steps"], "optimizer": "adamw", "predicted": predicted, "why": {"rejected": rejected}}
        sites = job["data"].get("sites", ["site-1", "site-2", "site-3"])
        return {"sites": [{"worker": name, "speed": 1.0} for name in sites], "plan": {"workers": dict.fromkeys(sites, plan)}}

    def cell(self, table: ablation.Table, job: dict, *, kind: str, outcome) -> dict:
        self.ran.append((job["name"], kind, job["rounds"]["count"], job["training"]["seed"]))
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
        self.assertEqual({name: len(runs) for name, runs in small["cells"].items()}, {name: 1 if name in zeroth.ONCE else 2 for name in zeroth.CELLS})
        self.assertEqual(set(found["zeroth"]["smollm2-mail"]["cells"]), set(zeroth.HEADLINE))
        self.assertEqual(found["zeroth"]["smollm2-mail"]["seeds"], [1])
        kinds = {kind for name, kind, *_ in lab.ran if name == "zeroth-mail-mixed"}
        self.assertEqual(kinds, {"alike-600"})
        for name, table in found["zeroth"].items():
            self.assertIn("The best without gradients", "\n".join(page.table(name, table)))
        self.assertIn("drawn anew", "\n".join(page.rates("small-mail", found["rates"]["small-mail"])))
        self.assertEqual(sum(name.endswith("-long.svg") for name in plot.plots(found)), 2)
        self.assertEqual(len(plot.plots(found)), 7)

    def test_a_mixed_fleet_that_there_cannot_be_is_left_out_and_the_page_says_why(self) -> None:
        def refused(*_: object) -> int:
            raise ValueError("no limit lies between")

        with unittest.mock.patch.object(zeroth, "between", refused):
            lab, found = self.run_all("--models", "small", "--tasks", "mail", "--only", "zeroth", "--seeds", "1")
        table = found["zeroth"]["small-mail"]
        self.assertNotIn("mixed", table["cells"])
        self.assertIn(f"| {zeroth.CELLS['mixed']} | not run: no limit lies between |", "\n".join(page.table("small-mail", table)))

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
        self.assertEqual(lab.said.count("a round's seconds: "), 5)
        self.assertIn("tuned 18", lab.said)  # three sites, six steps of a second


class Page(unittest.TestCase):
    def test_the_table_says_how_far_it_stays_behind(self) -> None:
        runs = {"tuned": [run(2.5)], "mask": [run(2.6)], "adamw": [run(1.0)], "mixed": [run(1.2)], "without": [run(1.3)]}
        text = "\n".join(page.table("small-mail", {"seeds": [1], "rounds": 2, "cells": runs}))
        self.assertIn("The best without gradients is `tuned`.", text)
        self.assertIn("`tuned` stays 1.5000 nats behind first-order AdamW (96 passes against 96; its loss falls by 25 % of what AdamW's does; "
                      "balanced accuracy 0.700 against 0.700)", text)  # fmt: skip
        self.assertIn("0.700 of `tuned` (1 seed(s), 90 held-out records), is +0.200 from the constant answer's 0.5 (one seed promises nothing;", text)
        self.assertIn("first-order AdamW's is 0.700.", text)
        self.assertIn("| 2 | 96 | 48 | 2.0 KiB | 128–256 MiB | 512 MiB |", text)
        self.assertNotIn("No accuracy", text)
        self.assertIn("1 seed(s).", text)
        self.assertIn("by which no fall is clear", text)

    def test_a_fall_is_clear_where_all_seeds_agree_on_it(self) -> None:
        self.assertIn("falls by 0.5000 ± 0.", page.fell([run(2.5), run(2.51), run(2.49)]))
        self.assertIn("clearly, as promised", page.fell([run(2.5), run(2.51), run(2.49)]))
        self.assertIn("NOT as promised", page.fell([run(2.5), run(3.6), run(2.7)]))
        self.assertIn("does not fall", page.fell([run(3.1)]))

    def test_an_accuracy_is_as_promised_where_its_whole_interval_is(self) -> None:
        of = lambda *scores: page.risen({"tuned": [run(2.5, exact=score) for score in scores]}, ["tuned"], MAIL)
        self.assertIn("is +0.100 from the constant answer's 0.5 (NOT as promised: at least +0.15", of(0.6, 0.6))
        self.assertIn("(as promised: at least +0.15", of(0.65, 0.65))
        self.assertIn("is +0.200 from the constant answer's 0.5 (NOT as promised", of(0.6, 0.8))
        self.assertIn("(one seed promises nothing; asked is at least +0.15", of(0.9))

    def test_the_page_says_what_comes_down_and_what_scalars_are_counted_as(self) -> None:
        runs = {"tuned": [run(2.5)], "scaling": [run(2.5)], "paper": [run(2.9)], "adamw": [run(1.0) | {"adapter_bytes": 4 << 20}]}
        text = "\n".join(page.table("small-mail", {"seeds": [1], "rounds": 2, "cells": runs}))
        self.assertIn("scalars are counted as 4·H·P + 512 bytes", text)
        self.assertIn("(`tuned`, `scaling`) the whole adapter (3.0 MiB) once", text)
        self.assertIn("(`scaling`: of up to 4 before it too)", text)
        self.assertIn("for `paper`, `adamw` the whole adapter (3.0 MiB–4.0 MiB) in every round.", text)

    def test_runs_that_were_kept_before_are_shown_as_far_as_they_tell(self) -> None:
        runs = {"tuned": [kept_before(2.5)], "adamw": [kept_before(1.0)]}
        found = {"seeds": [1], "rounds": 2, "cells": runs}
        text = "\n".join(page.table("small-mail", found))
        self.assertIn("| 2.0 KiB | – | 512 MiB |", text)
        self.assertIn("for `adamw` the whole adapter in every round.", text)
        self.assertIn("(1 seed(s), at most 96 held-out records)", text)
        self.assertEqual(plot.mean_curve(runs["tuned"], plot.PEAK), [])
        tree.fromstring(plot.plots({"zeroth": {"small-mail": found}})["zeroth-small-mail.svg"])

    def test_a_task_without_choices_says_why_it_has_no_accuracy(self) -> None:
        text = "\n".join(page.table("small-gsm8k", {"seeds": [1], "rounds": 2, "cells": {"tuned": [run(2.9, exact=None)]}}))
        self.assertIn("free answers are not scored. Losses are of 90 held-out records: of the 96 that sites hold those that fit 128 tokens", text)

    def test_cells_of_other_passes_say_so_where_they_are_compared(self) -> None:
        paper = [run(2.9) | {"passes": 600.0}]
        text = "\n".join(page.judged({"tuned": [run(2.5)], "mask": [run(2.6)], "paper": paper}, MAIL))
        self.assertIn("`paper` against `tuned`, by loss: one seed (600 passes against 96).", text)
        self.assertIn("`mask` against `tuned`, by loss: one seed.", text)

    def test_the_mixed_fleet_is_judged_by_what_its_own_sites_learned(self) -> None:
        alone = [run(1.3), run(1.31), run(1.32)]
        better, same, worse = ([run(loss + noise) for noise in (0.0, 0.012, 0.019)] for loss in (1.1, 1.3, 1.5))
        self.assertIn("it is better (as promised)", page.mixed(better, alone))
        self.assertIn("not measurably worse (as promised)", page.mixed(same, alone))
        self.assertIn("it is worse (NOT as promised)", page.mixed(worse, alone))
        self.assertIn(": worse, by one seed", page.mixed(worse[:1], alone[:1]))
        sites = lambda last: {"sites": {"site-1": {"optimizer": "adamw"}, "site-3": {"optimizer": last}}}
        self.assertIn("(site-3 by forward passes)", page.mixed([run(1.2) | sites("mezo")], alone[:1]))
        self.assertIn("shows nothing", page.mixed([run(1.2) | sites("adamw")], alone[:1]))

    def test_the_papers_cell_says_how_much_of_the_papers_run_it_is(self) -> None:
        text = "\n".join(page.table("small-gsm8k", {"seeds": [1], "rounds": 2, "cells": {"paper": [run(2.9, exact=None) | {"rounds": 19}]}}))
        self.assertIn("(rank 16 and a model of this size, where it has rank 128 and 3B parameters), a stretch of 19 of its 500 rounds | 2.9000 | – |", text)

    def test_what_is_run_once_is_judged_by_what_it_is_for(self) -> None:
        fast = run(2.9) | {"seconds": 12.0, "passes": 48.0}
        long = run(1.5, exact=0.9) | {"rounds": 12}
        runs = {"tuned": [run(2.5, exact=0.6), run(2.4, exact=0.6)], "abreast": [fast], "long": [long]}
        text = "\n".join(page.table("small-mail", {"seeds": [1, 2], "rounds": 2, "cells": runs}))
        self.assertIn("The best without gradients is `tuned`.", text)
        self.assertIn("Passes computed as one take 0.50 of the time.", text)
        self.assertIn("0.600 ± 0.000 of `tuned` (2 seed(s), 90 held-out records), is +0.100 from the constant answer's 0.5 (NOT as promised", text)
        self.assertIn("`long` comes to 0.900 with one seed, which promises nothing.", text)
        self.assertIn("In 12 rounds, with one seed, the loss falls by 1.5000 nats.", text)
        self.assertNotIn("`abreast` against", text)

    def test_rates_are_compared_with_one_rate_for_all_and_with_random_ones(self) -> None:
        of = lambda loss: [run(loss), run(loss + 0.01), run(loss + 0.02)]
        runs = {"fixed": of(2.5), "random": of(2.6), "round-loss": of(2.4), "model-difference": of(2.55)}
        text = "\n".join(page.rates("small-mail", {"seeds": [1, 2, 3], "rounds": 2, "cells": runs}))
        self.assertIn("| one rate for all (`fixed`) | 2.5100 ± 0.0248 | 0.700 ± 0.000 |  | helps |", text)
        self.assertIn("in every round it sends its scalars, counted as 4·H·P + 512 bytes, and fetches the whole adapter (3.0 MiB).", text)
        self.assertIn("The lowest loss is of `round-loss`.", text)
        self.assertIn("one rate for all help measurably: `round-loss`; against random ones: `round-loss`, `model-difference`.", text)


class Plots(unittest.TestCase):
    def picture(self, results: dict, name: str) -> tree.Element:
        return tree.fromstring(plot.plots(results)[name])

    def parts(self, picture: tree.Element, tag: str) -> list[tree.Element]:
        return [part for part in picture.iter() if part.tag.endswith(f"}}{tag}")]

    def words(self, picture: tree.Element) -> list[str]:
        return [part.text or "" for part in self.parts(picture, "text")]

    def test_each_score_is_shown_against_each_cost_with_a_line_for_each_cell(self) -> None:
        runs = {"tuned": [run(2.5), run(2.7)], "adamw": [run(1.0), run(1.2)], "abreast": [run(2.9)], "long": [run(2.0)]}
        results = {"zeroth": {"small-mail": {"seeds": [1, 2], "rounds": 2, "cells": runs}}}
        picture = self.picture(results, "zeroth-small-mail.svg")
        self.assertEqual(len(self.parts(picture, "g")), len(plot.COSTS) * len(plot.SCORES))
        for title in (*plot.COSTS.values(), *plot.SCORES.values(), "tuned", "adamw"):
            self.assertIn(title, self.words(picture))
        # Two cells, two scores: lines against passes and seconds; of the bytes the start has no place, of the peak there is a point.
        self.assertEqual(len(self.parts(picture, "polyline")), 2 * 2 * 2)
        self.assertFalse({"abreast", "long"} & set(self.words(picture)))
        self.assertIn("long", self.words(self.picture(results, "zeroth-small-mail-long.svg")))

    def test_what_a_task_has_no_score_of_has_no_panel(self) -> None:
        results = {"rates": {"small-mail": {"seeds": [1], "rounds": 2, "cells": {"fixed": [run(2.5, exact=None)], "random": [run(2.6, exact=None)]}}}}
        picture = self.picture(results, "rates-small-mail.svg")
        self.assertEqual((len(self.parts(picture, "g")), len(self.parts(picture, "polyline"))), (1, 2))
        self.assertNotIn("balanced accuracy", self.words(picture))

    def test_a_line_is_the_seeds_mean(self) -> None:
        runs = [run(2.5), run(2.7)]
        self.assertEqual(plot.mean_curve(runs), [(0.0, 3.0), (96.0, 2.6)])
        self.assertEqual(plot.mean_curve(runs, plot.SECONDS), [(0.0, 3.0), (48.0, 2.6)])
        self.assertEqual(plot.mean_curve(runs, plot.PEAK), [(2.0**28, 2.6)])
        self.assertEqual(plot.mean_curve([run(2.5, exact=None)], score="balanced_accuracy"), [])

    def test_an_axis_has_its_ends_and_a_logarithmic_one_even_factors(self) -> None:
        axis = plot.Axis(1.0, 1000.0, 0.0, 30.0, logarithmic=True)
        self.assertAlmostEqual(axis.at(10.0), 10.0)
        for found, wanted in zip(axis.ticks(), (1.0, 10.0, 100.0, 1000.0), strict=True):
            self.assertAlmostEqual(found, wanted)
        self.assertEqual(plot.Axis(0.0, 3.0, 10.0, 40.0).at(1.0), 20.0)


if __name__ == "__main__":
    unittest.main()
