"""Behaviour of the figures of `./run mezo` on an invented report, and of what it submits."""

import json
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import mezo  # noqa: E402
import mezo_report  # noqa: E402


def worker(name: str, up: int, control: int) -> dict:
    figures = {"loss": 4.0, "steps": 30, "skipped_steps": 1, "tokens_per_second": 99.0, "peak_memory_bytes": 1 << 29}
    return {"worker": name, "metrics": {"bytes_up": up, "control_bytes_up": control, "bytes_down": 0, **figures}}


def report(control: int) -> dict:
    score = lambda number, loss: {"round": number, "loss": loss, "detail": {"seconds": 1.0, "score": {"bytes_down": 7}}}  # noqa: E731
    rounds = [{"round": 0, "seconds": 0.1, "workers": []}]
    for number in (1, 2):
        workers = [worker("a", 600 + number, 900), worker("b", 610, control)]
        rounds.append({"round": number, "seconds": 9.0, "workers": workers})
    return {"evaluations": [score(0, 4.5), score(2, 4.25)], "rounds": rounds}


class Figures(unittest.TestCase):
    def test_each_site_of_each_round_has_its_bytes(self):
        found = mezo_report.figures(report(950), 18_700_000, "ab", 30)
        sent = [[(one["bytes_up"], one["control_bytes_up"]) for one in entry["workers"]] for entry in found["rounds"]]
        self.assertEqual(sent, [[(601, 900), (610, 950)], [(602, 900), (610, 950)]])
        self.assertEqual((found["most_bytes_up"], found["most_control_bytes_up"]), (610, 950))
        self.assertEqual(mezo_report.beyond(found), [])
        shown = mezo_report.text(found)
        for words in ("610 bytes a round of 30 steps", "17.8 MiB", "4.5000 before, 4.2500 after 2 rounds"):
            self.assertIn(words, shown)

    def test_counts_of_0_are_left_out_of_a_report_and_shown(self):
        told = report(950)
        for entry in told["rounds"]:
            for one in entry["workers"]:
                del one["metrics"]["skipped_steps"]
        found = mezo_report.figures(told, 1, "ab", 30)
        self.assertEqual([one["skipped_steps"] for entry in found["rounds"] for one in entry["workers"]], [0] * 4)

    def test_what_goes_beyond_its_limit_is_named(self):
        found = mezo_report.figures(report(9000), 1, "ab", 30)
        self.assertEqual(len(mezo_report.beyond(found)), 1)
        self.assertIn("control_bytes_up: 9000", mezo_report.beyond(found)[0])


class Quick(unittest.TestCase):
    def test_no_record_is_both_learned_from_and_asked_about(self):
        with tempfile.TemporaryDirectory() as folder:
            data = pathlib.Path(folder)
            mezo.made_up(data)
            read = lambda file: {line for path in data.glob(f"*/{file}") for line in path.read_text().splitlines()}  # noqa: E731
            train, held_out = read("train.jsonl"), read("heldout.jsonl")
        self.assertEqual((len(train), len(held_out)), (144, 144))
        self.assertFalse(train & held_out)
        letters = "".join(json.loads(line)["prompt"] + json.loads(line)["completion"] for line in train | held_out)
        self.assertEqual(letters, letters.upper(), "the tiny model knows capitals alone")


if __name__ == "__main__":
    unittest.main()
