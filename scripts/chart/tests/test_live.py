"""The binary reads every rendered configuration; a rendered fedpipe works, stops in order, and trusts whom it is told to."""

import contextlib
import json
import pathlib
import re
import sys
import tempfile
import tomllib
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from valuesets import SETS  # noqa: E402

import helmchart  # noqa: E402
import live  # noqa: E402
from live import Cluster, get, reasons, run, until  # noqa: E402
from test_kustomize import BUILT  # noqa: E402
from test_nats import make_certificate  # noqa: E402


class Reading(unittest.TestCase):
    """`fedpipe SERVICE --config FILE --dump-config`, with the pod's variables, for every pod of every value set."""

    def dumped(self, name: str) -> dict[str, dict]:
        """`dump` of a value set, whose files are understood as they are written."""
        both = self.dump(name, helmchart.objects(SETS[name]))
        for place, (dumped, written) in both.items():
            self.said(dumped, written, place)
        return {place: dumped for place, (dumped, _) in both.items()}

    def dump(self, name: str, things: list[dict]) -> dict[str, tuple[dict, dict]]:
        """Place of each fedpipe pod → the configuration that the binary made of its files and variables, and the file alone."""
        found = {}
        with contextlib.ExitStack() as stack:
            cluster = Cluster(stack)
            cluster.take(things)
            for place, spec in helmchart.pods(cluster.things).items():
                arguments = spec["containers"][0]["args"]
                if arguments[0] not in ("api", "profiler", "planner", "aggregator", "worker"):
                    continue
                pod = "node-7" if place.startswith("DaemonSet") else "a-pod"
                folder = cluster.folder / place.replace("/", "-")
                cluster.files(spec, {}, folder)
                path = folder / arguments[2].strip("/")
                if place.startswith("DaemonSet"):
                    # The node's file is its operator's.
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text('[datasets.mail]\ntrain = "/data/train.jsonl"\n')
                variables = {**cluster.environment(spec, pod), **self.stand_ins(spec)}
                done = run([arguments[0], arguments[1], str(path), "--dump-config"], variables)
                self.assertEqual(done.returncode, 0, f"{name}: {place}: {done.shown}")
                found[place] = tuple(tomllib.loads(text.replace(str(folder), "")) for text in (done.stdout, path.read_text()))
        return found

    def stand_ins(self, spec: dict) -> dict[str, str]:
        """Values for references to Secrets that no password was made for."""
        entries = spec["containers"][0].get("env", [])
        return {entry["name"]: "0123456789abcdef" for entry in entries if "secretKeyRef" in entry.get("valueFrom", {})}

    def said(self, dumped: dict, written: dict, place: str) -> None:
        """What the file says is what the binary understood; sizes it writes its own way."""
        for key, value in written.items():
            if isinstance(value, dict) and key != "labels":
                self.said(dumped.get(key, {}), value, f"{place}.{key}")
            elif (key, value) == ("valid_seconds", 300):
                self.assertNotIn(key, dumped)  # left out of a dump while it is the default
            elif key not in ("cache_bytes", "quantized_bytes", "adapter_bytes", "memory_limit", "bandwidth_limit"):
                self.assertEqual(dumped[key], value, f"{place}.{key}")

    def test_every_rendered_file_is_understood(self):
        read = sum(len(self.dumped(name)) for name in SETS)
        self.assertGreaterEqual(read, 4 * 5 + 3)

    def test_a_site_says_all_that_its_values_say(self):
        site = self.dumped("gpu-nodes")["StatefulSet/fedpipe-worker-vision"]
        self.assertEqual((site["name"], site["threads"], site["cache_bytes"], site["quantized_bytes"]), ("vision", 12, "40GiB", "0"))
        self.assertEqual((site["speed"], site["throttle_tokens_per_second"]), (0.5, 5000.0))
        self.assertEqual(site["datasets"]["mail"]["question"], 'Is this "spam"? Answer:')
        self.assertEqual(site["datasets"]["mail"]["labels"], {"spam": " yes", "ham": " no"})
        self.assertEqual(site["policy"]["hours"], "22-06")
        self.assertEqual(set(site["policy"]["allow_hub"]), {"org/*", "org2/name@0123456789abcdef0123456789abcdef01234567"})
        self.assertEqual(site["hub"], {"endpoint": "https://models.example.org/hub", "ca_file": "/data/claim/authority.pem"})
        self.assertEqual(site["nats"]["user"], "worker-vision")

    def test_a_node_is_named_after_itself(self):
        node = self.dumped("daemonset")["DaemonSet/fedpipe-worker"]
        self.assertEqual((node["name"], node["state_dir"]), ("node-7", "/var/lib/fedpipe"))
        self.assertEqual(node["nats"], {"url": "tls://nats.example.org", "credentials_file": "/etc/fedpipe/nats/worker.creds"})
        self.assertEqual(node["health"]["listen"], "0.0.0.0:9090")
        self.assertTrue(node["storage"]["allow_http"])

    def test_the_overlays_are_understood(self):
        endpoints = {"overlays/kind": "http://fedpipe-s3:8333", "overlays/production": "https://s3.example.org"}
        for overlay, endpoint in endpoints.items():
            dumped = {place: both[0] for place, both in self.dump(overlay, BUILT[overlay]).items()}
            self.assertEqual(len(dumped), 5)
            for role in ("api", "aggregator"):
                storage = dumped[f"Deployment/fedpipe-{role}"]["storage"]
                self.assertEqual((storage["endpoint"], storage["allow_http"]), (endpoint, endpoint.startswith("http:")))
            site = dumped["StatefulSet/fedpipe-worker-site-1"]
            self.assertEqual(site["storage"]["allow_http"], endpoint.startswith("http:"))

    def test_secrets_reach_the_process(self):
        api = self.dumped("default")["Deployment/fedpipe-api"]
        self.assertEqual((api["token"], api["nats"]["password"], api["storage"]["secret_key"]), ("***", "***", "***"))
        planner = self.dumped("default")["Deployment/fedpipe-planner"]
        self.assertEqual((planner["instance"], planner["nats"]["user"]), ("a-pod", "planner"))

    def test_limits_of_the_chart_are_the_defaults_of_the_binary(self):
        chart = self.dumped("default")
        for service in ("api", "aggregator"):
            default = tomllib.loads(run([service, "--dump-config"], {}).stdout)
            mine = chart[f"Deployment/fedpipe-{service}"]
            for key in ("limits", "spool_bytes", "liveness"):
                self.assertEqual(mine.get(key), default.get(key), f"{service}.{key}")


