"""docs/operate.md, as far as it can be done here: its values render, its Secrets hold what pods ask for, its commands are there and work."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import helmchart  # noqa: E402
import live  # noqa: E402
import test_nats  # noqa: E402
from helmchart import ROOT, yaml  # noqa: E402

TEXT = (ROOT / "docs/operate.md").read_text()
FLAG = re.compile(r"--[a-z][a-z-]+")


def blocks() -> list[str]:
    """The indented blocks, without their indentation."""
    found = re.findall(r"(?:^(?: {7,}.*)?\n)*^ {7,}.*\n", TEXT, re.MULTILINE)
    return ["\n".join(line[7:] for line in block.splitlines()).strip("\n") for block in found]


def containing(word: str) -> str:
    """The one block with this word."""
    return next(block for block in blocks() if word in block)


def shell(script: str, folder: str) -> str:
    """What a script prints, with `kubectl` that asks no cluster and the binary of this test run as `fedpipe`."""
    prelude = f'set -eu\nkubectl() {{ "{helmchart.TOOLS}/bin/kubectl" "$@" --dry-run=client --output yaml; echo ---; }}\nfedpipe() {{ "{live.FEDPIPE}" "$@" >&2; }}\n'
    done = subprocess.run(["bash", "-c", prelude + script], cwd=folder, env={"PATH": os.environ["PATH"], "HOME": folder}, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{script}\n{done.stdout}{done.stderr}")
    return done.stdout


def secrets(printed: str) -> set[str]:
    """`secret/key` of each that was made."""
    made = [thing for thing in yaml.safe_load_all(printed) if thing and thing["kind"] == "Secret"]
    return {f"{thing['metadata']['name']}/{key}" for thing in made for key in thing["data"]}


class Operate(unittest.TestCase):
    def test_the_secrets_of_the_page_are_those_that_pods_of_its_values_ask_for(self):
        values = yaml.safe_load(containing("# values.yaml\nimage:").split("\n\n")[0])
        asked = set()
        for spec in helmchart.pods(helmchart.objects(values)).values():
            for entry in spec["containers"][0].get("env", []):
                reference = entry.get("valueFrom", {}).get("secretKeyRef")
                asked |= {f"{reference['name']}/{reference['key']}"} if reference else set()
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(secrets(shell(containing("create namespace"), folder)), asked)
        self.assertIn("fedpipe-nats/worker-mail-1", asked)

    def test_the_secret_for_tls_to_the_collector_holds_what_pods_mount(self):
        script, values = containing("collector-tls").split("\n\n")
        mounted = {}
        for place, spec in helmchart.pods(helmchart.objects(yaml.safe_load(values))).items():
            for volume in [volume for volume in spec.get("volumes", []) if volume["name"] == "collector"]:
                mounted[place] = {f"{volume['secret']['secretName']}/{item['key']}" for item in volume["secret"]["items"]}
        self.assertEqual(len(mounted), 4)
        with tempfile.TemporaryDirectory() as folder:
            for name in ("ca.crt", "tls.crt", "tls.key"):
                (pathlib.Path(folder) / name).write_text(name)
            made = secrets(shell(script, folder))
        self.assertEqual(set().union(*mounted.values()), made)

    def test_a_password_of_the_page_is_one_for_the_server(self):
        function = next(line for line in containing("create namespace").splitlines() if line.startswith("password()"))
        with tempfile.TemporaryDirectory() as folder:
            self.assertRegex(shell(f"{function}\npassword", folder), r"^p[0-9a-f]{48}$")

    def test_keys_of_the_page_are_values_that_the_server_takes(self):
        with tempfile.TemporaryDirectory() as folder:
            made = secrets(shell(containing("add-service"), folder))
            users = tomllib.loads(pathlib.Path(folder, "users.toml").read_text())
            shell("sed -i /mail-1/d users.toml\nfedpipe admin add-worker mail-1 --output new --users users.toml", folder)
            renewed = tomllib.loads(pathlib.Path(folder, "users.toml").read_text())
        self.assertEqual(made, {f"fedpipe-nats/{name}.nk" for name in users})
        self.assertEqual({name for name in users if users[name] != renewed[name]}, {"worker-mail-1"})
        values = {"nats": {"credentials": "nkey", "keys": users}, "workers": {"sites": [{"name": "mail-1"}]}}
        done = test_nats.judge(test_nats.configuration(values), {})
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_the_named_token_of_the_page_is_found_by_the_api(self):
        command, text = containing("fedpipe-tokens").split("# values.yaml")
        values = yaml.safe_load(text)
        with tempfile.TemporaryDirectory() as folder:
            made = secrets(shell(f"password() {{ echo p; }}\n{command}", folder))
        volumes = helmchart.pods(helmchart.objects(values))["Deployment/fedpipe-api"]["volumes"]
        sources = next(volume["projected"]["sources"] for volume in volumes if volume["name"] == "tokens")
        self.assertEqual({f"{one['secret']['name']}/{item['key']}" for one in sources for item in one["secret"]["items"]}, made)

    def test_every_command_and_option_of_fedpipe_that_the_page_names_is_there(self):
        spans = re.findall(r"`(fedpipe [^`]+)`", TEXT) + re.findall(r"(?:^|do )(fedpipe [a-z][^;\n]*)", "\n".join(blocks()), re.MULTILINE)
        seen = set()
        for span in spans:
            words = span.split()[1:]
            place = []
            for word in words:
                if not re.fullmatch(r"[a-z][a-z-]*", word) or len(place) == 2:
                    break
                place.append(word)
            done = live.run([*place, "--help"], {})
            if done.returncode != 0 and len(place) == 2:
                done = live.run([place[0], "--help"], {})
                self.assertNotIn("Commands:", done.stdout, f"{span}: there is no such command")
            self.assertEqual(done.returncode, 0, f"{span}: {done.shown}")
            for flag in FLAG.findall(span):
                self.assertIn(flag, done.stdout, span)
            seen.add(" ".join(place))
        self.assertGreaterEqual(len(seen), 10, seen)

    def test_every_value_that_the_page_names_is_there(self):
        with helmchart.helm_python.Chart.load(helmchart.CHART) as chart:
            values = chart.values
        sections = "|".join(values)
        named = {path for path in re.findall(rf"`((?:{sections})\.[A-Za-z.]+)", TEXT)}
        self.assertGreaterEqual(len(named), 20)
        for path in named:
            here = values
            for part in path.split("."):
                self.assertIn(part, here, path)
                here = here[part]


if __name__ == "__main__":
    unittest.main()
