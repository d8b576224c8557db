"""Who may speak to whom: the rendered NetworkPolicies, evaluated as Kubernetes does, against the arrows of the design."""

import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from valuesets import SETS  # noqa: E402

import helmchart  # noqa: E402

SITE = {"workers": {"sites": [{"name": "mail-1"}]}}
BUS = {(role, "nats", "nats") for role in ("api", "profiler", "planner", "aggregator", "worker")}


def labels_of(things: list[dict]) -> dict[str, dict]:
    """Component → the labels of its pods."""
    found = {}
    for thing in things:
        if thing["kind"] in ("Deployment", "StatefulSet", "DaemonSet"):
            labels = thing["spec"]["template"]["metadata"]["labels"]
            found[labels["app.kubernetes.io/component"]] = labels
        if thing["kind"] == "Pod":
            found["test"] = thing["metadata"]["labels"]
    return found


def matches(selector: dict, labels: dict) -> bool:
    """A label selector."""
    exact = selector.get("matchLabels", {}).items() <= labels.items()
    return exact and all(labels.get(rule["key"]) in rule["values"] for rule in selector.get("matchExpressions", []))


def reaches(rules: list[dict], side: str, labels: dict, port: str) -> bool:
    """Whether one of the rules lets pods with these labels, of this namespace, through at this port."""
    for rule in rules:
        peers = rule.get(side)
        known = not peers or any("podSelector" in peer and "namespaceSelector" not in peer and matches(peer["podSelector"], labels) for peer in peers)
        if known and port in [entry["port"] for entry in rule["ports"]]:
            return True
    return False


def arrows(things: list[dict]) -> set[tuple[str, str, str]]:
    """Every (from, to, port) between pods of the release that its policies let through."""
    pods = labels_of(things)
    policies = [thing["spec"] for thing in things if thing["kind"] == "NetworkPolicy"]
    ports = {"nats": ["nats", "monitor"], "api": ["http", "health"]}
    found = set()
    for source, source_labels in pods.items():
        for target, target_labels in pods.items():
            for port in ports.get(target, ["health"]):
                outward = [policy for policy in policies if matches(policy["podSelector"], source_labels)]
                inward = [policy for policy in policies if matches(policy["podSelector"], target_labels)]
                out = not outward or any(reaches(policy["egress"], "to", target_labels, port) for policy in outward)
                into = not inward or any(reaches(policy["ingress"], "from", source_labels, port) for policy in inward)
                if out and into and source != target:
                    found.add((source, target, port))
    return found


def outside(things: list[dict]) -> dict[str, list[tuple[object, object]]]:
    """Component → (peers, port) of what it may reach besides pods of the release and names."""
    found = {}
    for thing in things:
        if thing["kind"] == "NetworkPolicy":
            component = thing["metadata"]["labels"]["app.kubernetes.io/component"]
            rules = [(rule.get("to"), rule["ports"][0]["port"]) for rule in thing["spec"]["egress"]]
            found.setdefault(component, []).extend((to, port) for to, port in rules if port not in (53, "nats"))
    return found


