"""Runs what the chart renders: real processes with the rendered files and variables, on loopback and free ports.

Replaced are addresses, ports and folders, which belong to the cluster; nothing else.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import helmchart

sys.path.insert(0, str(helmchart.ROOT / "scripts"))
from ports import free_port  # noqa: E402

FEDPIPE = pathlib.Path(os.environ.get("FEDPIPE_BIN") or helmchart.ROOT / "target/debug/fedpipe")
PATIENCE_SECONDS = 30
SECRETS = {
    "fedpipe-api": {"token": "0123456789abcdef-token"},
    "fedpipe-storage": {"access_key": "access", "secret_key": "secret-of-storage"},
    "fedpipe-tokens": {"dashboard": "0123456789abcdef-viewer", "alice": "0123456789abcdef-submitter"},
    "fedpipe-operators": {"token-of-bob": "0123456789abcdef-admin"},
    "fedpipe-hub": {"token": "hf_of-the-hub"},
    "collector": {"headers": "authorization=Bearer of-the-collector"},
}


def until(what: str, condition, process: "Process | None" = None, seconds: float = PATIENCE_SECONDS):
    """The first true value of `condition`; whoever waits too long, or for a dead process, is told."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        if process and process.child.poll() is not None:
            raise AssertionError(f"{process.name} ended with {process.child.returncode} before {what}:\n{process.words()}")
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}\n{process.words() if process else ''}")


