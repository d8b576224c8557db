"""What is generated is committed, and would be missed if it drifted; every value has its row."""

import json
import pathlib
import re
import sys
import tempfile
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import generate  # noqa: E402
import helmchart  # noqa: E402
import measured  # noqa: E402


class Generated(unittest.TestCase):
    def test_nothing_has_drifted(self):
        self.assertEqual(generate.check(fix=False), [])

    def test_a_value_that_changes_is_a_drift_of_the_table(self):
        with mock.patch.object(generate, "documented", lambda text: [("image.tag", "Something else.")]):
            self.assertIn("README.md", generate.check(fix=False)[0])

    def test_a_permission_that_changes_is_a_drift_of_the_chart(self):
        with mock.patch.object(generate, "permissions", lambda: ("", "")):
            self.assertEqual([sentence.split(":")[0] for sentence in generate.check(fix=False)], ["helm/fedpipe/files/nats-control.conf", "helm/fedpipe/files/nats-site.conf"])

    def test_a_figure_that_is_measured_again_is_a_drift_of_the_page_that_tells_it(self):
        with tempfile.TemporaryDirectory() as name:
            results = pathlib.Path(name)
            (results / "processes.json").write_text((measured.RESULTS / "processes.json").read_text())
            slower = {"sizes": "--steps 3", "ratio": 1.25, "low": 1.2, "high": 1.3, "pairs": [[0.5, 0.4]], "model": "other.gguf"}
            (results / "telemetry.json").write_text(json.dumps(slower))
            table = measured.table(results)
        self.assertIn("| +25.00% (+20.00% to +30.00%) | steps of 0.40 s: other.gguf | `python3 benches/telemetry.py --pairs 1 --steps 3 --model GGUF` |", table)
        with mock.patch.object(measured, "table", lambda: table):
            self.assertEqual([sentence.split(":")[0] for sentence in generate.check(fix=False)], ["docs/operate.md"])

    def test_a_measured_figure_is_the_median_beside_the_longest(self):
        found = {f"{name}, a job runs": [(0.01, 0.1), (0.02, 0.2), (0.9, 0.1)] for name in ("profiler", "planner", "aggregator")}
        found["api, a job runs"] = [(0.01, 0.3), (0.01, 0.5), (0.01, 0.4)]
        found["worker, idle"], found["worker, training"] = [(0.0, 0.1)] * 3, [(1.0, 0.1), (3.0, 0.1), (2.0, 0.1)]
        figures = [row[1] for row in measured.processes(found)]
        self.assertEqual(figures, ["2.00 s (longest 3.00 s)", "0.00 s (longest 0.00 s)", "0.02 s (longest 0.90 s)", "0.10 s (longest 0.10 s)", "0.40 s (longest 0.50 s)"])

    def test_a_template_that_changes_is_a_drift_of_the_base(self):
        with mock.patch.object(helmchart, "render", lambda values: {"api.yaml": "kind: Other\n"}):
            self.assertIn("k8s/base/fedpipe.yaml", generate.check(fix=False)[-1])

    def test_every_value_has_a_row(self):
        text = (helmchart.CHART / "values.yaml").read_text()
        rows = {key for key, _ in generate.documented(text)}
        missing = [key for key in leaves(helmchart.yaml.safe_load(text)) if not any(key == row or key.startswith(f"{row}.") for row in rows)]
        self.assertEqual(missing, [])
        self.assertGreater(len(rows), 80)

    def test_a_comment_above_a_key_is_its_row(self):
        text = "# Of all.\na: 1\nb:\n  # Two\n  # lines.\n  c: {}\n  d: 2\n\n# Not above a key.\n\ne: 3\n"
        self.assertEqual(generate.documented(text), [("a", "Of all."), ("b.c", "Two lines.")])

    def test_the_commands_that_the_docs_name_are_there(self):
        text = (helmchart.ROOT / "docs/operate.md").read_text()
        for path in re.findall(r"(?<![\w/.])((?:helm|k8s|docs|scripts|benches|demo)/[\w./-]*\w)", text):
            self.assertTrue((helmchart.ROOT / path).exists(), path)


def leaves(values: dict, before: str = ""):
    """Keys with dots of everything that is not a table with keys."""
    for key, value in values.items():
        place = f"{before}{key}"
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{place}.")
        else:
            yield place


if __name__ == "__main__":
    unittest.main()