class Arrows(unittest.TestCase):
    def test_only_the_arrows_of_the_design_are_let_through(self):
        self.assertEqual(arrows(helmchart.objects(SITE)), BUS | {("test", "api", "http")})

    def test_without_policies_everything_is_let_through(self):
        # What the test above would say of policies that do nothing.
        self.assertGreater(len(arrows(helmchart.objects({**SITE, "networkPolicy": {"enabled": False}}))), 30)

    def test_whoever_reads_metrics_reads_nothing_else(self):
        everybody = [{"podSelector": {}}]
        with_metrics = arrows(helmchart.objects({**SITE, "networkPolicy": {"metricsFrom": everybody}}))
        # Egress of our own pods still ends at the bus; only a stranger (the test pod) gets to the page.
        self.assertEqual(with_metrics - arrows(helmchart.objects(SITE)), {("test", role, "health") for role in ("api", "profiler", "planner", "aggregator", "worker")})

    def test_storage_is_reached_by_those_who_have_objects_there(self):
        things = helmchart.objects(SITE)
        self.assertEqual(
            outside(things),
            {"api": [(None, 443)], "aggregator": [(None, 443)], "worker": [(None, 443)], "profiler": [], "planner": [], "nats": []},
        )

    def test_ports_outside_are_those_of_the_addresses(self):
        things = helmchart.objects(SETS["external-services"])
        bus = ([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "messaging"}}}], 4443)
        storage = [{"ipBlock": {"cidr": "10.20.0.0/16"}}]
        collector = ([{"ipBlock": {"cidr": "10.30.0.0/16"}}], 443)
        self.assertEqual(
            outside(things),
            {
                "api": [bus, (storage, 9000), collector],
                "aggregator": [bus, (storage, 9000), collector],
                # Sites go to the address that signed URLs name.
                "worker": [bus, (storage, 443), collector],
                "profiler": [bus, collector],
                "planner": [bus, collector],
            },
        )
        self.assertEqual(outside(helmchart.objects(SETS["daemonset"])), {"worker": [(None, 4222), (None, 8333), (None, 4317)]})

    def test_telemetry_goes_to_the_collectors_port_and_to_whom_is_named(self):
        collector = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
        for peers in (None, collector):
            values = {**SETS["observed"], "networkPolicy": {"otlpTo": peers or []}}
            found = outside(helmchart.objects(values))
            for role in ("api", "profiler", "planner", "aggregator", "worker"):
                self.assertIn((peers, 4317), found[role])
            self.assertEqual(found["nats"], [])
        self.assertNotIn(4317, [port for rules in outside(helmchart.objects(SITE)).values() for _, port in rules])

    def test_the_hub_is_reached_by_the_api_and_by_the_sites_that_allow_models_of_it(self):
        things = helmchart.objects(SETS["gpu-nodes"])
        peers = [{"ipBlock": {"cidr": "10.40.0.0/16"}}]
        sites = {}
        for thing in things:
            if thing["kind"] == "NetworkPolicy" and "fedpipe/site" in thing["spec"]["podSelector"]["matchLabels"]:
                (rule,) = thing["spec"]["egress"]
                sites[thing["spec"]["podSelector"]["matchLabels"]["fedpipe/site"]] = (rule["to"], rule["ports"])
                self.assertEqual(thing["spec"]["policyTypes"], ["Egress"])
        # One has a mirror of its own, one the release's, and one that allows nothing has none.
        self.assertEqual(sites, {site: (peers, [{"port": port, "protocol": "TCP"}]) for site, port in (("vision", 443), ("speech", 8443))})
        self.assertEqual([rule for rule in outside(things)["api"] if rule[0] == peers], [(peers, 8443)])
        # A node's file is not seen here, so its workers are let out if there is a Hub.
        nodes = {**SETS["daemonset"], "hub": {"endpoint": "https://mirror.example.org:8443"}}
        self.assertEqual(outside(helmchart.objects(nodes))["worker"][2], (None, 8443))

    def test_names_are_resolved_at_the_ports_of_the_pods_that_resolve_them(self):
        # A policy sees pods: of most clusters at the Service's own port, of OpenShift at 5353.
        openshift = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "openshift-dns"}}}]
        for thing in helmchart.objects({**SITE, "networkPolicy": {"dnsTo": openshift}}):
            if thing["kind"] == "NetworkPolicy" and thing["metadata"]["name"] != "fedpipe-nats":
                names = thing["spec"]["egress"][0]
                self.assertEqual(names["to"], openshift)
                self.assertEqual({(entry["port"], entry["protocol"]) for entry in names["ports"]}, {(port, protocol) for port in (53, 5353) for protocol in ("UDP", "TCP")})

    def test_nobody_outside_reaches_nats_unless_named(self):
        policy = helmchart.find(helmchart.objects(SITE), "NetworkPolicy", "fedpipe-nats")
        self.assertEqual(len(policy["spec"]["ingress"][0]["from"]), 1)
        named = helmchart.find(helmchart.objects(SETS["external-workers"]), "NetworkPolicy", "fedpipe-nats")
        self.assertEqual(named["spec"]["ingress"][0]["from"][1:], [{"ipBlock": {"cidr": "203.0.113.0/24"}}])


