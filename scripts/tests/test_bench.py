"""The comparison's arithmetic and its page, on made-up runs."""

import pathlib
import sys
import unittest

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


class Rows(unittest.TestCase):
    def test_every_row_has_a_name_of_its_own_and_a_limit(self) -> None:
        found = engine.rows(("bf16", "bf16"))
        self.assertEqual(len({row.name for row in found}), len(found))
        self.assertTrue(all(row.limits for row in found))


if __name__ == "__main__":
    unittest.main()
