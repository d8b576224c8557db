"""Behaviour of the checks: each must be able to fail."""

import pathlib
import stat
import sys
import tempfile
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import check_drift  # noqa: E402
import check_layering  # noqa: E402
import check_lengths  # noqa: E402
import count_tests  # noqa: E402


class Layering(unittest.TestCase):
    def found(self, **crates: list) -> list[str]:
        packages = [
            {"name": name, "dependencies": [{"name": used, "kind": kind} for used, kind in dependencies]}
            for name, dependencies in crates.items()
        ]
        return check_layering.violations(packages)

    def test_arrows_that_point_down_are_fine(self):
        self.assertEqual(self.found(domain=[], contract=[("domain", None)], bus=[("contract", None), ("async-nats", None)]), [])

    def test_an_arrow_that_points_up_is_named(self):
        self.assertIn("domain → contract", self.found(domain=[("contract", None)], contract=[])[0])

    def test_services_do_not_import_each_other(self):
        self.assertIn("api → worker", self.found(api=[("worker", None)], worker=[])[0])

    def test_an_outside_system_has_one_gatekeeper(self):
        self.assertIn("only bus and tests may name it", self.found(api=[("async-nats", None)])[0])
        self.assertIn("only engine may name it", self.found(worker=[("candle-nn", "dev")])[0])

    def test_testkit_is_for_tests(self):
        self.assertEqual(self.found(testkit=[], bus=[("testkit", "dev")], tests=[("testkit", None)]), [])
        self.assertIn("testkit is for tests", self.found(testkit=[], bus=[("testkit", None)])[0])

    def test_pure_crates_name_no_runtime(self):
        self.assertIn("engine is synchronous and pure", self.found(engine=[("tokio", None)])[0])

    def test_a_crate_without_a_place_is_an_error(self):
        self.assertIn("not named", self.found(newcomer=[])[0])


class Files(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)

    def test_only_long_sources_are_too_long(self):
        (self.root / "target").mkdir()
        for path, lines in {"a.rs": 500, "b.rs": 501, "c.txt": 900, "target/d.rs": 900}.items():
            (self.root / path).write_text("\n" * lines)
        self.assertEqual(check_lengths.too_long(self.root), ["b.rs: 501 lines; 500 is the end"])

    def generator(self, text: str) -> str:
        """A program that prints `text`, in the binary's place."""
        program = self.root / "fedpipe"
        program.write_text(f"#!/bin/sh\necho {text}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return str(program)

    @mock.patch.dict(check_drift.GENERATED, {"docs/one.md": ["one"]}, clear=True)
    def test_a_generated_file_is_missing_then_written_then_drifts(self):
        self.assertIn("missing", check_drift.check(self.root, self.generator("old"), fix=False)[0])
        with mock.patch("builtins.print"):
            self.assertEqual(check_drift.check(self.root, self.generator("old"), fix=True), [])
        self.assertEqual(check_drift.check(self.root, self.generator("old"), fix=False), [])
        self.assertIn("+new", check_drift.check(self.root, self.generator("new"), fix=False)[0])

    @mock.patch.dict(check_drift.GENERATED, {"docs/one.md": ["one"]}, clear=True)
    def test_a_binary_that_fails_is_not_an_empty_file(self):
        self.assertIn("failed", check_drift.check(self.root, self.generator("x; exit 3"), fix=True)[0])
        self.assertFalse((self.root / "docs").exists())


class Counting(unittest.TestCase):
    def test_nextest_cargo_test_and_unittest_add_up(self):
        log = (
            "Ran 22 tests in 0.1s\nOK\n"
            "\x1b[32m     Summary\x1b[0m [   0.005s] 5 tests run: 4 passed (1 slow), 1 failed, 2 skipped\n"
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n"
        )
        self.assertEqual(count_tests.count(log), "29 tests passed, 1 failed, 3 skipped")

    def test_a_script_test_that_fails_is_counted(self):
        self.assertEqual(count_tests.count("Ran 5 tests in 0.1s\nFAILED (failures=1, errors=1)\n"), "3 tests passed, 2 failed, 0 skipped")

    def test_a_run_that_timed_out_is_counted(self):
        self.assertEqual(count_tests.count("Ran 8 tests in 0.1s\n\nOK (skipped=8)\n"), "0 tests passed, 0 failed, 8 skipped")
        log = "     Summary [  9.0s] 2/3 tests run: 1 passed, 1 timed out, 0 skipped\n"
        self.assertEqual(count_tests.count(log), "1 tests passed, 1 failed, 0 skipped")


if __name__ == "__main__":
    unittest.main()