class Settings(unittest.TestCase):
    """What `settings` of a site may say is what the worker knows, but for what the chart itself says, and for secrets."""

    # Section of site.toml → keys that are not settings; other sections are none at all.
    OTHERS = {
        "": {"name", "state_dir", "nats", "health", "telemetry", "liveness"},
        "storage": {"url", "endpoint", "region", "access_key", "secret_key", "urls"},
        "hub": {"token"},
        "policy": set(),
        "datasets.mail": {"path"},  # `train` by another name
    }

    def known(self, section: str) -> set[str]:
        """The keys of a section that the worker names when it is told another."""
        header = f"[{section}]\n" if section else ""
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "site.toml")
            path.write_text(f"{header}nonsense = 1\n")
            done = run(["worker", "--config", str(path), "--dump-config"], {})
        self.assertNotEqual(done.returncode, 0)
        keys = re.search(r"nonsense: no such key; known are ([a-z_, ]+)$", done.stderr.strip())
        self.assertTrue(keys, done.shown)
        return set(keys.group(1).split(", "))

    def of_schema(self, section: str) -> set[str]:
        """The same as values.schema.json has them."""
        schema = json.loads((helmchart.CHART / "values.schema.json").read_text())["$defs"]["settings"]
        for part in section.split(".") if section else []:
            schema = schema["properties"][part] if part in schema.get("properties", {}) else schema["additionalProperties"]
        return set(schema["properties"])

    def test_the_schema_has_every_key_of_the_worker_and_no_other(self):
        for section, others in self.OTHERS.items():
            with self.subTest(section):
                known = self.known(section)
                self.assertLessEqual(others, known)
                self.assertEqual(self.of_schema(section), known - others)

    def test_one_value_set_says_every_setting(self):
        # So that the binary has read each of them (`Reading`).
        said = SETS["gpu-nodes"]["workers"]["sites"][0]["settings"]
        for section in self.OTHERS:
            here = said
            for part in section.split(".") if section else []:
                here = here[part]
            self.assertEqual(set(here), self.of_schema(section), section)


