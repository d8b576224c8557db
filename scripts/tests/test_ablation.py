"""The ablation's cells, fleet, arithmetic and page, on made-up runs."""

import contextlib
import io
import json
import math
import pathlib
import sys
import tempfile
import tomllib
import unittest
import unittest.mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "benches"))

import ablation
import ablation_cells as cells
import ablation_fleet as fleet
import ablation_page as page


def flat(value: object, path: str = "") -> dict[str, object]:
    """A job's fields by their paths."""
    if not isinstance(value, dict):
        return {path: value}
    return {key: inner for name, below in value.items() for key, inner in flat(below, f"{path}.{name}").items()}


def run(score: float, ends: float = 40.0, apart: float = 0.1) -> dict:
    """A run whose loss falls in a straight line from 3 to `score`."""
    point = lambda seconds, loss: {"seconds": seconds, "loss": loss, "balanced_accuracy": loss, "records": 8}
    plan = {"rank": 8.0, "weights": 4, "batch": 2, "steps": 4, "base": "source", "kernel": "k", "checkpoint": False, "optimizer": "adamw"}
    plan |= {"predicted": 10.0, "spent": 9.5}
    return {
        "curve": [point(0.0, 3.0), point(ends, score)],
        "rounds": 4,
        "records": 64,
        "tokens": 640,
        "apart": apart,
        "waiting": apart / 2,
        "sites": {"site-1": plan},
    }


class Cells(unittest.TestCase):
    def test_each_cell_leaves_more_to_the_planner_and_changes_nothing_else(self) -> None:
        jobs = [flat(cells.job(cells.TASKS["mail"], cell, 3, 4)) for cell in cells.CELLS]
        freed = []
        for before, now in zip(jobs, jobs[1:], strict=False):
            changed = {key for key in now if now[key] != before[key]} - {".name"}
            freed.append(changed)
            for key in changed:
                self.assertIn(now[key], ("auto", "sketch"), key)
        self.assertEqual(freed[0], {".adapter.rank"})
        self.assertEqual(freed[1], {".training.batch"})
        self.assertEqual(freed[2], {".precision.base", ".precision.compute"})
        self.assertEqual(freed[3], {".adapter.importance"})
        self.assertEqual(jobs[0][".adapter.rank"], 4)
        self.assertEqual(jobs[0][".training.seed"], 3)

    def test_the_rules_are_compared_with_everything_else_the_same(self) -> None:
        task = cells.TASKS["gsm8k"]
        left, right = (flat(cells.ranks_job(task, rule, 16, 1, 6)) for rule in ("product", "slice"))
        self.assertEqual({key for key in left if left[key] != right[key]}, {".name", ".aggregation.strategy"})


