"""The page of predictions, on made-up rows; what a part was measured on; and that every script here can be read."""

import ast
import contextlib
import hashlib
import io
import json
import pathlib
import sys
import tempfile
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
        "predicted_mib": 100.0, "measured_mib": 98.0, "memory_error": 0.02,
    }  # fmt: skip


def page(time_error: float, pace: float, count: int = federation.LEAST) -> tuple[str, list[str]]:
    """The page of so many of such rows."""
    one = row(time_error, pace)
    worst = {f"worst_{what}": one[what] if count else 0.0 for what in ("time_error", "memory_error")}
    found = {"machine": MACHINE, "validate": {"asked": 17, "validated": [one] * count, **worst}}
    return federation.page(found)


class Predictions(unittest.TestCase):
    def test_a_row_tells_what_was_predicted_and_what_came(self) -> None:
        text, missed = page(0.1, 1.0)
        self.assertIn("| f32, amx-bf16-3, adamw, checkpointing | 4 | 2 | 128 | 0.5 | 1.000 |", text)
        self.assertIn("at least 12 configurations: met (12 of 17)", text)
        self.assertEqual(missed, [])

    def test_what_was_predicted_counts_against_what_came_and_the_machines_pace_is_told_beside_it(self) -> None:
        text, missed = page(-0.3, 1.4)
        self.assertEqual(missed, ["step times within 15 %"])
        self.assertIn("| -30 % | 1.40 | 100 |", text)
        self.assertEqual(page(0.0, 1.4)[1], [])

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


class Origins(unittest.TestCase):
    PLAN = {
        "sizes": [{"workers": 1000, "planned": 1000, "seconds": 0.2, "profiles_mib": 40.0, "peak_mib": 50.0}],
        "one_worker": {"exact_seconds": 0.02, "fast_seconds": 0.001, "fast_share_of_exact": 1.0},
    }

    def page(self, on: dict) -> str:
        """The page of two parts, of which this is known."""
        validate = {"validated": [], "worst_time_error": 0.0, "worst_memory_error": 0.0}
        return federation.page({"machine": MACHINE, "on": on, "plan": self.PLAN, "validate": validate})[0]

    def test_where_all_parts_were_measured_on_the_same_the_page_says_it_once(self) -> None:
        text = self.page({name: {"machine": MACHINE, "binary": "0123456789ab"} for name in ("plan", "validate")})
        self.assertEqual(text.count("a processor, 2 cores, 4 GiB; binary 0123456789ab. Weights of"), 1)
        self.assertNotIn("Measured on", text)
        self.assertIn("a processor, 2 cores, 4 GiB; binary not recorded. Weights of", self.page({}))

    def test_where_they_differ_each_section_says_its_own(self) -> None:
        text = self.page({"plan": {"machine": MACHINE | {"cores": 8}, "binary": "0123456789ab"}})
        of = lambda name: next(section for section in text.split("## ") if section.startswith(name)).splitlines()[2]
        self.assertEqual(of("Planning"), "Measured on: a processor, 8 cores, 4 GiB; binary 0123456789ab.")
        self.assertEqual(of("Predictions"), "Measured on: a processor, 2 cores, 4 GiB; binary not recorded.")

    def test_a_part_that_is_left_out_keeps_what_it_was_measured_on(self) -> None:
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as patched:
            out = pathlib.Path(folder)
            fedpipe, file = out / "fedpipe", out / "federation.json"
            file.write_text(json.dumps({"machine": MACHINE, "scale": {}}))
            for name, value in (("measured", lambda *_: {}), ("page", lambda _: ("", []))):
                patched.enter_context(unittest.mock.patch.object(federation, name, value))
            patched.enter_context(contextlib.redirect_stdout(io.StringIO()))
            for part in ("plan", "rules"):
                fedpipe.write_bytes(part.encode())
                self.assertEqual(federation.main(["--parts", part, "--fedpipe", str(fedpipe), "--out", folder]), 0)
            kept = json.loads(file.read_text())
            federation.main(["--parts", "scale", "--fedpipe", str(fedpipe), "--out", folder])
            self.assertNotIn("machine", json.loads(file.read_text()))
        of = lambda part: hashlib.sha256(part.encode()).hexdigest()[:12]
        self.assertEqual({part: on["binary"] for part, on in kept["on"].items()}, {"plan": of("plan"), "rules": of("rules")})
        self.assertEqual((kept["machine"], kept["scale"]), (MACHINE, {}))


class Scripts(unittest.TestCase):
    def test_every_script_can_be_read(self) -> None:
        for folder in ("benches", "scripts", "tests"):
            for path in (ROOT / folder).rglob("*.py"):
                with self.subTest(path=path):
                    ast.parse(path.read_text(encoding="utf-8"))
