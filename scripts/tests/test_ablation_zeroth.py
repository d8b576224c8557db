"""The zeroth-order parts of the ablation: cells, figures, page and plots, on made-up runs."""

import pathlib
import sys
import tomllib
import unittest
import xml.etree.ElementTree as tree

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "benches"))

import ablation_cells as cells
import ablation_fleet as fleet
import ablation_zeroth as zeroth
import ablation_zeroth_page as page

MAIL = cells.TASKS["mail"]


def run(loss: float, exact: float | None = 0.7) -> dict:
    """A run whose loss falls in a straight line from 3."""
    of = lambda passes, found: {"loss": found, "balanced_accuracy": exact, "seconds": passes / 2, "passes": passes, "bytes_up": 10}
    return {"curve": [of(0.0, 3.0), of(96.0, loss)], "rounds": 2, "passes": 96.0, "seconds": 48.0, "bytes_up": 2048, "peak_memory_bytes": 2**29}


def report(optimizer: str, batch: int, passes: int) -> dict:
    """A simulation of two rounds of two sites, the second scored."""
    score = lambda loss: {"loss": loss, "balanced_accuracy": 0.5}
    site = lambda name, peak: {"worker": name, "batch": batch, "passes": passes, "update_bytes": 100, "peak_memory_bytes": peak}
    sites = [site("a", 5), site("b", 7)]
    rounds = [{"ends_at": 10.0 * number, "workers": sites, "score": found} for number, found in ((1, None), (2, score(1.0)))]
    plan = {"optimizer": optimizer, "batch": batch}
    return {
        "run": {"start": score(3.0), "rounds": rounds, "seconds": 20.0, "real_seconds": 1.0, "adapter": {"sha256": "x"}},
        "plan": {"workers": {"a": plan, "b": plan}},
    }


class Cells(unittest.TestCase):
    def test_an_extension_is_the_tuned_cell_and_its_own_fields(self) -> None:
        of = lambda cell: zeroth.job(MAIL, cell, 3, zeroth.Budget(6))
        tuned = of("tuned")
        for cell, fields in zeroth.EXTENSIONS.items():
            now = of(cell)
            self.assertEqual(now["training"]["mezo"], tuned["training"]["mezo"] | fields)
            for job in (now, tuned):
                job.pop("name", None)
            self.assertEqual(now | {"training": None}, tuned | {"training": None})

    def test_first_order_has_as_many_passes(self) -> None:
        tuned, first = (zeroth.job(MAIL, cell, 1, zeroth.Budget(6))["training"] for cell in ("tuned", "adamw"))
        passes = 2 * tuned["local_steps"] * tuned["mezo"]["perturbations"]
        self.assertEqual(passes, zeroth.FIRST_ORDER_PASSES * first["local_steps"])
        self.assertEqual(tuned["batch"], first["batch"])

    def test_the_papers_cell_is_the_papers(self) -> None:
        job = zeroth.job(MAIL, "paper", 1, zeroth.Budget(6))
        training = job["training"]
        self.assertEqual((training["local_steps"], training["batch"], training["learning_rate"]), (30, 1, 1e-5))
        self.assertEqual((training["mezo"]["perturbation"], training["mezo"]["seeds"], job["rounds"]["count"]), (1e-3, "per-worker", 20))

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
        self.assertEqual(found["passes"], 2 * 60 / 8)
        self.assertEqual([point["passes"] for point in found["curve"]], [0.0, 15.0])
        self.assertEqual((found["bytes_up"], found["peak_memory_bytes"]), (400, 7))
        self.assertEqual(zeroth.outcome(report("adamw", 8, 16))["passes"], 2 * 16 * 3)


class Page(unittest.TestCase):
    def test_the_table_says_how_far_it_stays_behind(self) -> None:
        runs = {"tuned": [run(2.5)], "mask": [run(2.6)], "adamw": [run(1.0)], "mixed": [run(1.2)], "without": [run(1.3)]}
        text = "\n".join(page.table("small-mail", {"seeds": [1], "cells": runs}))
        self.assertIn("The best without gradients is `tuned`.", text)
        self.assertIn("stays 1.5000 nats behind", text)
        self.assertIn("+0.200 from the constant answer's (as promised: 0.15)", text)
        self.assertIn("2.0 KiB | 512 MiB |", text)

    def test_plots_are_pictures_with_a_line_for_each_cell(self) -> None:
        runs = {"fixed": [run(2.5), run(2.7)], "random": [run(2.6), run(2.6)]}
        results = {"rates": {"small-mail": {"seeds": [1], "rounds": 2, "cells": runs}}}
        [(name, text)] = page.plots(results).items()
        self.assertEqual(name, "rates-small-mail.svg")
        picture = tree.fromstring(text)
        lines = [part for part in picture if part.tag.endswith("polyline")]
        self.assertEqual(len(lines), 2)
        self.assertEqual(page.mean_curve(runs["fixed"]), [(0.0, 3.0), (96.0, 2.6)])
        self.assertIn("| one rate for all (`fixed`) |", "\n".join(page.rates("small-mail", results["rates"]["small-mail"])))


if __name__ == "__main__":
    unittest.main()
