"""The rendered NATS configuration: the server reads it, and it lets each role do what the message contract says."""

import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from valuesets import SETS  # noqa: E402

import helmchart  # noqa: E402

SERVER = helmchart.TOOLS / "bin/nats-server"
GENERATED = helmchart.ROOT / "docs/nats-permissions.conf"


def configuration(values: dict) -> str | None:
    """The text that the server of these values reads; none if there is none."""
    found = [thing for thing in helmchart.objects(values) if thing["kind"] == "ConfigMap" and "nats.conf" in thing["data"]]
    return found[0]["data"]["nats.conf"] if found else None


def judge(text: str, environment: dict[str, str]) -> subprocess.CompletedProcess:
    """`nats-server -t`."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "nats.conf")
        path.write_text(text.replace("/etc/nats-tls", folder).replace("/var/lib/nats", f"{folder}/store"))
        if "tls {" in text:
            make_certificate(pathlib.Path(folder))
        command = [str(SERVER), "-t", "-c", str(path)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=False)


def make_certificate(folder: pathlib.Path) -> None:
    """An authority (ca.crt) and what it signed for 127.0.0.1 (tls.crt, tls.key)."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    openssl(folder, *key, "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.crt")
    leaf = ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]
    openssl(folder, *key, *leaf, "-subj", "/CN=nats", "-CA", "ca.crt", "-CAkey", "ca.key", "-keyout", "tls.key", "-out", "tls.crt")


def openssl(folder: pathlib.Path, *arguments: str) -> None:
    """`openssl req -x509`."""
    subprocess.run(["openssl", "req", "-x509", *arguments], cwd=folder, capture_output=True, timeout=20, check=True)


def passwords(text: str) -> dict[str, str]:
    """A password for every variable that the configuration names."""
    return {name: f"p{number:x}e10" for number, name in enumerate(re.findall(r"\$(PASSWORD_\w+)", text))}


class Configuration(unittest.TestCase):
    def test_the_server_takes_the_configuration_of_every_set(self):
        taken = 0
        for name, values in SETS.items():
            text = configuration(values)
            if text is not None:
                with self.subTest(name):
                    done = judge(text, passwords(text))
                    self.assertEqual(done.returncode, 0, done.stderr)
                    taken += 1
        self.assertEqual(taken, 6)

    def test_the_server_refuses_a_user_without_a_password(self):
        text = configuration(SETS["external-workers"])
        known = passwords(text)
        del known["PASSWORD_WORKER_MAIL_2"]
        done = judge(text, known)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("PASSWORD_WORKER_MAIL_2", done.stderr)

    def test_variables_of_the_configuration_are_those_of_the_pod(self):
        for name, values in SETS.items():
            text = configuration(values)
            if text is not None:
                spec = helmchart.pods(helmchart.objects(values))["StatefulSet/fedpipe-nats"]
                given = {entry["name"]: entry["valueFrom"]["secretKeyRef"]["key"] for entry in spec["containers"][0].get("env", [])}
                self.assertEqual(set(given), set(passwords(text)), name)
                users = re.findall(r'user: "([^"]+)", password: \$(\w+)', text)
                self.assertEqual({variable: user for user, variable in users}, given, name)

    def test_a_site_may_do_what_the_contract_says_and_no_more(self):
        text = configuration({"workers": {"sites": [{"name": "site"}]}})
        self.assertEqual(users(text), users(GENERATED.read_text()))
        self.assertEqual(len(users(text)), 5)

    def test_with_keys_the_server_holds_no_secret_and_the_same_permissions(self):
        values = SETS["keys"]
        text = configuration(values)
        self.assertNotIn("password", text)
        by_password = configuration({**values, "nats": {"tls": {"existingSecret": "nats-tls"}}})
        named = re.findall(r'nkey: "([^"]+)"', text)
        self.assertEqual(named, list(values["nats"]["keys"].values()))
        keyed = [re.sub(r'nkey: "[^"]*", ', "", line.strip()) for line in text.splitlines() if "nkey:" in line]
        self.assertEqual(keyed, [re.sub(r'user: "[^"]*", , ', "", line) for line in users(by_password)])
        missing = {**values, "workers": {"outside": ["nobody"]}}
        with self.assertRaisesRegex(Exception, "public key of worker-nobody"):
            configuration(missing)

    def test_limits_are_those_that_the_services_are_tested_with(self):
        text, generated = configuration({}), GENERATED.read_text()
        payload = re.search(r"max_payload: (\S+)", generated).group(1)
        self.assertIn(f"max_payload: {payload}\n", text)

    def test_sites_outside_are_let_in_beside_those_that_run_here(self):
        text = configuration({"workers": {"sites": [{"name": "here"}], "outside": ["there", "here"]}})
        self.assertEqual(re.findall(r'user: "(worker-[^"]+)"', text), ["worker-here", "worker-there"])

    def test_two_sites_do_not_share_a_subject(self):
        first, second = users(configuration({"workers": {"sites": [{"name": "mail-1"}, {"name": "mail-2"}]}}))[-2:]
        self.assertNotIn("mail-2", first)
        self.assertEqual(first.replace("mail-1", "mail-2"), second)


def users(text: str) -> list[str]:
    """The user lines, without their passwords."""
    return [re.sub(r'password: ("[^"]*"|\$\w+)', "", line).strip() for line in text.splitlines() if line.strip().startswith("{ user:")]


if __name__ == "__main__":
    unittest.main()
