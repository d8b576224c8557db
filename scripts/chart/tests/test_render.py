"""Every value set renders to objects that Kubernetes takes, that fit together, and that give nobody more than they need."""

import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from valuesets import SETS  # noqa: E402  (puts helmchart on the path)

import helmchart  # noqa: E402
import kubernetes_validate  # noqa: E402

VERSIONS = ("1.29", "1.34")
RENDERED = {name: helmchart.objects(values) for name, values in SETS.items()}


class EverySet(unittest.TestCase):
    def each(self, *without: str):
        """(set, its objects), each as a sub-test."""
        for name, things in RENDERED.items():
            if name not in without:
                with self.subTest(values=name):
                    yield name, things

    def each_pod(self, *without: str):
        for name, things in self.each(*without):
            for place, spec in helmchart.pods(things).items():
                if not place.startswith("Pod/"):
                    yield name, place, spec

    def test_there_are_the_promised_sets(self):
        promised = {"default", "external-services", "external-workers", "gpu-nodes", "restricted", "observed", "everything-off"}
        self.assertLessEqual(promised, SETS.keys())

    def test_lint_strict_finds_nothing(self):
        for name, values in SETS.items():
            with self.subTest(values=name):
                self.assertEqual(helmchart.lint(values), [])

    def test_kubernetes_takes_every_object(self):
        for _, things in self.each():
            for thing in things:
                # The Prometheus operator's own; what is in them is checked in test_alerts.py.
                if thing["apiVersion"] == "monitoring.coreos.com/v1":
                    continue
                for version in VERSIONS:
                    kubernetes_validate.validate(thing, version, strict=True)

    def test_a_field_that_kubernetes_does_not_know_is_found(self):
        broken = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}, "automountToken": False}
        for version in VERSIONS:
            with self.assertRaises(kubernetes_validate.ValidationError):
                kubernetes_validate.validate(broken, version, strict=True)

    def test_everything_off_is_nothing(self):
        self.assertEqual(RENDERED["everything-off"], [])

    def test_pods_meet_the_restricted_standard(self):
        # A folder of the node is what the standard forbids, and what these two sets are about.
        for _, place, spec in self.each_pod():
            security = spec["securityContext"]
            self.assertTrue(security["runAsNonRoot"], place)
            self.assertEqual(security["seccompProfile"], {"type": "RuntimeDefault"}, place)
            for container in spec["containers"]:
                rights = container["securityContext"]
                self.assertEqual(rights, {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}, place)
        for _, place, spec in self.each_pod("gpu-nodes", "daemonset"):
            allowed = {"configMap", "csi", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
            kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
            self.assertLessEqual(kinds, allowed, place)

    def test_the_cluster_may_choose_the_user(self):
        users = {spec["securityContext"].get("runAsUser") for _, things in self.each() for spec in helmchart.pods(things).values()}
        self.assertEqual(users, {None, 65532})

    def test_no_pod_can_speak_to_kubernetes(self):
        for _, things in self.each():
            accounts = {thing["metadata"]["name"]: thing for thing in things if thing["kind"] == "ServiceAccount"}
            for place, spec in helmchart.pods(things).items():
                self.assertFalse(accounts[spec["serviceAccountName"]]["automountServiceAccountToken"], place)
                self.assertFalse(spec["automountServiceAccountToken"], place)
                self.assertFalse(spec["enableServiceLinks"], place)
            self.assertFalse([thing for thing in things if "Role" in thing["kind"]])

    def test_every_container_has_probes_requests_and_a_memory_limit(self):
        for _, place, spec in self.each_pod():
            for container in spec["containers"]:
                names = {port["name"] for port in container["ports"]}
                for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                    self.assertIn(container[probe]["httpGet"]["port"], names, place)
                self.assertIn("memory", container["resources"]["limits"], place)
                self.assertEqual(container["resources"]["requests"].keys(), {"cpu", "memory"}, place)

    def test_a_worker_is_promised_what_it_is_limited_to(self):
        seen = 0
        for _, place, spec in self.each_pod():
            if "worker" in place:
                resources = spec["containers"][0]["resources"]
                self.assertEqual(resources["requests"], resources["limits"], place)
                seen += 1
        self.assertGreaterEqual(seen, 3)

    def test_every_mount_has_its_volume_and_every_volume_its_mount(self):
        for _, things in self.each():
            claims = {
                f"{thing['kind']}/{thing['metadata']['name']}": {claim["metadata"]["name"] for claim in thing["spec"]["volumeClaimTemplates"]}
                for thing in things
                if thing["kind"] == "StatefulSet"
            }
            for place, spec in helmchart.pods(things).items():
                volumes = {volume["name"] for volume in spec.get("volumes", [])} | claims.get(place, set())
                mounts = [mount for container in spec["containers"] for mount in container.get("volumeMounts", [])]
                self.assertEqual({mount["name"] for mount in mounts}, volumes, place)
                paths = [mount["mountPath"] for mount in mounts]
                self.assertEqual(len(paths), len(set(paths)), place)

    def test_config_maps_that_are_mounted_exist_and_change_rolls_the_pods(self):
        for _, things in self.each():
            maps = {thing["metadata"]["name"] for thing in things if thing["kind"] == "ConfigMap"}
            for place, spec in helmchart.pods(things).items():
                named = {volume["configMap"]["name"] for volume in spec.get("volumes", []) if "configMap" in volume}
                self.assertLessEqual(named - {"authorities"}, maps, place)
        before = helmchart.objects({})
        after = helmchart.objects({"liveness": {"idleMs": 5000}})
        sums = [helmchart.find(things, "Deployment", "fedpipe-planner")["spec"]["template"]["metadata"]["annotations"]["checksum/config"] for things in (before, after)]
        self.assertNotEqual(*sums)

    def test_names_and_labels_stay_within_what_kubernetes_allows(self):
        long = helmchart.objects(SETS["restricted"], name="a-release-with-a-name-of-53-letters-which-is-the-end-")
        for thing in [thing for things in RENDERED.values() for thing in things] + long:
            name = thing["metadata"]["name"]
            # Kubernetes appends up to 16 letters to a Deployment's pods and puts a StatefulSet's name and a hash into a label.
            room = {"Deployment": 63 - 17, "StatefulSet": 52}.get(thing["kind"], 63)
            self.assertLessEqual(len(name), room, name)
            for value in thing["metadata"]["labels"].values():
                self.assertLessEqual(len(value), 63)
            self.assertNotIn("--", name)

    def test_names_are_unique(self):
        for _, things in self.each():
            names = [(thing["kind"], thing["metadata"]["name"]) for thing in things]
            self.assertEqual(len(names), len(set(names)))

    def test_two_long_site_names_stay_apart(self):
        names = [f"{'a' * 60}-{i}" for i in (1, 2)]
        things = helmchart.objects({"workers": {"sites": [{"name": name} for name in names]}})
        self.assertEqual(len({thing["metadata"]["name"] for thing in things if thing["kind"] == "StatefulSet" and "worker" in thing["metadata"]["name"]}), 2)

    def test_selectors_find_their_own_pods_alone(self):
        for _, things in self.each():
            templates = {
                f"{thing['kind']}/{thing['metadata']['name']}": thing["spec"]["template"]["metadata"]["labels"]
                for thing in things
                if thing["kind"] in ("Deployment", "StatefulSet", "DaemonSet")
            }
            for thing in things:
                if thing["kind"] in ("Deployment", "StatefulSet", "DaemonSet"):
                    wanted = thing["spec"]["selector"]["matchLabels"]
                    found = [place for place, labels in templates.items() if wanted.items() <= labels.items()]
                    own = f"{thing['kind']}/{thing['metadata']['name']}"
                    self.assertEqual(found, [own])
                if thing["kind"] in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
                    spec = thing["spec"]
                    wanted = spec["selector"] if thing["kind"] == "Service" else (spec.get("selector") or spec["podSelector"])["matchLabels"]
                    self.assertTrue([labels for labels in templates.values() if wanted.items() <= labels.items()], thing["metadata"]["name"])

    def test_services_lead_to_ports_that_are_there(self):
        for _, things in self.each():
            ports = {port["name"] for spec in helmchart.pods(things).values() for c in spec["containers"] for port in c.get("ports", [])}
            targets = {port["targetPort"] for thing in things if thing["kind"] == "Service" for port in thing["spec"]["ports"]}
            self.assertLessEqual(targets, ports)

    def test_a_rolling_update_takes_nobody_away_first(self):
        for _, things in self.each():
            for thing in things:
                if thing["kind"] == "Deployment":
                    self.assertEqual(thing["spec"]["strategy"]["rollingUpdate"], {"maxUnavailable": 0, "maxSurge": 1})
                if thing["kind"] == "PodDisruptionBudget":
                    self.assertEqual(thing["spec"]["maxUnavailable"], 1)

    def test_everything_but_the_pods_of_nodes_has_a_budget(self):
        for _, things in self.each():
            budgets = {thing["metadata"]["labels"]["app.kubernetes.io/component"] for thing in things if thing["kind"] == "PodDisruptionBudget"}
            kinds = {thing["metadata"]["labels"]["app.kubernetes.io/component"] for thing in things if thing["kind"] in ("Deployment", "StatefulSet")}
            self.assertEqual(budgets, kinds)

    def test_pods_of_a_service_are_spread_over_nodes_and_zones(self):
        for _, place, spec in self.each_pod():
            if place.startswith("Deployment/"):
                keys = [constraint["topologyKey"] for constraint in spec["topologySpreadConstraints"]]
                self.assertEqual(keys, ["kubernetes.io/hostname", "topology.kubernetes.io/zone"], place)

    def test_the_api_scales_by_its_autoscaler_alone(self):
        things = RENDERED["external-services"]
        scaler = helmchart.find(things, "HorizontalPodAutoscaler", "fedpipe-api")["spec"]
        self.assertEqual((scaler["minReplicas"], scaler["maxReplicas"], scaler["scaleTargetRef"]["name"]), (3, 9, "fedpipe-api"))
        self.assertNotIn("replicas", helmchart.find(things, "Deployment", "fedpipe-api")["spec"])

    def test_notes_name_the_next_command(self):
        notes = helmchart.render(SETS["default"])["NOTES.txt"]
        self.assertIn("get secret fedpipe-nats fedpipe-storage fedpipe-api", notes)
        self.assertIn("helm -n fedpipe test fedpipe", notes)
        self.assertIn("http://127.0.0.1:8080/", notes)
        self.assertIn("No site is let in yet", notes)
        self.assertNotIn("No site is let in yet", helmchart.render(SETS["external-workers"])["NOTES.txt"])
        self.assertIn("get pods -l", helmchart.render(SETS["everything-off"])["NOTES.txt"])
        self.assertIn("Nobody may read /metrics yet", notes)
        self.assertNotIn("Nobody may read", helmchart.render(SETS["observed"])["NOTES.txt"])


class Disks(unittest.TestCase):
    """A disk is larger than what its service may put on it."""

    def test_the_aggregators_spool_fits(self):
        spec = helmchart.pods(RENDERED["default"])["Deployment/fedpipe-aggregator"]
        volume = next(volume for volume in spec["volumes"] if volume["name"] == "work")
        with helmchart.helm_python.Chart.load(helmchart.CHART) as chart:
            values = chart.values
        self.assertGreater(amount(volume["emptyDir"]["sizeLimit"]), values["aggregator"]["spoolBytes"])
        self.assertGreater(amount(values["nats"]["storage"]["size"]), values["nats"]["storage"]["maxBytes"])
        self.assertGreater(amount(values["api"]["scratchSize"]), values["api"]["limits"]["adapterBytes"])


def amount(text: str) -> int:
    """Bytes of a Kubernetes quantity in Gi."""
    return int(text.removesuffix("Gi")) << 30


if __name__ == "__main__":
    unittest.main()
