"""The page of predictions, on made-up rows; and that every script here can be read."""

import ast
import pathlib
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "benches"))

import federation


def row(time_error: float, pace: float) -> dict:
    """A configuration that was predicted to take a second and 100 MiB."""
    return {
        "base": "f32", "kernel": "amx-bf16-3", "optimizer": "adamw", "checkpoint": True, "rank": 4, "batch": 2, "sequence_length": 128,
        "beyond_probed": 0.5, "predicted_seconds": 1.0, "measured_seconds": 1.0 / (1 + time_error), "time_error": time_error, "pace": pace,
        "time_error_at_pace": (1 + time_error) * pace - 1, "predicted_mib": 100.0, "measured_mib": 98.0, "memory_error": 0.02,
    }  # fmt: skip


def page(time_error: float, pace: float) -> tuple[str, list[str]]:
    """The page of one such row."""
    one = row(time_error, pace)
    worst = {f"worst_{what}": one[what] for what in ("time_error_at_pace", "time_error", "memory_error")}
    found = {"machine": {"cpu": "a processor", "cores": 2, "memory_gib": 4}, "validate": {"validated": [one], **worst}}
    return federation.page(found)


class Predictions(unittest.TestCase):
    def test_a_row_tells_what_was_predicted_and_what_came(self) -> None:
        text, missed = page(0.1, 1.0)
        self.assertIn("| f32, amx-bf16-3, adamw, checkpointing | 4 | 2 | 128 | 0.5 | 1.000 |", text)
        self.assertEqual(missed, [])

    def test_a_machine_that_became_slower_is_not_a_wrong_prediction(self) -> None:
        self.assertEqual(page(-0.3, 1.4)[1], [])
        self.assertEqual(page(-0.3, 1.0)[1], ["step times within 15 %"])


class Scripts(unittest.TestCase):
    def test_every_script_can_be_read(self) -> None:
        for folder in ("benches", "scripts", "tests"):
            for path in (ROOT / folder).rglob("*.py"):
                with self.subTest(path=path):
                    ast.parse(path.read_text(encoding="utf-8"))