class Secrets(unittest.TestCase):
    """Each process is handed what it proves itself with, and nothing else."""

    def test_the_api_alone_is_handed_the_tokens_that_lie_in_secrets(self):
        handed = self.handed(helmchart.objects(SETS["keys"]))
        tokens = {"fedpipe-tokens/alice", "fedpipe-operators/token-of-bob"}
        self.assertLessEqual(tokens, handed["Deployment/fedpipe-api"])
        others = set().union(*(keys for place, keys in handed.items() if place != "Deployment/fedpipe-api"))
        self.assertFalse(others & tokens)

    def handed(self, things: list[dict]) -> dict[str, set[str]]:
        """Component → `secret/key` that its pods get."""
        found = {}
        for place, spec in helmchart.pods(things).items():
            keys = set()
            for container in spec["containers"]:
                for entry in container.get("env", []):
                    reference = entry.get("valueFrom", {}).get("secretKeyRef")
                    keys |= {f"{reference['name']}/{reference['key']}"} if reference else set()
            for volume in spec.get("volumes", []):
                items = volume.get("secret", {}).get("items")
                keys |= {f"{volume['secret']['secretName']}/{item['key']}" for item in items or []}
                keys |= {f"{volume['secret']['secretName']}/*"} if "secret" in volume and not items else set()
                secrets = [source["secret"] for source in volume.get("projected", {}).get("sources", [])]
                keys |= {f"{secret['name']}/{item['key']}" for secret in secrets for item in secret["items"]}
            found[place] = keys
        return found

    def test_each_role_gets_its_own(self):
        storage = {"fedpipe-storage/access_key", "fedpipe-storage/secret_key"}
        roles = ("api", "profiler", "planner", "aggregator")
        self.assertEqual(
            self.handed(helmchart.objects(SITE)),
            {
                "Deployment/fedpipe-api": {"fedpipe-nats/api", "fedpipe-api/token"} | storage,
                "Deployment/fedpipe-profiler": {"fedpipe-nats/profiler"},
                "Deployment/fedpipe-planner": {"fedpipe-nats/planner"},
                "Deployment/fedpipe-aggregator": {"fedpipe-nats/aggregator"} | storage,
                "StatefulSet/fedpipe-worker-mail-1": {"fedpipe-nats/worker-mail-1"},
                "StatefulSet/fedpipe-nats": {f"fedpipe-nats/{role}" for role in (*roles, "worker-mail-1")},
                "Pod/fedpipe-test": {"fedpipe-api/token"},
            },
        )

    def test_the_hubs_token_is_handed_to_those_that_ask_that_hub(self):
        handed = self.handed(helmchart.objects(SETS["gpu-nodes"]))
        holders = {place for place, keys in handed.items() if "fedpipe-hub/token" in keys}
        # Not to the site with a mirror of its own, nor to the one that fetches nothing.
        self.assertEqual(holders, {"Deployment/fedpipe-api", "StatefulSet/fedpipe-worker-speech"})

    def test_credentials_files_are_handed_out_one_by_one(self):
        handed = self.handed(helmchart.objects(SETS["external-services"]))
        collector = {f"collector-tls/{key}" for key in ("ca.crt", "tls.crt", "tls.key")}
        self.assertEqual(handed["Deployment/fedpipe-planner"], {"fedpipe-nats-creds/planner.creds"} | collector)
        self.assertEqual(handed["StatefulSet/fedpipe-worker-mail-1"], {"fedpipe-nats-creds/worker-mail-1.creds"} | collector)

    def test_each_process_is_told_the_files_for_tls_to_the_collector_that_it_is_handed(self):
        files = {"CERTIFICATE": "ca.crt", "CLIENT_CERTIFICATE": "tls.crt", "CLIENT_KEY": "tls.key"}
        told = {"external-services": (files, 5), "daemonset": ({"CERTIFICATE": "ca.crt"}, 1)}
        for name, (expected, count) in told.items():
            pods = helmchart.pods(helmchart.objects(SETS[name]))
            ours = {place: spec["containers"][0] for place, spec in pods.items() if not place.startswith("Pod/")}
            self.assertEqual(len(ours), count, name)
            for place, container in ours.items():
                variables = {entry["name"]: entry.get("value") for entry in container["env"]}
                (folder,) = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "collector"]
                for variable in files:
                    key = expected.get(variable)
                    self.assertEqual(variables.get(f"OTEL_EXPORTER_OTLP_{variable}"), key and f"{folder}/{key}", place)
            self.assertEqual(self.collectors(pods), {tuple(sorted(expected.values()))}, name)

    def collectors(self, pods: dict[str, dict]) -> set[tuple[str, ...]]:
        """Which keys of the collector's Secret pods are handed."""
        volumes = [volume for spec in pods.values() for volume in spec.get("volumes", []) if volume["name"] == "collector"]
        return {tuple(sorted(item["key"] for item in volume["secret"]["items"])) for volume in volumes}

    def test_seeds_are_handed_out_one_by_one_and_the_server_gets_none(self):
        handed = self.handed(helmchart.objects(SETS["keys"]))
        self.assertEqual(handed["Deployment/fedpipe-planner"], {"fedpipe-nats/planner.nk", "nats-tls/ca.crt"})
        self.assertEqual(handed["StatefulSet/fedpipe-worker-here"], {"fedpipe-nats/worker-here.nk", "nats-tls/ca.crt"})
        self.assertEqual(handed["StatefulSet/fedpipe-nats"], {"nats-tls/*"})

    def test_a_node_sees_its_own_file_alone(self):
        spec = helmchart.pods(helmchart.objects(SETS["daemonset"]))["DaemonSet/fedpipe-worker"]
        mounts = {mount["name"]: mount for mount in spec["containers"][0]["volumeMounts"]}
        self.assertEqual(mounts["sites"]["subPathExpr"], "$(FEDPIPE_NAME).toml")
        self.assertEqual(mounts["nats"]["subPathExpr"], "worker-$(FEDPIPE_NAME).creds")
        self.assertEqual(spec["containers"][0]["env"][0], {"name": "FEDPIPE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}})

    def test_the_chart_makes_no_secret(self):
        for name, values in SETS.items():
            self.assertFalse([thing for thing in helmchart.objects(values) if thing["kind"] == "Secret"], name)


if __name__ == "__main__":
    unittest.main()
