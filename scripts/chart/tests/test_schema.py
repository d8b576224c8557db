"""values.schema.json refuses what would not work, and knows every value that there is."""

import copy
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from valuesets import SETS  # noqa: E402

import helmchart  # noqa: E402

D = "sha256:" + "0" * 64


def site(**more) -> dict:
    return {"workers": {"sites": [{"name": "a", **more}]}}


def otlp(endpoint: str, **tls) -> dict:
    return {"telemetry": {"otlp": {"endpoint": endpoint, "tls": tls}}}


REFUSED = {
    "a key that does not exist": ({"replicas": 3}, "replicas"),
    "a nested key that does not exist": ({"api": {"replica": 3}}, "replica"),
    "a secret among the values": ({"nats": {"password": "sesame"}}, "password"),
    "a token among the values": ({"api": {"token": "0123456789abcdef"}}, "token"),
    "a token of another role": ({"api": {"tokens": [{"name": "a", "role": "root", "sha256": "0" * 64}]}}, "/api/tokens/0/role"),
    "a named token among the values": ({"api": {"tokens": [{"name": "a", "role": "viewer", "token": "0123456789abcdef"}]}}, "token"),
    "a token without a place": ({"api": {"tokens": [{"name": "a", "role": "viewer"}]}}, "/api/tokens/0"),
    "a token in two places": ({"api": {"tokens": [{"name": "a", "role": "viewer", "sha256": "0" * 64, "existingSecret": "s"}]}}, "/api/tokens/0"),
    "a key of no Secret": ({"api": {"tokens": [{"name": "a", "role": "viewer", "sha256": "0" * 64, "key": "k"}]}}, "/api/tokens/0"),
    "storage keys among the values": ({"storage": {"secretKey": "x"}}, "secretKey"),
    "a text as a number": ({"api": {"replicas": "two"}}, "/api/replicas"),
    "no replica": ({"planner": {"replicas": 0}}, "/planner/replicas"),
    "an idle knob that is too short": ({"liveness": {"idleMs": 5}}, "/liveness/idleMs"),
    "NATS elsewhere without an address": ({"nats": {"enabled": False}}, "/nats"),
    "NATS here and elsewhere": ({"nats": {"url": "nats://a:4222"}}, "/nats"),
    "NATS here that asks for nothing": ({"nats": {"existingSecret": ""}}, "/nats"),
    "passwords in clear to a balancer": ({"nats": {"service": {"type": "LoadBalancer"}}}, "/nats/tls/existingSecret"),
    "passwords in clear to a node's port": ({"nats": {"service": {"type": "NodePort"}}}, "/nats/tls/existingSecret"),
    "NATS here with credentials files": ({"nats": {"credentials": "file"}}, "/nats"),
    "a seed among the values": ({"nats": {"credentials": "nkey", "keys": {"api": "SU" + "A" * 56}}}, "/nats/keys/api"),
    "a key of nobody": ({"nats": {"credentials": "nkey", "keys": {"root": "U" + "A" * 55}}}, "root"),
    "another protocol": ({"nats": {"enabled": False, "url": "http://a"}}, "/nats/url"),
    "a password in the address": ({"nats": {"enabled": False, "url": "nats://me:secret@a"}}, "/nats/url"),
    "a folder as storage": ({"storage": {"url": "file:///objects"}}, "/storage/url"),
    "storage without TLS by accident": ({"storage": {"endpoint": "http://s3"}}, "/storage"),
    "no storage secret": ({"storage": {"existingSecret": ""}}, "/storage/existingSecret"),
    "an api without a token": ({"api": {"existingSecret": ""}}, "/api/existingSecret"),
    "an Ingress without a host": ({"api": {"ingress": {"enabled": True}}}, "/api/ingress"),
    "a variable that is not OpenTelemetry's": ({"telemetry": {"otlp": {"variables": {"RUST_LOG": "debug"}}}}, "RUST_LOG"),
    "a variable that has a value of its own": ({"telemetry": {"otlp": {"variables": {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1"}}}}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
    "a variable that names a file of the Secret": ({"telemetry": {"otlp": {"variables": {"OTEL_EXPORTER_OTLP_CLIENT_KEY": "/a"}}}}, "OTEL_EXPORTER_OTLP_CLIENT_KEY"),
    "files for TLS to a collector without TLS": (otlp("http://c:1", existingSecret="s"), "/telemetry/otlp/endpoint"),
    "files for TLS to no collector": (otlp("", existingSecret="s"), "/telemetry/otlp/endpoint"),
    "a Secret of which nothing is taken": (otlp("https://c", existingSecret="s", ca=""), "/telemetry/otlp/tls"),
    "a certificate without its key": (otlp("https://c", existingSecret="s", certificate="tls.crt"), "/telemetry/otlp/tls/key"),
    "a key without its certificate": (otlp("https://c", existingSecret="s", key="tls.key"), "/telemetry/otlp/tls/key"),
    "a key among the values": (otlp("https://c", existingSecret="s", certificate="tls.crt", key="-----BEGIN PRIVATE KEY-----"), "/telemetry/otlp/tls/key"),
    "another protocol to the collector": (otlp("grpc://c:4317"), "/telemetry/otlp/endpoint"),
    "a variable of no Secret": ({"telemetry": {"otlp": {"variables": {"OTEL_EXPORTER_OTLP_HEADERS": {"secretKeyRef": {"name": "a"}}}}}}, "/telemetry/otlp/variables"),
    "a variable that is no text": ({"telemetry": {"otlp": {"variables": {"OTEL_BSP_MAX_QUEUE_SIZE": 8192}}}}, "/telemetry/otlp/variables"),
    "no time to put a task away": ({"workers": {"terminationGraceSeconds": 29}}, "/workers/terminationGraceSeconds"),
    "runbooks that are no address": ({"telemetry": {"alerts": {"runbooks": "docs/operate.md"}}}, "/telemetry/alerts/runbooks"),
    "two bundles": ({"caBundle": {"configMap": "a", "secret": "b"}}, "/caBundle"),
    "root": ({"podSecurity": {"runAsUser": 0}}, "/podSecurity/runAsUser"),
    "a name that is too long": ({"fullnameOverride": "a" * 31}, "/fullnameOverride"),
    "a digest that is none": ({"image": {"digest": "latest"}}, "/image/digest"),
    "another way to run workers": ({"workers": {"mode": "cronjob"}}, "/workers/mode"),
    "nodes without their files": ({"workers": {"mode": "daemonset"}}, "/workers"),
    "a site without a name": ({"workers": {"sites": [{"cpu": 1}]}}, "name"),
    "a site's name that NATS cannot carry": ({"workers": {"sites": [{"name": "A.b"}]}}, "/workers/sites/0/name"),
    "the name of a site outside that NATS cannot carry": ({"workers": {"outside": ["a.b"]}}, "/workers/outside/0"),
    "a site's password": (site(password="x"), "password"),
    "a site's NATS settings": (site(settings={"nats": {"password": "x"}}), "nats"),
    "a site's storage credentials": (site(settings={"storage": {"secret_key": "x"}}), "secret_key"),
    "a site's token for the Hub": (site(settings={"hub": {"token": "hf_x"}}), "token"),
    "a token for the Hub among the values": ({"hub": {"token": "hf_x"}}, "token"),
    "a token for a Hub without TLS": ({"hub": {"endpoint": "http://mirror:8080", "existingSecret": "a"}}, "/hub/endpoint"),
    "a Hub that is no address": (site(settings={"hub": {"endpoint": "mirror"}}), "/settings/hub/endpoint"),
    "a site's Hub that is nowhere": (site(settings={"hub": {"endpoint": ""}}), "/settings/hub/endpoint"),
    "models of the Hub that are none": (site(settings={"policy": {"allow_hub": ["name"]}}), "allow_hub/0"),
    "a setting that the worker does not know": (site(settings={"cache": "1GB"}), "cache"),
    "a size that is no text": (site(settings={"cache_bytes": 5}), "cache_bytes"),
    "data without its file": (site(settings={"datasets": {"mail": {}}}), "train"),
    "data of another format": (site(settings={"datasets": {"mail": {"train": "/a", "format": "csv"}}}), "format"),
    "a volume with the name of one of ours": (site(volumes=[{"name": "collector", "mountPath": "/a", "persistentVolumeClaim": {"claimName": "a"}}]), "volumes/0/name"),
    "a volume of nothing": (site(volumes=[{"name": "a", "mountPath": "/a"}]), "volumes/0"),
    "a volume of two things": (site(volumes=[{"name": "a", "mountPath": "/a", "hostPath": {"path": "/a"}, "csi": {"driver": "b"}}]), "volumes/0"),
    "a volume that is writable by mistake": (site(volumes=[{"name": "a", "mountPath": "/a", "emptyDir": {}}]), "emptyDir"),
    "a peer that is none": ({"networkPolicy": {"apiFrom": [{}]}}, "/networkPolicy/apiFrom"),
    "a quantity that is none": ({"api": {"resources": {"limits": {"memory": "much"}}}}, "/api/resources"),
}


class Schema(unittest.TestCase):
    def test_what_would_not_work_is_refused_by_name(self):
        for what, (values, named) in REFUSED.items():
            with self.subTest(what):
                with self.assertRaises(helmchart.helm_python.HelmError) as refused:
                    helmchart.render(values)
                self.assertIn(named, str(refused.exception))

    def test_what_works_is_not(self):
        for name, values in SETS.items():
            with self.subTest(name):
                helmchart.render(values)

    def test_every_object_refuses_unknown_keys(self):
        with helmchart.helm_python.Chart.load(helmchart.CHART) as chart:
            schema, values = chart.schema, chart.values
        self.assertEqual(list(lenient(schema)), ["$/properties/global"])
        # Every value of values.yaml is known: each is refused under another name.
        for key in values:
            broken = copy.deepcopy(values)
            broken[f"{key}x"] = broken.pop(key)
            with self.assertRaises(helmchart.helm_python.HelmError):
                helmchart.render(broken)


def lenient(schema: object, place: str = "$"):
    """Places of a schema whose objects take any key, and say so in no way."""
    if isinstance(schema, dict):
        if schema.get("type") == "object" and "additionalProperties" not in schema:
            yield place
        for key, part in schema.items():
            yield from lenient(part, f"{place}/{key}")


if __name__ == "__main__":
    unittest.main()
