"""The gate of faster arithmetics for zeroth-order steps: what is run, and its page, on made-up comparisons."""

import contextlib
import io
import json
import pathlib
import sys
import tempfile
import unittest
import unittest.mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "benches"))

import gate

MACHINE = {"cpu": "a processor", "cores": 2, "memory_gib": 4, "threads": 2, "instructions": ["avx2"]}


def compared(signs: float, difference: float | None) -> dict:
    """What the command prints."""
    passes = signs >= 0.95 and difference is not None and difference <= 0.1
    limits = {"least_signs": 0.95, "most_difference": 0.1}
    return {"pairs": 64, "signs": signs, "difference": difference, "passes": passes, "kernel": "a kernel", **limits}


class Page(unittest.TestCase):
    def page(self, figures: dict[str, tuple[float, float | None]]) -> str:
        """The page where each arithmetic has these figures in every row but those of `f32`, where all pass."""
        rows = []
        for base in gate.BASES:
            for compute in gate.COMPUTES:
                own = compared(1.0, 0.01) if base == "f32" and compute == "bf16" else compared(*figures[compute])
                rows += [{"base": base, "compute": compute, "distance": distance} | own for distance in gate.DISTANCES]
        return gate.page({"on": {"machine": MACHINE, "binary": "0123456789ab"}, "rows": rows})

    def test_a_row_says_by_what_it_fails(self) -> None:
        text = self.page({"bf16": (0.953, 0.107), "int8": (0.641, 1.52)})
        self.assertIn("| `source` | `bf16` (a kernel) | 1e-2 | 95.3 % | 10.7 % | does not pass: size |", text)
        self.assertIn("| `source` | `int8` (a kernel) | 1e-3 | 64.1 % | 152.0 % | does not pass: signs, size |", text)
        self.assertIn("| `f32` | `bf16` (a kernel) | 1e-2 | 100.0 % | 1.0 % | passes |", text)
        self.assertIn("no number | does not pass: size |", self.page({"bf16": (1.0, None), "int8": (1.0, 0.0)}))

    def test_the_page_has_limits_machine_and_binary(self) -> None:
        text = self.page({"bf16": (1.0, 0.0), "int8": (1.0, 0.0)})
        self.assertIn("a processor, 2 cores, 4 GiB; avx2; 2 threads; binary 0123456789ab.", text)
        self.assertIn("over 64 pairs", text)
        self.assertIn("at least 95 %", text)
        self.assertIn("at most 10 %", text)

    def test_what_passes_in_some_rows_alone_does_not_pass(self) -> None:
        self.assertIn("`bf16`, `int8` passes on every base at every μ.", self.page({"bf16": (1.0, 0.0), "int8": (1.0, 0.0)}))
        text = self.page({"bf16": (0.9, 0.2), "int8": (0.6, 1.0)})
        self.assertIn("no faster arithmetic passes on every base", text)
        self.assertIn("`bf16` passes in some rows alone", text)


class Runs(unittest.TestCase):
    def test_each_base_arithmetic_and_distance_is_compared_once_and_kept(self) -> None:
        calls: list[tuple[str, ...]] = []

        def run(command: list[str]) -> dict:
            calls.append(tuple(command[command.index(flag) + 1] for flag in ("--base", "--compute", "--perturbation", "--labelled")))
            return compared(0.9, 0.2)

        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            out = pathlib.Path(folder)
            fedpipe = out / "fedpipe"
            fedpipe.write_bytes(b"a binary")
            with unittest.mock.patch.object(gate.engine, "run", run):
                self.assertEqual(gate.main(["--fedpipe", str(fedpipe), "--model", "m.gguf", "--out", folder]), 0)
            kept, text = json.loads((out / "gate.json").read_text()), (out / "gate.md").read_text()
        wanted = {(base, compute, distance, "32") for base in ("source", "f32") for compute in ("bf16", "int8") for distance in ("1e-2", "1e-3")}
        self.assertEqual((set(calls), len(calls)), (wanted, 8))
        self.assertEqual(len(kept["rows"]), 8)
        self.assertEqual(text, gate.page(kept))


if __name__ == "__main__":
    unittest.main()
