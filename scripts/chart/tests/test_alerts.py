"""Dashboards and alert rules as they lie in the chart: they name what there is, and promtool finds nothing; test_observed.py has a real Prometheus read them."""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from valuesets import SETS  # noqa: E402  (puts helmchart on the path)

import dashboards  # noqa: E402
import grafana  # noqa: E402
import helmchart  # noqa: E402

RULES = helmchart.CHART / "alerts/fedpipe.rules.yaml"
PROMTOOL = helmchart.TOOLS / "bin/promtool"
KINDS = {"counter": [""], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}


def series() -> dict[str, str]:
    """Every series that docs/metrics.md names → its metric."""
    rows = re.findall(r"^\| `(\w+)`(?: †)? \| `[\w.]+` \| (\w+) \|", (helmchart.ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    return {name + ending: name for name, kind in rows for ending in KINDS[kind]}


def alerts() -> list[dict]:
    """The rules of the file."""
    return [rule for group in helmchart.parse(RULES.read_text())[0]["groups"] for rule in group["rules"]]


class Rules(unittest.TestCase):
    def promtool(self, *arguments: str) -> None:
        done = subprocess.run([str(PROMTOOL), *arguments], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_prometheus_reads_them(self):
        self.promtool("check", "rules", str(RULES))

    def test_each_fires_when_its_cause_is_there_and_not_otherwise(self):
        self.promtool("test", "rules", str(pathlib.Path(__file__).with_name("alerts.test.yaml")))

    def test_each_has_a_case_that_fires(self):
        cases = helmchart.parse(pathlib.Path(__file__).with_name("alerts.test.yaml").read_text())[0]["tests"]
        fired = {case["alertname"] for test in cases for case in test["alert_rule_test"] if case["exp_alerts"]}
        self.assertEqual(fired, {rule["alert"] for rule in alerts()})

    def test_each_has_its_runbook(self):
        headings = re.findall(r"^### (\w+)$", (helmchart.ROOT / "docs/operate.md").read_text(), re.MULTILINE)
        for rule in alerts():
            self.assertIn(rule["alert"], headings)
            self.assertEqual(rule["annotations"]["runbook"], f"docs/operate.md#{rule['alert'].lower()}")

    def test_they_name_metrics_that_there_are(self):
        known = series()
        for rule in alerts():
            self.assertTrue(dashboards.metrics(rule["expr"]), rule["alert"])
            self.assertLessEqual(dashboards.metrics(rule["expr"]), known.keys(), rule["alert"])

    def test_the_chart_wraps_the_same_rules(self):
        wrapped = helmchart.find(helmchart.objects({"telemetry": {"alerts": {"enabled": True, "labels": {"release": "prometheus"}}}}), "PrometheusRule", "fedpipe")
        self.assertEqual(wrapped["spec"], helmchart.parse(RULES.read_text())[0])
        self.assertEqual(wrapped["metadata"]["labels"]["release"], "prometheus")
        kinds = {thing["kind"] for thing in helmchart.objects({})}
        self.assertFalse(kinds & {"PrometheusRule", "PodMonitor"}, "they need an operator that not every cluster has")

    def test_each_links_its_runbook_once_it_is_known_where_that_lies(self):
        wrapped = helmchart.find(helmchart.objects(SETS["observed"]), "PrometheusRule", "fedpipe")["spec"]
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            json.dump(wrapped, file)
            file.flush()
            self.promtool("check", "rules", file.name)
        for rule in (rule for group in wrapped["groups"] for rule in group["rules"]):
            link = rule["annotations"].pop("runbook_url")
            self.assertEqual(link, f"https://docs.example.org/fedpipe/operate.md#{rule['alert'].lower()}")
        self.assertEqual(wrapped, helmchart.parse(RULES.read_text())[0])

    def test_the_monitor_finds_every_pod_of_ours_and_its_port(self):
        things = helmchart.objects(SETS["observed"])
        spec = helmchart.find(things, "PodMonitor", "fedpipe")["spec"]
        self.assertEqual(spec["podMetricsEndpoints"][0]["port"], "health")
        found = 0
        for thing in things:
            if thing["kind"] not in ("Deployment", "StatefulSet"):
                continue
            labels = thing["spec"]["template"]["metadata"]["labels"]
            selector = spec["selector"]
            chosen = selector["matchLabels"].items() <= labels.items() and all(labels[rule["key"]] in rule["values"] for rule in selector["matchExpressions"])
            ports = {port["name"] for port in thing["spec"]["template"]["spec"]["containers"][0]["ports"]}
            self.assertEqual(chosen, "health" in ports, thing["metadata"]["name"])
            found += chosen
        self.assertEqual(found, 5)


class Pushing(unittest.TestCase):
    def test_every_process_is_told_the_collector_and_let_out_to_it(self):
        things = helmchart.objects(SETS["observed"])
        ours = {place: spec for place, spec in helmchart.pods(things).items() if "nats" not in place and not place.startswith("Pod/")}
        self.assertEqual(len(ours), 5)
        for place, spec in ours.items():
            variables = {entry["name"]: entry.get("value") for entry in spec["containers"][0]["env"]}
            self.assertEqual(variables["OTEL_EXPORTER_OTLP_ENDPOINT"], "http://collector.monitoring:4317", place)
            self.assertEqual((variables["OTEL_TRACES_SAMPLER"], variables["OTEL_TRACES_SAMPLER_ARG"]), ("traceidratio", "0.1"), place)
            headers = [entry["valueFrom"] for entry in spec["containers"][0]["env"] if entry["name"] == "OTEL_EXPORTER_OTLP_HEADERS"]
            self.assertEqual(headers, [{"secretKeyRef": {"name": "collector", "key": "headers"}}], place)
        policies = [thing["spec"] for thing in things if thing["kind"] == "NetworkPolicy" and not thing["metadata"]["name"].endswith("nats")]
        for policy in policies:
            self.assertIn(4317, [port["port"] for rule in policy["egress"] for port in rule["ports"]])

    def test_without_a_collector_nobody_is_told_of_one(self):
        for spec in helmchart.pods(helmchart.objects({})).values():
            names = [entry["name"] for entry in spec["containers"][0].get("env", [])]
            self.assertFalse([name for name in names if name.startswith("OTEL_")])


class Dashboards(unittest.TestCase):
    def test_there_are_three_and_the_chart_carries_them_as_they_are(self):
        things = helmchart.objects({})
        for one in dashboards.ALL:
            config_map = helmchart.find(things, "ConfigMap", f"fedpipe-dashboard-{one.name}")
            self.assertEqual(config_map["metadata"]["labels"]["grafana_dashboard"], "1")
            carried = json.loads(config_map["data"][f"fedpipe-{one.name}.json"])
            self.assertEqual(carried, json.loads((helmchart.CHART / f"dashboards/{one.name}.json").read_text()))
        self.assertEqual({one.name for one in dashboards.ALL}, {"fleet", "job", "operations"})
        annotated = helmchart.find(helmchart.objects(SETS["observed"]), "ConfigMap", "fedpipe-dashboard-job")["metadata"]
        self.assertEqual((annotated["annotations"]["grafana_folder"], annotated["labels"]["team"]), ("fedpipe", "data"))

    def panels(self):
        for one in dashboards.ALL:
            document = json.loads((helmchart.CHART / f"dashboards/{one.name}.json").read_text())
            for panel in document["panels"]:
                if panel["type"] != "row":
                    with self.subTest(dashboard=one.name, panel=panel["title"]):
                        yield panel

    def test_every_expression_names_metrics_that_there_are_and_keeps_to_its_namespace(self):
        known = series()
        for panel in self.panels():
            for target in panel["targets"]:
                names = dashboards.metrics(target["expr"])
                self.assertTrue(names)
                self.assertLessEqual(names, known.keys())
                self.assertEqual(target["expr"].count("$namespace"), len(re.findall(r"\{", target["expr"])))

    def test_panels_do_not_overlap_and_fit_the_page(self):
        for one in dashboards.ALL:
            taken = set()
            for panel in grafana.panels(one):
                place = panel["gridPos"]
                cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
                self.assertFalse(cells & taken, panel["title"])
                self.assertLessEqual(place["x"] + place["w"], grafana.WIDTH)
                taken |= cells

    def test_every_metric_is_on_a_dashboard(self):
        shown = {series()[name] for one in dashboards.ALL for _, expression in grafana.expressions(one) for name in dashboards.metrics(expression)}
        self.assertEqual(set(series().values()) - shown, set())


if __name__ == "__main__":
    unittest.main()
