"""`./run observe` where no container engine runs, and the files that one would be given: nothing here can run them, so they are read."""

import contextlib
import io
import os
import pathlib
import re
import sys
import tempfile
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import helmchart  # noqa: E402
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
