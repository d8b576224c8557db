"""`./run observe` without a container engine, with a real Prometheus, and the files that an engine would be given: nothing here can run them, so they are read."""

import concurrent.futures
import contextlib
import io
import json
import os
import pathlib
import re
import sys
import tempfile
import unittest
import urllib.parse
import urllib.request
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import helmchart  # noqa: E402
import live  # noqa: E402
import observe  # noqa: E402

FOLDER = observe.COMPOSE.parent


def read(name: str) -> dict:
    """The one document of a file."""
    return helmchart.parse((FOLDER / name).read_text())[0]


class Without(unittest.TestCase):
    def test_what_is_not_started_is_said_with_the_next_step(self):
        said = io.StringIO()
        with tempfile.TemporaryDirectory() as empty, mock.patch.dict(os.environ, {"PATH": empty}), contextlib.redirect_stdout(said):
            with observe.containers("http://127.0.0.1:9090", pathlib.Path(empty)) as up:
                self.assertFalse(up)
        self.assertIn("not started: Grafana and the collector (no container engine runs here)", said.getvalue())
        self.assertIn("Next: import helm/fedpipe/dashboards/*.json", said.getvalue())

    def test_an_engine_that_cannot_compose_is_none(self):
        with tempfile.TemporaryDirectory() as folder:
            engine = pathlib.Path(folder) / "docker"
            engine.write_text('#!/bin/sh\n[ "$1" = info ]\n')
            engine.chmod(0o755)
            with mock.patch.dict(os.environ, {"PATH": f"{folder}:/bin:/usr/bin"}):
                self.assertEqual(observe.engine(), (None, "docker runs, but has no compose"))


class Shown(unittest.TestCase):
    def test_prometheus_sees_every_process_and_the_job_until_it_has_ended(self):
        said = io.StringIO()
        without = mock.patch.object(observe, "engine", return_value=(None, "none is asked for"))
        with tempfile.TemporaryDirectory() as folder, without, contextlib.redirect_stdout(said), concurrent.futures.ThreadPoolExecutor(1) as pool:
            run = pool.submit(observe.observe, str(live.FEDPIPE), helmchart.TOOLS, pathlib.Path(folder) / "observe", 1, False)

            def until(what: str, condition):
                return live.until(what, lambda: condition() or (run.done() and self.fail(f"it ended before {what}: {run.result()}\n{said.getvalue()}")), seconds=60)

            at = until("it says where Prometheus is", lambda: re.search(r"Prometheus at (http://[0-9.:]+)", said.getvalue())).group(1)
            up = until("every process is scraped", lambda: (found := query(at, "up == 1")) and len(found) == len(observe.SITES) + 4 and found)
            self.assertEqual({one["pod"] for one in up}, {"api", "profiler", "planner", "aggregator", *(f"worker-{site}" for site in observe.SITES)})
            (job,) = until("the job is shown", lambda: query(at, "fedpipe_job_info"))
            run.result(timeout=120)
        self.assertIn(f"observe: {job['job_id']} succeeded", said.getvalue())
        self.assertFalse(observe.answers(f"{at}/-/ready"), "Prometheus still runs")


def query(prometheus: str, expression: str) -> list[dict]:
    """Labels of each series that has a value now."""
    with urllib.request.urlopen(f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': expression})}", timeout=10) as answer:
        return [one["metric"] for one in json.load(answer)["data"]["result"]]


class Containers(unittest.TestCase):
    def setUp(self):
        self.services = read("compose.yaml")["services"]

    def test_images_are_exact_and_listen_on_loopback_alone(self):
        self.assertEqual(self.services.keys(), {"grafana", "collector"})
        for name, service in self.services.items():
            self.assertRegex(service["image"], r":\d+\.\d+\.\d+(@sha256:[0-9a-f]{64})?$", name)
            self.assertEqual((service["network_mode"], "ports" in service), ("host", False), name)
        self.assertEqual(self.services["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"], "127.0.0.1")
        receivers = read("collector.yaml")["receivers"]["otlp"]["protocols"]
        self.assertEqual({protocol["endpoint"] for protocol in receivers.values()}, {observe.COLLECTOR.removeprefix("http://")})

    def test_every_file_that_is_mounted_is_there_and_cannot_be_written(self):
        for service in self.services.values():
            for volume in service["volumes"]:
                here, _, mode = volume.split(":")
                self.assertTrue((FOLDER / here).exists(), volume)
                self.assertEqual(mode, "ro", volume)

    def test_the_collectors_pipelines_take_every_signal_and_name_what_there_is(self):
        collector = read("collector.yaml")
        pipelines = collector["service"]["pipelines"]
        self.assertEqual(pipelines.keys(), {"traces", "metrics", "logs"})
        for pipeline in pipelines.values():
            for kind in ("receivers", "processors", "exporters"):
                self.assertTrue(pipeline[kind])
                self.assertLessEqual(set(pipeline[kind]), collector[kind].keys())

    def test_grafana_finds_prometheus_and_the_dashboards(self):
        (source,) = read("grafana-datasource.yaml")["datasources"]
        self.assertEqual((source["type"], source["url"]), ("prometheus", "$PROMETHEUS_URL"))
        (provider,) = read("grafana-dashboards.yaml")["providers"]
        mounted = [volume.split(":")[1] for volume in self.services["grafana"]["volumes"] if "dashboards:" in volume]
        self.assertEqual(mounted, [provider["options"]["path"]])
        self.assertTrue(re.search(r"PROMETHEUS_URL", str(self.services["grafana"]["environment"])))


if __name__ == "__main__":
    unittest.main()
