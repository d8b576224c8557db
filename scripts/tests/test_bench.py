"""The comparison's arithmetic and its page, on made-up runs."""

import contextlib
import io
import json
import pathlib
import sys
import tempfile
import unittest
import unittest.mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "benches"))

import engine
import table


def ours(speed: float, mib: float) -> dict:
    """A run of ours."""
    return {
        "tokens_per_second": speed,
        "peak_mib": mib,
        "loss": 1.0,
        "achieved_gflops": speed / 2,
        "roofline_gflops": 200.0,
        "fraction_of_roofline": speed / 400,
    }


def torch(speed: float, mib: float) -> dict:
    """A run of PyTorch's."""
    return {"tokens_per_second": speed, "peak_mib": mib, "loss": 1.0}


class Summary(unittest.TestCase):
    row = engine.Row("f32", "title", ("train",), "fo-f32", None, (("speed", ">=", 1.25), ("memory", "<=", 0.35)))

    def test_ratios_are_medians_over_the_pairs_and_not_ratios_of_medians(self) -> None:
        pairs = [
            {"ours": ours(200, 100), "torch": torch(100, 1000)},
            {"ours": ours(300, 100), "torch": torch(200, 500)},
            {"ours": ours(400, 300), "torch": torch(350, 1000)},
        ]
        found = engine.summary(self.row, pairs)
        self.assertAlmostEqual(found["speed"], 1.5)
        self.assertAlmostEqual(found["memory"], 0.2)
        self.assertEqual(found["ours"]["tokens_per_second"], 300)
        self.assertTrue(all(limit["met"] for limit in found["limits"]))

    def test_a_limit_that_is_missed_is_said(self) -> None:
        found = engine.summary(self.row, [{"ours": ours(120, 100), "torch": torch(100, 200)}])
        self.assertEqual([limit["met"] for limit in found["limits"]], [False, False])
        found["torch_mode"] = "fo-f32"
        self.assertIn("speed ≥ 1.25: missed: 1.20", table.line(found))

    def test_the_page_has_a_line_for_each_row_that_was_measured(self) -> None:
        alone = engine.Row("long", "long rows", ("train",), limits=(("peak_mib", "<=", 1536),))
        results = {
            "machine": {"cpu": "a cpu", "cores": 2, "threads": 2, "instructions": ["avx2"]},
            "peer": {"torch": "1", "transformers": "2", "peft": "3"},
            "rows": {
                "f32": engine.summary(self.row, [{"ours": ours(130, 30), "torch": torch(100, 100)}]),
                "long": engine.summary(alone, [{"ours": ours(50, 1000)}]),
            },
        }
        page = table.page(results, ["f32", "absent", "long"])
        self.assertIn("| title | 130 tokens/s, 30 MiB | 100 tokens/s, 100 MiB (fo-f32) | 1.30 (1.30–1.30) | 0.30 (0.30–0.30) |", page)
        self.assertIn("| long rows | 50 tokens/s, 1000 MiB | – | – | – | 0.12 of 200 Gflop/s | MiB ≤ 1536: met |", page)


MACHINE = {"cpu": "a cpu", "cores": 2, "threads": 2, "instructions": ["avx2"], "memory_gib": 4}
PEER = {"torch": "1", "transformers": "2", "peft": "3"}


class Origins(unittest.TestCase):
    def page(self, on: dict) -> str:
        """The page of three rows of an older file, of which this is known."""
        row = lambda name: engine.summary(engine.Row(name, name, ("train",), limits=(("peak_mib", "<=", 1536),)), [{"ours": ours(50, 1000)}])
        rows = {name: row(name) | ({"on": on[name]} if name in on else {}) for name in ("a", "b", "c")}
        return table.page({"machine": MACHINE, "peer": PEER, "rows": rows}, ["a", "b", "c"])

    def test_where_all_rows_were_measured_on_the_same_the_page_says_it_once(self) -> None:
        text = self.page({name: {"machine": MACHINE, "binary": "0123456789ab"} for name in "abc"})
        self.assertIn("Written by `./run bench`. a cpu, 2 cores, 4 GiB; avx2; 2 threads on both sides; binary 0123456789ab.", text)
        self.assertNotIn(" on |", text)
        self.assertIn("binary not recorded; PyTorch 1, transformers 2, PEFT 3.", self.page({}))

    def test_where_they_differ_each_row_says_its_own(self) -> None:
        text = self.page({"b": {"machine": MACHINE | {"cores": 8}, "binary": "0123456789ab"}})
        self.assertIn("| wanted | on |", text)
        letters = [line.split(" | ")[-1] for line in text.splitlines() if line.startswith(("| a |", "| b |", "| c |"))]
        self.assertEqual(letters, ["A |", "B |", "A |"])
        self.assertIn("- A: a cpu, 2 cores, 4 GiB; avx2; 2 threads on both sides; binary not recorded; PyTorch 1, transformers 2, PEFT 3.", text)
        self.assertIn("- B: a cpu, 8 cores, 4 GiB; avx2; 2 threads on both sides; binary 0123456789ab.", text)


