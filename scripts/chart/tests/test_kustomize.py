"""The kustomize base and overlays build with kubectl, and Kubernetes takes what they give."""

import pathlib
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import helmchart  # noqa: E402
import kubernetes_validate  # noqa: E402

KUBECTL = helmchart.TOOLS / "bin/kubectl"


def build(folder: str) -> list[dict]:
    """`kubectl kustomize k8s/FOLDER`."""
    done = subprocess.run([KUBECTL, "kustomize", helmchart.ROOT / "k8s" / folder], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0 or done.stderr:
        raise AssertionError(done.stderr)
    return helmchart.parse(done.stdout)


BUILT = {folder: build(folder) for folder in ("base", "overlays/kind", "overlays/production")}


def variables(things: list[dict], kind: str, name: str) -> dict[str, str]:
    """The container's variables that have a value."""
    spec = helmchart.pods(things)[f"{kind}/{name}"]
    return {entry["name"]: entry["value"] for entry in spec["containers"][0]["env"] if "value" in entry}


class Kustomize(unittest.TestCase):
    def test_kubernetes_takes_every_object(self):
        for folder, things in BUILT.items():
            for thing in things:
                for version in ("1.29", "1.34"):
                    with self.subTest(folder=folder, kind=thing["kind"], version=version):
                        kubernetes_validate.validate(thing, version, strict=True)

    def test_everything_is_in_one_namespace(self):
        for folder, things in BUILT.items():
            found = {thing["metadata"].get("namespace") for thing in things if thing["kind"] != "Namespace"}
            self.assertEqual(found, {"fedpipe"}, folder)

    def test_the_base_is_not_managed_by_helm(self):
        for thing in BUILT["base"]:
            self.assertNotIn("app.kubernetes.io/managed-by", thing["metadata"]["labels"])
            self.assertNotIn("helm.sh/hook", thing["metadata"].get("annotations", {}))

    def test_the_base_is_what_the_chart_makes(self):
        values = helmchart.yaml.safe_load((helmchart.ROOT / "k8s/base/values.yaml").read_text())
        chart = {(thing["kind"], thing["metadata"]["name"]) for thing in helmchart.objects(values)}
        base = {(thing["kind"], thing["metadata"]["name"]) for thing in BUILT["base"]}
        self.assertEqual(chart - base, {("Pod", "fedpipe-test")})
        self.assertEqual(base - chart, set())

    def test_in_kind_storage_is_reached_by_its_own_port(self):
        things = BUILT["overlays/kind"]
        for kind, name in (("Deployment", "fedpipe-api"), ("Deployment", "fedpipe-aggregator")):
            self.assertEqual(variables(things, kind, name)["FEDPIPE_STORAGE__ENDPOINT"], "http://fedpipe-s3:8333")
            self.assertEqual(variables(things, kind, name)["FEDPIPE_STORAGE__ALLOW_HTTP"], "true")
        self.assertEqual(variables(things, "StatefulSet", "fedpipe-worker-site-1")["FEDPIPE_STORAGE__ALLOW_HTTP"], "true")
        for role in ("api", "aggregator", "worker"):
            policy = helmchart.find(things, "NetworkPolicy", f"fedpipe-{role}")
            self.assertEqual([rule["ports"][0]["port"] for rule in policy["spec"]["egress"]], [53, "nats", 8333])
        service = helmchart.find(things, "Service", "fedpipe-s3")
        self.assertEqual(service["spec"]["ports"][0]["port"], 8333)

    def test_in_kind_the_site_reads_the_nodes_folder(self):
        spec = helmchart.pods(BUILT["overlays/kind"])["StatefulSet/fedpipe-worker-site-1"]
        data = next(volume for volume in spec["volumes"] if volume["name"] == "data")
        cluster = helmchart.yaml.safe_load((helmchart.ROOT / "k8s/overlays/kind/cluster.yaml").read_text())
        mounted = cluster["nodes"][0]["extraMounts"][0]["containerPath"]
        self.assertEqual(data, {"name": "data", "hostPath": {"path": f"{mounted}/site-1", "type": "Directory"}})

    def test_in_production_the_autoscaler_decides_and_storage_has_tls(self):
        things = BUILT["overlays/production"]
        self.assertNotIn("replicas", helmchart.find(things, "Deployment", "fedpipe-api")["spec"])
        helmchart.find(things, "HorizontalPodAutoscaler", "fedpipe-api")
        self.assertTrue(variables(things, "Deployment", "fedpipe-api")["FEDPIPE_STORAGE__ENDPOINT"].startswith("https://"))
        images = {spec["containers"][0]["image"] for spec in helmchart.pods(things).values()}
        self.assertEqual(images, {"registry.example.org/fedpipe:0.1.0", "nats:2.15.1"})
        namespace = helmchart.find(things, "Namespace", "fedpipe")
        self.assertEqual(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted")


if __name__ == "__main__":
    unittest.main()
