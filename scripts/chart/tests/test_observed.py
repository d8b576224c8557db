"""A real Prometheus scrapes every process of a rendered fedpipe while a job runs: every expression of every dashboard has data, and what it says is so."""

import contextlib
import json
import math
import pathlib
import sys
import time
import unittest
import urllib.parse
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import dashboards  # noqa: E402
import grafana  # noqa: E402
import helmchart  # noqa: E402
import tiny_model  # noqa: E402
from live import SECRETS, Cluster, Process, free_port, get, run, until  # noqa: E402
from test_alerts import RULES, series  # noqa: E402

CONTROL = [f"Deployment/fedpipe-{role}" for role in ("api", "profiler", "planner", "aggregator")]
SITES = ("mail-1", "mail-2")
# A site's pace: a round outlives two beats of a worker (3 s each), on a fast machine too.
ROUNDS, STEPS, TOKENS_PER_SECOND = 4, 150, 4000
JOB_SECONDS = 180
# What Grafana would fill in for a Prometheus that scrapes each second.
RATE_INTERVAL = "10s"


class Prometheus:
    """A server that scrapes these ports."""

    def __init__(self, cluster: Cluster, targets: dict[str, int]):
        self.port, folder = free_port(), cluster.folder / "prometheus"
        folder.mkdir()
        scrapes = [{"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": "fedpipe", "pod": pod}} for pod, port in targets.items()]
        configuration = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [{"job_name": "fedpipe", "static_configs": scrapes}],
        }
        (folder / "prometheus.yml").write_text(json.dumps(configuration))
        command = [str(helmchart.TOOLS / "bin/prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        process = cluster.keep(Process("prometheus", [*command, f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn"], {}, cluster.folder))
        until("prometheus is ready", lambda: get(self.port, "/-/ready")[0] == 200, process)

    def ask(self, path: str, **asked: str) -> list | dict:
        """The data of an answer."""
        status, body = get(self.port, f"/api/v1/{path}?{urllib.parse.urlencode(asked)}")
        answer = json.loads(body)
        assert status == 200, f"{asked}: {answer}"
        return answer["data"]

    def query(self, expression: str) -> dict[tuple, float]:
        """Labels → value of each series that has a number now."""
        found = self.ask("query", query=expression)["result"]
        values = {tuple(sorted(one["metric"].items())): float(one["value"][1]) for one in found}
        return {labels: value for labels, value in values.items() if not math.isnan(value)}

    def value(self, expression: str) -> float:
        """The one value of an expression."""
        (value,) = self.query(expression).values()
        return value