class Runs(unittest.TestCase):
    """Runs of the whole with sides that are made up."""

    def setUp(self) -> None:
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.out = pathlib.Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        (self.out / "fedpipe").write_bytes(b"a binary")
        self.asked: list[str] = []

        def run(command: list[str]) -> dict:
            self.asked.append(" ".join(command))
            if "-c" in command:
                return PEER
            return ours(90.0 if "mezo" in command else 200.0, 100.0)

        for name, value in (("run", run), ("machine", lambda _: MACHINE), ("prepared", lambda _: pathlib.Path("float32"))):
            self.stack.enter_context(unittest.mock.patch.object(engine, name, value))

    def bench(self, rows: str) -> dict:
        """What is kept after these rows were run."""
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            words = ["--rows", rows, "--pairs", "1", "--fedpipe", str(self.out / "fedpipe"), "--out", str(self.out), "--model", "own.gguf", "--python", "torch-python"]
            self.assertEqual(engine.main(words), 0)
        return json.loads((self.out / "engine.json").read_text())

    def test_rows_that_have_no_peer_need_no_pytorch(self) -> None:
        found = self.bench("forward-f32,forward-nf4")
        self.assertFalse([command for command in self.asked if "torch-python" in command])
        self.assertEqual({"own.gguf" in command for command in self.asked}, {True})
        self.assertNotIn("peer", found["rows"]["forward-f32"]["on"])
        self.assertIn("nf4 base: at least 0.9 of the speed of two forward passes, which is 0.45 of one's", (self.out / "engine.md").read_text())

    def test_a_row_beside_pytorch_says_its_versions_and_both_sides_load_one_model(self) -> None:
        found = self.bench("zeroth-f32")
        self.assertEqual(found["rows"]["zeroth-f32"]["on"]["peer"], PEER)
        self.assertEqual({"float32" in command for command in self.asked if " -c " not in command}, {True})

    def test_each_row_keeps_what_it_was_measured_on(self) -> None:
        old = engine.summary(engine.Row("long", "long rows", ("train",), limits=(("peak_mib", "<=", 1536),)), [{"ours": ours(50, 1000)}])
        (self.out / "engine.json").write_text(json.dumps({"machine": MACHINE | {"cpu": "an old cpu"}, "peer": PEER, "steps": 5, "rows": {"long": old}}))
        found = self.bench("forward-f32")
        self.assertEqual((found["machine"]["cpu"], found["peer"]), ("an old cpu", PEER))
        self.assertEqual(found["rows"]["forward-f32"]["on"]["machine"], MACHINE)
        self.assertEqual(found["rows"]["forward-f32"]["on"]["binary"], engine.binary(self.out / "fedpipe"))
        self.assertNotIn("on", found["rows"]["long"])
        self.assertIn("an old cpu", (self.out / "engine.md").read_text())
        found = self.bench("long")
        self.assertFalse({"machine", "peer", "steps"} & set(found))

    def test_a_zeroth_order_step_has_most_of_the_speed_of_two_passes(self) -> None:
        limits = {limit["figure"]: (limit["value"], limit["met"]) for limit in self.bench("forward-f32")["rows"]["forward-f32"]["limits"]}
        self.assertEqual(limits["speed_against"], (0.45, True))  # 90 of 200 tokens a second
        slow = engine.summary(next(row for row in engine.rows(("", "")) if row.name == "forward-f32"), [{"ours": ours(89, 100), "against": ours(200, 100)}])
        self.assertIn("speed against forward f32 ≥ 0.45: missed: 0.445", table.line(slow))


class Rows(unittest.TestCase):
    def test_every_row_has_a_name_of_its_own_and_a_limit(self) -> None:
        found = engine.rows(("bf16", "bf16"))
        self.assertEqual(len({row.name for row in found}), len(found))
        self.assertTrue(all(row.limits for row in found))


if __name__ == "__main__":
    unittest.main()