class Figures(unittest.TestCase):
    def test_an_outcome_has_the_scores_by_the_rounds_clock(self) -> None:
        score = lambda loss: {"seconds": 7.0, "loss": loss, "balanced_accuracy": None, "records": 8, "complete": True}
        apart = {"apart": 0.5, "waiting": 0.25}
        sites = [
            {"worker": "a", "tokens": 10, "records": 2, "spent": {"seconds": 10.0}},
            {"worker": "b", "tokens": 30, "records": 4, "spent": {"seconds": 20.0}},
        ]
        rounds = [{"ends_at": 20.0 * number, "together": apart, "workers": sites, "score": found} for number, found in ((1, None), (2, score(1.0)))]
        run = {"start": score(3.0), "rounds": rounds, "seconds": 40.0, "real_seconds": 9.0, "adapter": {"sha256": "sha256:0"}}
        run["looks"] = [{"after": 1, "stays": "why"}, {"after": 2, "plan": {"version": 2}}]
        found = cells.outcome({"run": run, "plan": {"workers": {}, "excluded": []}})
        self.assertEqual([(point["seconds"], point["loss"]) for point in found["curve"]], [(0.0, 3.0), (40.0, 1.0)])
        self.assertEqual((found["tokens"], found["records"], found["apart"], found["plans"]), (80, 12, 0.5, 2))

    def test_an_interval_is_students(self) -> None:
        mean, half = cells.interval([1.0, 2.0, 3.0])
        self.assertEqual(mean, 2.0)
        self.assertAlmostEqual(half, 4.303 / math.sqrt(3))
        self.assertTrue(math.isnan(cells.interval([1.0])[1]))

    def test_a_target_is_reached_on_the_line_between_two_scores(self) -> None:
        self.assertEqual(cells.time_to(run(1.0), "loss", 2.0), 20.0)
        self.assertEqual(cells.time_to(run(1.0), "loss", 3.5), 0.0)
        self.assertIsNone(cells.time_to(run(1.0), "loss", 0.5))

    def test_an_effect_is_judged_seed_by_seed_and_by_which_way_is_better(self) -> None:
        now, before = [1.0, 2.0, 3.0], [1.5, 2.5, 3.6]
        self.assertEqual(cells.effect(now, before, "loss"), "helps")
        self.assertEqual(cells.effect(now, before, "balanced_accuracy"), "hurts")
        self.assertEqual(cells.effect(now, [0.0, 2.0, 4.0], "loss"), "no measurable effect")
        self.assertEqual(cells.effect([1.0], [2.0], "loss"), "one seed")

    def test_the_time_by_the_clock_follows_from_what_all_cells_take_here(self) -> None:
        # A cell that takes 10 s a round by the clock and 5 s here, one that takes 10 s and 15 s: 2 s here for each by the clock.
        loads = [(10.0, 5.0), (10.0, 15.0)]
        self.assertAlmostEqual(ablation.virtual_seconds(loads, 3, 600.0), 100.0)
        self.assertAlmostEqual(ablation.virtual_seconds(loads, 3, 6.0), 32.0)

    def test_what_a_round_takes_here_is_what_it_takes_at_full_speed(self) -> None:
        plan = lambda seconds: {"local_steps": 4, "predicted": {"step_seconds": seconds, "round_seconds": 5 * seconds}}
        sites = [{"worker": "a", "speed": None}, {"worker": "b", "speed": 0.25}]
        report = {"sites": sites, "plan": {"workers": {"a": plan(1.0), "b": plan(2.0)}}}
        self.assertEqual(ablation.load(report), (10.0, 6.0))


