"""The page of predictions, on made-up rows; and that every script here can be read."""

import ast
import pathlib
import sys
import unittest
import unittest.mock

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "benches"))

import federation

MACHINE = {"cpu": "a processor", "cores": 2, "memory_gib": 4}


def row(time_error: float, pace: float) -> dict:
    """A configuration that was predicted to take a second and 100 MiB."""
    return {
        "base": "f32", "kernel": "amx-bf16-3", "optimizer": "adamw", "checkpoint": True, "rank": 4, "batch": 2, "sequence_length": 128,
        "beyond_probed": 0.5, "predicted_seconds": 1.0, "measured_seconds": 1.0 / (1 + time_error), "time_error": time_error, "pace": pace,
        "time_error_at_pace": (1 + time_error) * pace - 1, "predicted_mib": 100.0, "measured_mib": 98.0, "memory_error": 0.02,
    }  # fmt: skip


def page(time_error: float, pace: float, count: int = federation.LEAST) -> tuple[str, list[str]]:
    """The page of so many of such rows."""
    one = row(time_error, pace)
    worst = {f"worst_{what}": one[what] if count else 0.0 for what in ("time_error_at_pace", "time_error", "memory_error")}
    found = {"machine": MACHINE, "validate": {"asked": 17, "validated": [one] * count, **worst}}
    return federation.page(found)


class Predictions(unittest.TestCase):
    def test_a_row_tells_what_was_predicted_and_what_came(self) -> None:
        text, missed = page(0.1, 1.0)
        self.assertIn("| f32, amx-bf16-3, adamw, checkpointing | 4 | 2 | 128 | 0.5 | 1.000 |", text)
        self.assertIn("at least 12 configurations: met (12 of 17)", text)
        self.assertEqual(missed, [])

    def test_a_machine_that_became_slower_is_told_from_a_wrong_prediction(self) -> None:
        raw, paced = "step times within 15 % of what was measured", "step times within 15 % at the machine's pace"
        self.assertEqual(page(-0.3, 1.4)[1], [raw])
        self.assertEqual(page(-0.3, 1.0)[1], [raw, paced])
        self.assertEqual(page(0.0, 1.4)[1], [paced])

    def test_few_configurations_show_nothing_and_none_meets_no_limit(self) -> None:
        self.assertEqual(page(0.0, 1.0, 11)[1], ["at least 12 configurations"])
        text, missed = page(0.0, 1.0, 0)
        self.assertEqual(missed, ["at least 12 configurations"])
        self.assertNotIn(": met", text)


class Scale(unittest.TestCase):
    def ran(self) -> tuple[dict, list[str]]:
        """What is measured where every rule merges 50 MB/s, `residual` in 14 MiB more for 512 updates; and the calls."""
        calls = []

        def run(command: list[str], may_miss: bool) -> dict:
            of = lambda flag: command[command.index(flag) + 1]
            calls.append(f"{of('--rules')} {of('--workers')}")
            peak = lambda name: 114.0 if (name, of("--workers")) == ("residual", "512") else 100.0
            return {"rules": [{"rule": name, "bytes_per_second": 5e7, "peak_mib": peak(name), "seconds": 1.0} for name in of("--rules").split(",")]}

        with unittest.mock.patch.object(federation.engine, "run", run):
            return federation.measured("scale", pathlib.Path("fedpipe"), pathlib.Path("model")), calls

    def test_every_rule_is_shown_and_those_that_decompose_are_run_once(self) -> None:
        found, calls = self.ran()
        self.assertEqual([row["rule"] for row in found["512"]["rules"]], ["product", *federation.AVERAGING, *federation.DECOMPOSING])
        self.assertEqual(calls.count("stack,residual 512"), 1)
        self.assertEqual(calls.count("product,ffa,slice,fedit,sum 512"), federation.REPEATS)

    def test_of_those_that_decompose_memory_is_promised_and_speed_is_not(self) -> None:
        text, missed = federation.page({"machine": MACHINE, "scale": self.ran()[0]})
        of = lambda name: [miss for miss in missed if miss.startswith(f"{name} ")]
        self.assertEqual((of("product"), of("ffa")), (["product at 100 MB/s"], ["ffa at 500 MB/s"]))
        self.assertEqual((of("stack"), of("residual")), ([], ["residual within 10 % of the memory for 8"]))
        self.assertIn("memory is promised of them, speed is not", text)


class Scripts(unittest.TestCase):
    def test_every_script_can_be_read(self) -> None:
        for folder in ("benches", "scripts", "tests"):
            for path in (ROOT / folder).rglob("*.py"):
                with self.subTest(path=path):
                    ast.parse(path.read_text(encoding="utf-8"))
