"""Behaviour of the demonstration's figures on an invented report."""

import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import demo_report  # noqa: E402


def worker(name: str, up: int) -> dict:
    figures = {"tokens_per_second": 50.0, "peak_memory_bytes": 3 << 30, "loss": 0.5, "steps": 8, "compute_seconds": 16.0}
    metrics = {"bytes_up": up, "bytes_down": 2 * up, "control_bytes_up": 450, **figures}
    return {"worker": name, "rank": 8, "batch": 4, "metrics": metrics}


def score(number: int, accuracy: float, records: int) -> dict:
    detail = {"seconds": 9.5, "score": {"bytes_down": 1000 * (number + 1)}}
    return {"round": number, "balanced_accuracy": accuracy, "records": records, "detail": detail}


PLAN = {
    "workers": {
        "a": {
            "batch": 4,
            "local_steps": 8,
            "threads": 1,
            "base": "source",
            "kernel": "portable",
            "ranks": {"q": [8, 8], "v": [8, 8]},
            "predicted": {"peak_memory_bytes": 2 << 30, "step_seconds": 1.5},
            "why": {"text": "Memory is what limits it.", "binding": "memory"},
        }
    }
}

REPORT = {
    "evaluations": [
        score(0, 0.42, 240),
        score(1, 0.70, 48),
        score(3, 0.88, 240),
    ],
    "rounds": [{"round": 0, "seconds": 0.1, "overhead_seconds": 0.1, "workers": []}]
    + [
        {"round": number, "seconds": 60.0, "overhead_seconds": 0.4, "workers": [worker("a", 100), worker("b", 50)]}
        for number in (1, 2, 3)
    ],
}


class Figures(unittest.TestCase):
    def setUp(self):
        self.figures = demo_report.figures(REPORT, "ab" * 32)

    def test_before_and_after_are_scores_on_all_held_out_mails(self):
        self.assertEqual((self.figures["accuracy_before"], self.figures["accuracy_after"]), (0.42, 0.88))
        self.assertEqual((self.figures["accuracy_constant"], self.figures["held_out"]), (0.5, 240))

    def test_bytes_are_those_of_all_sites(self):
        self.assertEqual([entry["bytes_up"] for entry in self.figures["rounds"]], [150, 150, 150])
        first = self.figures["rounds"][0]
        self.assertEqual((first["round"], first["bytes_down"], first["control_bytes_up"]), (1, 300 + 2000, 900))

    def test_what_scoring_fetched_is_counted_once_and_shown_apart(self):
        fetched = [entry["evaluation_bytes_down"] for entry in self.figures["rounds"]]
        self.assertEqual(fetched, [2000, 0, 4000])
        self.assertEqual(self.figures["before"], {"seconds": 9.5, "bytes_down": 1000})
        self.assertEqual(self.figures["rounds"][0]["evaluation_seconds"], 9.5)

    def test_the_plan_is_shown_with_its_reasons_and_with_what_became_of_it(self):
        shown = demo_report.plan_text(PLAN)
        for words in ("a: rank 8, batch 4", "Memory is what limits it."):
            self.assertIn(words, shown)
        kept = demo_report.kept_text(PLAN, self.figures)
        for words in ("2.0 GiB", "3.0 GiB", "memory", "1.50 s", "2.00 s"):
            self.assertIn(words, kept)

    def test_a_round_that_was_not_scored_has_no_accuracy(self):
        self.assertEqual([entry["accuracy"] for entry in self.figures["rounds"]], [0.70, None, 0.88])

    def test_the_table_shows_every_round_worker_and_score(self):
        shown = demo_report.text(self.figures)
        for words in ("0.700", "48", "–", "150 B", "3.0 GiB", "240 held-out mails: 0.420 before, 0.880 after (a constant answer: 0.500)"):
            self.assertIn(words, shown)


if __name__ == "__main__":
    unittest.main()