class Pieces(unittest.TestCase):
    def test_parts_tasks_and_cells_are_chosen_and_nothing_unknown_is(self) -> None:
        options = ablation.arguments(["--only", "ranks,smollm2", "--tasks", "mail", "--cells", "uniform,full", "--seeds", "1"])
        self.assertEqual((options.only, options.tasks, options.cells), (("ranks", "smollm2"), ("mail",), ("uniform", "full")))
        self.assertEqual(ablation.arguments([]).only, ("ranks", "small", "smollm2"))
        self.assertEqual(ablation.arguments(["--quick"]).only, ablation.PARTS)
        self.assertEqual(ablation.arguments(["--quick", "--only", "rates"]).only, ("rates",))
        for words in (["--only", "others"], ["--cells", "full,none"], ["--seeds", "0"], ["--profiles", "/nowhere.json"]):
            with self.assertRaises(SystemExit), contextlib.redirect_stderr(io.StringIO()):
                ablation.arguments(words)

    def test_gsm8k_is_where_the_environment_says_or_where_its_files_are(self) -> None:
        with tempfile.TemporaryDirectory() as name, unittest.mock.patch.dict("os.environ", {"FEDPIPE_GSM8K": ""}):
            tools, beside = pathlib.Path(name, ".tools"), pathlib.Path(name, "beside")
            own, shared = tools / "data/gsm8k", beside / "shared/data"
            self.assertEqual(ablation.gsm8k_folder(tools, beside), own)  # which the error then names
            for folder in (shared, own):
                folder.mkdir(parents=True)
                for file in fleet.GSM8K:
                    (folder / file).touch()
                self.assertEqual(ablation.gsm8k_folder(tools, beside), folder)
            with unittest.mock.patch.dict("os.environ", {"FEDPIPE_GSM8K": "/elsewhere"}):
                self.assertEqual(ablation.gsm8k_folder(tools, beside), pathlib.Path("/elsewhere"))

    def test_profiles_of_another_binary_are_begun_with_and_never_replace_its_own(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            binary, other = pathlib.Path(name, "fedpipe"), pathlib.Path(name, "profiles-other.json")
            binary.touch()
            other.write_text("other's")
            open_lab = lambda: ablation.Lab(ablation.arguments(["--fedpipe", str(binary), "--work", f"{name}/work", "--profiles", str(other)]))
            own = open_lab().profiles
            self.assertEqual(own.read_text(), "other's")
            own.write_text("its own")
            self.assertEqual(open_lab().profiles.read_text(), "its own")

    def test_tables_that_are_not_measured_now_stay_with_what_they_are_of(self) -> None:
        with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as patched:
            out = pathlib.Path(name)
            binary, file = out / "fedpipe", out / "ablation.json"
            for target, attribute, value in (
                (ablation.Lab, "prepare", lambda *_: None),
                (ablation.page, "page", lambda _: ""),
                (ablation, "measured", lambda _, table, seconds: {"of": table.name, "seconds": seconds}),
            ):
                patched.enter_context(unittest.mock.patch.object(target, attribute, value))
            of = {}
            for content, task in (("first", "mail"), ("second", "gsm8k"), ("third", "gsm8k")):
                binary.write_text(content)
                of[content] = ablation.digest_of(binary)[:12]
                ablation.run(ablation.arguments(["--only", "smollm2", "--tasks", task, "--fedpipe", str(binary), "--work", f"{name}/work", "--out", name]))
            kept = json.loads(file.read_text())["tables"]
        self.assertEqual({table: found["of"] for table, found in kept.items()}, {"smollm2-mail": "smollm2-mail", "smollm2-gsm8k": "smollm2-gsm8k"})
        self.assertEqual(kept["smollm2-mail"]["on"]["binary"], of["first"])
        self.assertEqual(kept["smollm2-gsm8k"]["on"]["binary"], of["third"])

    def test_cells_whose_sites_train_the_same_are_one(self) -> None:
        plan = lambda batch: {"ranks": {"q": [4]}, "batch": batch, "local_steps": 4, "base": "source", "kernel": "k",
                              "checkpoint": False, "optimizer": "adamw", "why": str(batch)}  # fmt: skip
        report = lambda batch, why: {"plan": {"workers": {"site-1": plan(batch) | {"why": why}}}}
        reports = {"uniform": report(2, "a"), "ranks": report(2, "b"), "batch": report(4, "c"), "bits": report(2, "d")}
        self.assertEqual(ablation.alike(reports), {"ranks": "uniform", "bits": "uniform"})

    def test_a_cell_without_a_plan_is_left_out_of_the_plans(self) -> None:
        lab = unittest.mock.Mock()
        lab.simulate.side_effect = lambda table, job, *flags: None if job["name"].endswith("-batch") else {"job": job["name"]}
        found = ablation.plans(lab, ablation.Table("small", cells.TASKS["mail"]), 4)
        self.assertEqual(list(found), [cell for cell in cells.ORDER if cell != "batch"])


class Fleet(unittest.TestCase):
    def test_the_fleet_file_is_the_issues_fleet(self) -> None:
        text = fleet.fleet_toml(fleet.FLEET, "mail", pathlib.Path("data"))
        workers = tomllib.loads(text)["workers"]
        self.assertEqual([site["speed"] for site in workers], [1.0, 0.5, 0.25, 0.125])
        self.assertEqual([site["memory_limit"] for site in workers], ["8192MiB", "2048MiB", "1024MiB", "512MiB"])
        self.assertEqual(sum("bandwidth_limit" in site for site in workers), 1)
        self.assertEqual(workers[3]["datasets"]["mail"]["train"], "data/site-4/train.jsonl")
        half = tomllib.loads(fleet.fleet_toml(fleet.FLEET, "mail", pathlib.Path("data"), 0.5))["workers"]
        self.assertEqual(half[3]["memory_limit"], "256MiB")

    def test_without_its_last_site_a_fleet_is_scored_on_the_same_records(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder, out = pathlib.Path(name) / "data", pathlib.Path(name) / "all"
            for site in fleet.EVEN:
                fleet.write(folder / site.name, [], [{"of": site.name, "at": number, "text": "one\u2028line"} for number in range(3)])
            text = fleet.scored_on_all(fleet.fleet_toml(fleet.EVEN, "mail", folder), fleet.EVEN, folder, out)
            held = [pathlib.Path(site["datasets"]["mail"]["held_out"]) for site in tomllib.loads(text)["workers"]]
            read = lambda path: path.read_text(encoding="utf-8").split("\n")[:-1]
            of_all = [line for site in fleet.EVEN for line in read(folder / site.name / "heldout.jsonl")]
            self.assertEqual(sorted(read(held[0]) + read(held[1])), sorted(of_all))
            self.assertEqual(held[2], folder / "site-3" / "heldout.jsonl")

    def test_every_record_is_dealt_once(self) -> None:
        rows = list(range(101))
        dealt = fleet.parts(rows, fleet.FLEET)
        self.assertEqual([row for part in dealt for row in part], rows)
        self.assertEqual([len(part) for part in dealt], [40, 31, 20, 10])
        self.assertEqual(sorted(row for part in fleet.equal(rows, 4) for row in part), rows)

    def test_only_the_published_files_are_taken(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            with self.assertRaisesRegex(fleet.DataError, "is missing"):
                fleet.gsm8k(folder)
            (folder / "gsm8k_train.jsonl").write_text(json.dumps({"question": "1+1?", "answer": "2"}) + "\n")
            with self.assertRaisesRegex(fleet.DataError, "not the published"):
                fleet.gsm8k(folder)


class Page(unittest.TestCase):
    def test_the_page_says_what_helps_what_does_not_and_whether_the_sites_finish_together(self) -> None:
        ends = {"uniform": 2.0, "ranks": 2.0, "batch": 1.5, "bits": 1.4, "importance": 1.45, "full": 1.3}
        jitter = (0.0, 0.001, 0.002)
        runs = {cell: [run(end + noise, apart=0.875 if cell in ("uniform", "ranks") else 0.12) for noise in jitter] for cell, end in ends.items()}
        found = {"uniform_rank": 4, "until_seconds": 40.0, "seeds": [1, 2, 3], "cells": runs}
        machine = {"cores": 2, "cpu": "a processor", "instructions": ["avx2"], "memory_gib": 4}
        found["on"] = {"machine": machine, "binary": "0123456789ab"}
        text = page.page({"quick": False, "tables": {"smollm2-gsm8k": found}})
        self.assertIn("Measured on: 2 cores of a processor (avx2), 4 GiB; binary 0123456789ab.", text)
        self.assertIn("full FedPipe against uniform LoRA helps", text)
        self.assertIn("a round of 10.0 s by the plan, 9.5 s as it came", text)
        self.assertIn("ranks no measurable effect; batch helps; bits helps; importance hurts; full helps", text)
        self.assertIn("12 % apart under the plan and 88 % apart with one configuration (as promised", text)
        few = found | {"cells": {cell: runs[cell] for cell in ("batch", "full")}, "same": {"full": "batch"}}
        text = page.page({"quick": False, "tables": {"smollm2-gsm8k": few}})
        self.assertIn("trains the same as batch", text)
        self.assertNotIn("as promised", text)
        lacking = found | {"cells": {cell: runs[cell] for cell in ("uniform", "full")}, "unplanned": ["batch"]}
        text = page.page({"quick": False, "tables": {"smollm2-gsm8k": lacking}})
        self.assertIn(f"| {cells.CELLS['batch']} | no plan", text)
        runs["full"] = [run(1.3, apart=0.3) for _ in jitter]
        self.assertIn("NOT as promised", page.page({"quick": False, "tables": {"smollm2-gsm8k": found}}))


if __name__ == "__main__":
    unittest.main()