class Running(unittest.TestCase):
    """A whole rendered fedpipe with one site: NATS with its permissions, S3, five services."""

    @classmethod
    def setUpClass(cls):
        stack = contextlib.ExitStack()
        cls.addClassCleanup(stack.close)
        cls.cluster = cluster = Cluster(stack)
        data = cluster.folder / "data"
        data.mkdir()
        for name in ("train", "held-out"):
            lines = [json.dumps({"text": f"record {number} of {name}"}) for number in range(16)]
            (data / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
        endpoint = cluster.start_storage()
        site = {
            "name": "mail-1",
            "settings": {
                "cache_bytes": "1GB",
                "datasets": {"mail": {"train": str(data / "train.jsonl"), "held_out": str(data / "held-out.jsonl")}},
            },
        }
        tokens = [{"name": "dashboard", "role": "viewer", "existingSecret": "fedpipe-tokens"}]
        cluster.render({"storage": {"endpoint": endpoint, "allowHttp": True}, "api": {"tokens": tokens}, "workers": {"sites": [site]}})
        cluster.start_nats()
        cls.started = {place: cluster.start(place, pod=f"pod-{number}") for number, place in enumerate(cls.places())}

    @classmethod
    def places(cls) -> list[str]:
        roles = ("api", "profiler", "planner", "aggregator")
        return [f"Deployment/fedpipe-{role}" for role in roles] + ["StatefulSet/fedpipe-worker-mail-1"]

    def test_1_every_probe_is_answered(self):
        for place, (process, ports) in self.started.items():
            container = helmchart.pods(self.cluster.things)[place]["containers"][0]
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                target = container[probe]["httpGet"]
                port = ports[target["port"]]
                until(f"{place} answers {target['path']}: {reasons(port)}", lambda port=port, target=target: get(port, target["path"])[0] == 200, process)
            status, metrics = get(ports["health"], "/metrics")
            self.assertEqual(status, 200)
            self.assertIn("# TYPE", metrics)

    def test_2_the_helm_test_passes_and_needs_the_token(self):
        _, ports = self.started["Deployment/fedpipe-api"]
        spec = helmchart.pods(self.cluster.things)["Pod/fedpipe-test"]
        arguments = [a.replace("fedpipe-api:80", f"127.0.0.1:{ports['http']}") for a in spec["containers"][0]["args"]]
        variables = self.cluster.environment(spec, "test")

        def fleet() -> str:
            done = run(arguments, variables)
            return done.stdout if done.returncode == 0 and "mail-1" in done.stdout else ""

        self.assertIn("mail-1", until("the fleet has its site", fleet))
        refused = run(arguments, {**variables, "FEDPIPE_TOKEN": "another-token-of-16"})
        self.assertEqual(refused.returncode, 1, refused.shown)
        # A named token of a Secret looks, and does no more.
        viewer = {**variables, "FEDPIPE_TOKEN": live.SECRETS["fedpipe-tokens"]["dashboard"]}
        looks = run(arguments, viewer)
        self.assertIn("mail-1", looks.stdout, looks.shown)
        cancels = run(["job", "cancel", "job_0000000000000001", *arguments[2:]], viewer)
        self.assertEqual(cancels.returncode, 1, cancels.shown)
        self.assertIn("role `submitter`", cancels.shown)

    def test_3_the_site_is_ready_without_credentials_for_storage(self):
        place = self.places()[-1]
        spec = helmchart.pods(self.cluster.things)[place]
        path = self.cluster.folder / "fedpipe-worker-mail-1/etc/fedpipe/config/site.toml"
        done = run(["doctor", "--config", str(path), "--json"], self.cluster.environment(spec, "doctor"))
        self.assertEqual(done.returncode, 0, done.shown)
        self.assertIn("signs", done.stdout)
        self.assertNotIn("secret", path.read_text())

    def test_4_everybody_ends_in_order_when_told_to(self):
        for place, (process, _) in self.started.items():
            self.assertEqual(process.stop(), 0, f"{place}: {process.words()}")


class Trusting(unittest.TestCase):
    """NATS and storage with TLS under an authority of one's own: `caBundle` is what makes a pod trust them."""

    def test_a_pod_trusts_the_bundle_and_only_then(self):
        with contextlib.ExitStack() as stack:
            cluster = Cluster(stack)
            tls = cluster.folder / "nats/etc/nats-tls"
            tls.mkdir(parents=True)
            make_certificate(tls)
            storage = {"endpoint": cluster.start_storage(tls)}
            cluster.render({**SETS["external-workers"], "storage": storage, "caBundle": {"secret": "nats-tls", "key": "ca.crt"}})
            cluster.start_nats()
            place = "Deployment/fedpipe-api"
            environment = cluster.environment(helmchart.pods(cluster.things)[place], "p")
            self.assertEqual(environment["SSL_CERT_FILE"], "/etc/fedpipe/authorities/ca.crt")
            another = cluster.folder / "another"
            another.mkdir()
            make_certificate(another)
            stranger, strange = cluster.start(place, pod="stranger", SSL_CERT_FILE=str(another / "ca.crt"))
            until("it lives", lambda: get(strange["health"], "/healthz")[0] == 200, stranger)
            friend, ports = cluster.start(place, pod="friend", SSL_CERT_FILE=str(tls / "ca.crt"))
            until("it is ready", lambda: get(ports["health"], "/readyz")[0] == 200, friend)
            # The other one had all that time, and says why it is not.
            self.assertEqual(set(reasons(strange["health"])), {"nats", "storage"})


class Keyed(unittest.TestCase):
    """Keys that `fedpipe admin` made: the rendered server lets in who holds one that its values name, and nobody else."""

    def add(self, service: str, *arguments: str) -> None:
        done = run(["admin", "add-service", service, *arguments], {})
        self.assertEqual(done.returncode, 0, done.shown)

    def test_a_service_is_let_in_by_its_key_and_a_stranger_is_told_what_to_do(self):
        with contextlib.ExitStack() as stack:
            cluster = Cluster(stack)
            keys, others, users = (cluster.folder / name for name in ("keys", "others", "users.toml"))
            for service in ("api", "profiler", "planner", "aggregator"):
                self.add(service, "--output", str(keys), "--users", str(users))
            self.add("api", "--output", str(others))
            nats = {"credentials": "nkey", "keys": tomllib.loads(users.read_text())}
            cluster.render({"nats": nats, "storage": {"endpoint": cluster.start_storage(), "allowHttp": True}})
            cluster.start_nats()
            place = "Deployment/fedpipe-api"
            stranger, strange = cluster.start(place, pod="stranger", FEDPIPE_NATS__SEED_FILE=str(others / "api.nk"))
            until("it lives", lambda: get(strange["health"], "/healthz")[0] == 200, stranger)
            friend, ports = cluster.start(place, pod="friend", FEDPIPE_NATS__SEED_FILE=str(keys / "api.nk"))
            until("it is ready", lambda: get(ports["health"], "/readyz")[0] == 200, friend)
            until("it is told what to do", lambda: "add-worker" in stranger.log.read_text(), stranger)
            self.assertEqual(set(reasons(strange["health"])), {"nats"})


if __name__ == "__main__":
    unittest.main()
