"""Each panel of each dashboard has a limit that is drawn and said, and that is the one of the alert, of the chart's default, or of the program that it speaks of."""

import json
import pathlib
import re
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import dashboards  # noqa: E402
import grafana  # noqa: E402
import helmchart  # noqa: E402
from test_alerts import alerts  # noqa: E402

WARNINGS = {grafana.YELLOW, grafana.ORANGE, grafana.DARK_ORANGE, grafana.RED}
# Of Grafana's units, those that are used here; a misspelt one would be shown as a word.
UNITS = {"short", "s", "bytes", "decbytes", "Bps", "percentunit", "ops", "reqps", "bool_yes_no", "suffix:tokens/s", "suffix:nats"}
VALUES = helmchart.yaml.safe_load((helmchart.CHART / "values.yaml").read_text())


def written():
    """(dashboard, panel) of each file in the chart."""
    for one in dashboards.ALL:
        document = json.loads((helmchart.CHART / f"dashboards/{one.name}.json").read_text())
        yield from ((one.name, panel) for panel in document["panels"] if panel["type"] != "row")


def defined() -> list[tuple[str, grafana.Panel]]:
    """(dashboard, panel) of each that is written down."""
    return [(one.name, panel) for one in dashboards.ALL for row in one.rows for panel in row.panels]


def bounds(dashboard: str, title: str) -> list[float]:
    """The values of a panel's steps."""
    found = [[value for value, _ in panel.steps] for name, panel in defined() if (name, panel.title) == (dashboard, title)]
    assert len(found) == 1, f"{dashboard}: {title}: {len(found)} panels"
    return found[0]


def drawn(panel: dict) -> bool:
    """Whether Grafana shows where the limits are: as lines, or as the colour of what is shown."""
    defaults = panel["fieldConfig"]["defaults"]
    if panel["type"] == "timeseries":
        return defaults["custom"]["thresholdsStyle"]["mode"] not in ("off", "series")
    return defaults["color"]["mode"] == "thresholds" and panel["options"].get("colorMode") != "none"


class Limits(unittest.TestCase):
    def test_every_panel_says_what_it_shows_in_which_unit_and_beyond_which_limit_it_is_bad(self):
        seen = 0
        for name, panel in written():
            with self.subTest(dashboard=name, panel=panel["title"]):
                seen += 1
                defaults = panel["fieldConfig"]["defaults"]
                self.assertIn(defaults["unit"], UNITS)
                self.assertTrue(panel["targets"])
                self.assertGreaterEqual(len(panel["description"].split()), 6)
                self.assertRegex(panel["description"], r"(?i)\b(yellow|red|orange)\b")
                self.assertEqual(defaults["thresholds"]["mode"], "absolute")
                base, *steps = defaults["thresholds"]["steps"]
                self.assertIsNone(base["value"])
                self.assertGreaterEqual(len(steps), 1)
                self.assertEqual([step["value"] for step in steps], sorted({step["value"] for step in steps}))
                colours = [base["color"], *(step["color"] for step in steps)]
                self.assertTrue(all(one != other for one, other in zip(colours, colours[1:], strict=False)), f"a step that changes nothing: {colours}")
                self.assertIn(grafana.GREEN, colours)
                self.assertTrue(WARNINGS & set(colours), f"nothing warns: {colours}")
                self.assertTrue(drawn(panel))
        self.assertGreaterEqual(seen, 70)

    def test_a_panel_without_a_limit_that_is_seen_would_be_missed(self):
        _, panel = next(one for one in written() if one[1]["type"] == "timeseries")
        panel["fieldConfig"]["defaults"]["custom"]["thresholdsStyle"]["mode"] = "off"
        self.assertFalse(drawn(panel))

    def test_a_limit_is_said_as_the_axis_has_it(self):
        said = {
            "Yellow from 9 s, red from 1 min.": ("fleet", "Since the last beat"),
            "Red below 512 MiB, yellow below 2 GiB.": ("fleet", "Limits of memory"),
            "Yellow below 75 %, yellow from 125 %, red from 200 %.": ("job", "Computing off plan"),
            "Yellow from 1 000 000.": ("operations", "Messages"),
            "Red above 0.": ("operations", "Errors"),
        }
        for sentence, place in said.items():
            (panel,) = [panel for name, panel in defined() if (name, panel.title) == place]
            self.assertEqual(grafana.limits(panel), sentence)

    def test_each_alert_has_a_panel_whose_limit_is_its_bound(self):
        rules = {rule["alert"]: rule for rule in alerts()}
        watched = {panel.alert: panel for _, panel in defined() if panel.alert}
        self.assertEqual(watched.keys(), rules.keys())
        for panel in (panel for _, panel in defined() if panel.alert):
            rule = rules[panel.alert]
            sign, bound = re.search(r"(==|>) ([0-9.]+)$", rule["expr"].strip()).groups()
            with self.subTest(panel=panel.title, alert=panel.alert):
                read = {name for expression in panel.targets.values() for name in dashboards.metrics(expression)}
                self.assertLessEqual(dashboards.metrics(rule["expr"]) - {"fedpipe_build_info"}, read)
                steps = dict(panel.steps)
                if sign == "==":
                    self.assertEqual((float(bound), panel.base, panel.steps), (0, grafana.RED, ((1, grafana.GREEN),)))
                elif float(bound) == 0:
                    first, colour = panel.steps[0]
                    # Of a count, one; of a rate, anything.
                    self.assertIn(first, (1, grafana.ANY))
                    self.assertIn(colour, WARNINGS)
                else:
                    self.assertEqual(steps.get(float(bound)), grafana.RED)

    def test_limits_that_are_defaults_of_the_chart_are_those(self):
        idle = VALUES["liveness"]["idleMs"] / 1000
        self.assertEqual(bounds("fleet", "Without progress"), [idle, 3 * idle])
        for place in (("fleet", "Time of a step"), ("job", "Step of each site")):
            self.assertEqual(bounds(*place), [idle / 3, idle])
        self.assertEqual(bounds("job", "Standing still")[0], 2 * idle)
        services = ("profiler", "api", "planner", "aggregator")
        limits = [size(VALUES[service]["resources"]["limits"]["memory"]) for service in services]
        for title in ("Memory", "Heap"):
            self.assertEqual(bounds("operations", title), limits)
        self.assertEqual(bounds("operations", "Jobs")[1], VALUES["api"]["limits"]["activeJobs"])
        kept = VALUES["nats"]["storage"]["maxBytes"]
        self.assertEqual(bounds("operations", "Bytes"), [kept / 2, kept * 7 / 8])

    def test_limits_that_are_the_programs_are_those(self):
        shown = int(re.search(r"at most \d+ of each: (\d+) jobs", (helmchart.ROOT / "docs/metrics.md").read_text()).group(1))
        self.assertEqual(bounds("operations", "Jobs")[0], shown)
        drift = (helmchart.ROOT / "libs/domain/src/drift.rs").read_text()
        time, memory = (float(re.search(rf"{name}: f64 = ([0-9.]+);", drift).group(1)) for name in ("TIME_SHARE", "MEMORY_SHARE"))
        self.assertEqual(bounds("job", "Computing off plan")[:2], [1 - time, 1 + time])
        for place in (("job", "Memory off plan"), ("fleet", "Peak against plan")):
            self.assertEqual(bounds(*place)[1], 1 + memory)


def size(text: str) -> int:
    """Bytes of a Kubernetes quantity."""
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", text).groups()
    return int(number) << {"Mi": 20, "Gi": 30}[unit]


if __name__ == "__main__":
    unittest.main()