def listens(port: int) -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def get(port: int, path: str) -> tuple[int, str]:
    """Status and body of a page; status 0 while nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


class Process:
    """A child with a log; it is killed at the end of its test at the latest."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str], folder: pathlib.Path):
        self.name, self.log = name, folder / f"{name}.log"
        with self.log.open("w") as log:
            base = {"PATH": os.environ["PATH"]}
            self.child = subprocess.Popen(command, env={**base, **environment}, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def words(self) -> str:
        """What it said last."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-8:])

    def stop(self) -> int:
        """Tells it to end, as Kubernetes does, and waits for its exit code."""
        self.child.send_signal(signal.SIGTERM)
        return self.child.wait(timeout=PATIENCE_SECONDS)

    def kill(self) -> None:
        """Ends it at once, if it runs."""
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()


class Cluster:
    """Pods of one rendering as processes of this machine."""

    def __init__(self, stack: contextlib.ExitStack):
        self.stack = stack
        self.folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fedpipe-chart-")))
        self.nats_port = free_port()
        self.secrets = {name: dict(keys) for name, keys in SECRETS.items()}
        self.things: list[dict] = []

    def render(self, values: dict) -> None:
        """Takes the objects of these values."""
        self.take(helmchart.objects(values))

    def take(self, things: list[dict]) -> None:
        """Takes these objects, and makes a password for each that they name."""
        self.things = things
        for spec in helmchart.pods(self.things).values():
            for entry in spec["containers"][0].get("env", []):
                reference = entry.get("valueFrom", {}).get("secretKeyRef")
                if reference and reference["name"].startswith("fedpipe-nats"):
                    self.secrets.setdefault(reference["name"], {})[reference["key"]] = f"password-of-{reference['key']}"

    def environment(self, spec: dict, pod: str) -> dict[str, str]:
        """The container's variables as Kubernetes would fill them in."""
        found = {}
        for entry in spec["containers"][0].get("env", []):
            source = entry.get("valueFrom", {})
            if "secretKeyRef" in source:
                found[entry["name"]] = self.secrets[source["secretKeyRef"]["name"]][source["secretKeyRef"]["key"]]
            else:
                found[entry["name"]] = entry["value"] if "value" in entry else pod
        return found

    def files(self, spec: dict, ports: dict[str, int], place: pathlib.Path) -> dict[str, str]:
        """Writes the mounted ConfigMaps and projected Secrets below `place`, addresses replaced; mount path → folder."""
        folders = {}
        maps = {volume["name"]: volume["configMap"]["name"] for volume in spec["volumes"] if "configMap" in volume}
        projected = {volume["name"]: volume["projected"]["sources"] for volume in spec["volumes"] if "projected" in volume}
        for mount in spec["containers"][0]["volumeMounts"]:
            folder = place / mount["mountPath"].strip("/")
            if "subPathExpr" not in mount:
                folder.mkdir(parents=True, exist_ok=True)
                folders[mount["mountPath"]] = str(folder)
            for name, text in self.config_map(maps.get(mount["name"])).items():
                (folder / name).write_text(self.localized(text, ports, place))
            for source in projected.get(mount["name"], []):
                for item in source["secret"]["items"]:
                    (folder / item["path"]).write_text(self.secrets[source["secret"]["name"]][item["key"]] + "\n")
        return folders

    def config_map(self, name: str | None) -> dict[str, str]:
        """The files of a ConfigMap of the rendering."""
        found = [thing["data"] for thing in self.things if thing["kind"] == "ConfigMap" and thing["metadata"]["name"] == name]
        return found[0] if found else {}

    def localized(self, text: str, ports: dict[str, int], place: pathlib.Path) -> str:
        """Addresses of the cluster as addresses of this machine, folders of the pod as folders below `place`."""
        text = text.replace("fedpipe-nats:4222", f"127.0.0.1:{self.nats_port}")
        for folder in ("/var/lib/", "/etc/fedpipe/tokens/"):
            text = text.replace(folder, f"{place}{folder}")
        for cluster_port, port in ports.items():
            text = text.replace(f"0.0.0.0:{cluster_port}", f"127.0.0.1:{port}")
        return text

    def start_nats(self) -> Process:
        """The server with its rendered configuration."""
        spec = helmchart.pods(self.things)["StatefulSet/fedpipe-nats"]
        monitor = free_port()
        place = self.folder / "nats"
        tls = place / "etc/nats-tls"
        self.files(spec, {"4222": self.nats_port, "8222": monitor}, place)
        configuration = place / "etc/nats/nats.conf"
        configuration.write_text(configuration.read_text().replace("/etc/nats-tls", str(tls)))
        command = [str(helmchart.TOOLS / "bin/nats-server"), "--config", str(configuration)]
        server = self.keep(Process("nats", command, self.environment(spec, "fedpipe-nats-0"), self.folder))
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            path = spec["containers"][0][probe]["httpGet"]["path"]
            until(f"nats answers {path}", lambda path=path: get(monitor, path)[0] == 200, server)
        return server

    def start(self, place_in_chart: str, pod: str = "a-pod-1", **more: str) -> tuple[Process, dict[str, int]]:
        """The process of a pod; its ports by name."""
        spec = helmchart.pods(self.things)[place_in_chart]
        container = spec["containers"][0]
        ports = {port["name"]: (port["containerPort"], free_port()) for port in container["ports"]}
        # Disks of a StatefulSet stay with it; those of a Deployment's pod are its own.
        place = self.folder / (pod if place_in_chart.startswith("Deployment/") else place_in_chart.split("/")[1])
        local = {str(inside): outside for inside, outside in ports.values()}
        folders = self.files(spec, local, place)
        arguments = [outside_of(argument, folders) for argument in container["args"]]
        variables = {**self.environment(spec, pod), **more}
        if "/tmp" in folders:
            variables["TMPDIR"] = folders["/tmp"]
        process = self.keep(Process(pod, [str(FEDPIPE), *arguments], variables, self.folder))
        return process, {name: outside for name, (_, outside) in ports.items()}

    def keep(self, process: Process) -> Process:
        """Has it killed at the end."""
        self.stack.callback(process.kill)
        return process

    def start_storage(self, tls: pathlib.Path | None = None) -> str:
        """An S3 server with a bucket `fedpipe`, started as the kind overlay starts it, with a certificate if there is one; its endpoint."""
        overlay = helmchart.parse((helmchart.ROOT / "k8s/overlays/kind/s3.yaml").read_text())
        spec = helmchart.pods(overlay)["Deployment/fedpipe-s3"]
        data = self.folder / "objects"
        data.mkdir()
        first = self.take_ports()
        arguments = [a.replace("=/data", f"={data}").replace("=8333", f"={first}") for a in spec["containers"][0]["args"]]
        arguments += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        arguments += [f"-{name}.port={first + i}" for i, name in enumerate(("master", "volume", "filer", "admin"), 1)]
        if tls:
            arguments += [f"-s3.cert.file={tls / 'tls.crt'}", f"-s3.key.file={tls / 'tls.key'}"]
        server = self.keep(Process("weed", [str(helmchart.TOOLS / "bin/weed"), *arguments], self.environment(spec, "s3"), self.folder))
        until("storage listens", lambda: listens(first), server)
        until("its bucket is there", lambda: get(first + 3, "/buckets/fedpipe/")[0] == 200, server)
        return f"{'https' if tls else 'http'}://127.0.0.1:{first}"

    def take_ports(self) -> int:
        """The first of five ports, free like those 10000 above; testkit's own locks keep two tests from the same block."""
        locks = pathlib.Path(tempfile.gettempdir(), "fedpipe-test-ports")
        locks.mkdir(exist_ok=True)
        for block in range(1000):
            first = 12_000 + 5 * ((block + os.getpid()) % 1000)
            lock = self.stack.enter_context((locks / str(first)).open("w"))
            with contextlib.suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for port in range(first, first + 5):
                    for candidate in (port, port + 10_000):
                        with socket.socket() as probe:
                            probe.bind(("127.0.0.1", candidate))
                return first
        raise AssertionError("no free ports")


def outside_of(argument: str, folders: dict[str, str]) -> str:
    """An argument that is a path of the container, as the path that stands for it here."""
    for inside, outside in folders.items():
        if argument.startswith(f"{inside}/"):
            return outside + argument.removeprefix(inside)
    return argument


def run(arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess:
    """A command of the binary, to its end."""
    command = [str(FEDPIPE), *arguments]
    done = subprocess.run(command, env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    done.shown = f"{shlex.join(arguments)}: {done.stdout}{done.stderr}"
    return done


def reasons(port: int) -> dict[str, str]:
    """Why a process is not ready."""
    status, body = get(port, "/readyz")
    return json.loads(body)["reasons"] if status == 503 else {}