class Observed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        stack = contextlib.ExitStack()
        cls.addClassCleanup(stack.close)
        cls.cluster = cluster = Cluster(stack)
        storage = {"endpoint": cluster.start_storage(), "allowHttp": True}
        sites = [{"name": name, "settings": cls.settings(name)} for name in SITES]
        cluster.render({"storage": storage, "liveness": {"idleMs": 2000}, "workers": {"sites": sites}})
        cluster.start_nats()
        places = [*CONTROL, *(f"StatefulSet/fedpipe-worker-{site}" for site in SITES)]
        started = {place.split("/fedpipe-")[1]: cluster.start(place, pod=f"{place.split('-', 1)[1]}-0") for place in places}
        for name, (process, ports) in started.items():
            until(f"{name} is ready", lambda ports=ports: get(ports["health"], "/readyz")[0] == 200, process)
        cls.api = f"http://127.0.0.1:{started['api'][1]['http']}"
        cls.targets = {name: ports["health"] for name, (_, ports) in started.items()}
        cls.prometheus = Prometheus(cluster, cls.targets)
        cls.watch_a_job()

    @classmethod
    def settings(cls, site: str) -> dict:
        """A site's own data and pace."""
        paths = {}
        for part in ("train", "held_out"):
            lines = [json.dumps({"prompt": f"{site} asks {part} {number}: is it even?", "completion": " no" if number % 2 else " yes"}) for number in range(32)]
            paths[part] = cls.cluster.folder / f"{site}-{part}.jsonl"
            paths[part].write_text("\n".join(lines) + "\n")
        data = {"mail": {part: str(path) for part, path in paths.items()}}
        return {"datasets": data, "throttle_tokens_per_second": TOKENS_PER_SECOND, "probe_seconds": 3}

    @classmethod
    def command(cls, *arguments: str) -> dict:
        """What a command of the binary prints."""
        done = run([*arguments, "--json", "--api", cls.api], {"FEDPIPE_TOKEN": SECRETS["fedpipe-api"]["token"]})
        assert done.returncode == 0, done.shown
        return json.loads(done.stdout)

    @classmethod
    def submit(cls) -> str:
        """A job's id, of a model that was stored with the api's own configuration."""
        tiny_model.write(cls.cluster.folder / "model")
        keys, storage = SECRETS["fedpipe-storage"], cls.cluster.folder / "storage.toml"
        configuration = cls.cluster.config_map("fedpipe-api")["api.toml"].splitlines()
        lines = [line for line in configuration if line.startswith(('url = "s3', "endpoint", "allow_http"))]
        storage.write_text("\n".join([*lines, f'access_key = "{keys["access_key"]}"', f'secret_key = "{keys["secret_key"]}"']) + "\n")
        pushed = run(["model", "push", str(cls.cluster.folder / "model"), "--storage", str(storage), "--json"], {})
        assert pushed.returncode == 0, pushed.shown
        job = {
            "name": "observed",
            "model": {"digest": json.loads(pushed.stdout)["digest"]},
            "data": {"dataset": "mail"},
            "adapter": {"targets": ["q", "v"], "rank_max": 4, "alpha": 8.0},
            "training": {"optimizer": "adamw", "local_steps": STEPS, "batch": 4, "sequence_length": 64, "learning_rate": 1e-2, "seed": 7},
            "precision": {"compute": "f32"},
            "rounds": {"count": ROUNDS, "quorum": "all"},
            "evaluation": {"choices": [" yes", " no"]},
            "deadline_seconds": 120,
        }
        path = cls.cluster.folder / "job.json"
        path.write_text(json.dumps(job))
        return cls.command("job", "submit", "--file", str(path))["id"]

    @classmethod
    def watch_a_job(cls) -> None:
        """Runs a job, and asks every expression again and again until it has had data once."""
        cls.job = cls.submit()
        cls.pending = {(one.name, panel, expression) for one in dashboards.ALL for panel, expression in grafana.expressions(one)}
        cls.asked, ended, end = len(cls.pending), 0.0, time.monotonic() + JOB_SECONDS
        while time.monotonic() < end and not (ended and time.monotonic() > ended + 6):
            cls.pending = {one for one in cls.pending if not cls.prometheus.query(cls.filled(one[2]))}
            if not ended and cls.command("job", "get", cls.job)["phase"] in ("succeeded", "failed", "cancelled"):
                ended = time.monotonic()
            time.sleep(0.2)

    @classmethod
    def filled(cls, expression: str) -> str:
        """An expression as Grafana sends it."""
        for name, value in {"$namespace": "fedpipe", "$job": cls.job, "$worker": ".*", "$__rate_interval": RATE_INTERVAL}.items():
            expression = expression.replace(name, value)
        return expression

    def test_the_job_succeeded_while_every_process_was_scraped(self):
        self.assertEqual(self.command("job", "get", self.job)["phase"], "succeeded")
        # A scrape that took too long on a busy machine is followed by others.
        up = until("every process is scraped", lambda: (found := self.prometheus.query("up")) and min(found.values()) == 1.0 and found)
        self.assertEqual(len(up), len(self.targets))

    def test_every_expression_of_every_dashboard_had_data(self):
        self.assertGreater(self.asked, 70)
        self.assertEqual(sorted(self.pending), [])

    def test_every_variable_has_values(self):
        for one in dashboards.ALL:
            for variable in grafana.variables(one)[1:]:
                inner = variable["query"]["query"].removeprefix("label_values(").removesuffix(")")
                match, label = inner.rsplit(", ", 1)
                values = self.prometheus.ask(f"label/{label}/values", **{"match[]": self.filled(match)})
                expected = {"namespace": ["fedpipe"], "job_id": [self.job], "worker": list(SITES)}
                self.assertEqual(values, expected[label], variable["name"])

    def test_every_metric_of_the_table_is_served_in_a_normal_run(self):
        served = set(self.prometheus.ask("label/__name__/values"))
        self.assertEqual(set(series()) - served, set())
        extra = {name for name in served if name.startswith("fedpipe_")} - set(series())
        self.assertEqual(extra, set())

    def test_what_is_said_of_the_job_is_what_the_api_has(self):
        rounds = self.rounds()
        last = rounds[-1]
        self.assertEqual(last["round"], ROUNDS)
        of_job = f'{{job_id="{self.job}"}}'
        self.assertEqual(self.prometheus.value("sum(fedpipe_rounds_total)"), ROUNDS)
        self.assertEqual(self.prometheus.value(f"fedpipe_job_round{of_job}"), ROUNDS)
        self.assertEqual(self.prometheus.value("sum(fedpipe_fold_updates_total)"), ROUNDS * len(SITES))
        self.assertAlmostEqual(self.prometheus.value(f"fedpipe_job_round_duration_seconds{of_job}"), last["seconds"], places=3)
        for worker in last["workers"]:
            labels = f'{{job_id="{self.job}", worker="{worker["worker"]}"}}'
            figures = worker["metrics"]
            self.assertAlmostEqual(self.prometheus.value(f"fedpipe_site_loss{labels}"), figures["loss"], places=6)
            self.assertEqual(self.prometheus.value(f"fedpipe_site_memory_peak_bytes{labels}"), figures["peak_memory_bytes"])
            self.assertEqual(self.prometheus.value(f"fedpipe_site_upload_bytes{labels}"), figures["bytes_up"])

    def test_requests_are_told_apart_by_what_the_semantic_conventions_ask_for(self):
        asked = self.prometheus.query("sum by (http_request_method, url_scheme, error_type) (http_server_request_duration_seconds_count)")
        for labels, count in asked.items():
            found = dict(labels)
            self.assertEqual(found["url_scheme"], "http", found)
            self.assertGreater(count, 0)
        self.assertIn((("http_request_method", "GET"), ("url_scheme", "http")), asked)

    def rounds(self) -> list[dict]:
        """The committed rounds as the api shows them."""
        token = SECRETS["fedpipe-api"]["token"]
        request = urllib.request.Request(f"{self.api}/v1/jobs/{self.job}/rounds", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return [one for one in json.loads(answer.read())["items"] if one["round"] > 0]

    def test_the_rules_are_evaluated_and_a_healthy_fleet_is_silent(self):
        groups = self.prometheus.ask("rules")["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        self.assertEqual({rule["health"] for rule in rules}, {"ok"})
        self.assertEqual([rule["name"] for rule in rules if rule["state"] == "firing"], [])

    def test_an_apis_own_port_shows_metrics_to_whoever_has_the_token(self):
        port = int(self.api.rsplit(":", 1)[1])
        self.assertEqual(get(port, "/metrics")[0], 401)
        self.assertEqual(get(self.targets["api"], "/metrics")[0], 200)


if __name__ == "__main__":
    unittest.main()
