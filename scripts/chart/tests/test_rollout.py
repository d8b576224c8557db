"""A job lives through a rolling update of every control service, every worker and the NATS server (storage stays): it ends with the adapter of an undisturbed one, byte for byte."""

import contextlib
import itertools
import json
import math
import pathlib
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import helmchart  # noqa: E402
import tiny_model  # noqa: E402
from live import SECRETS, Cluster, get, run, until  # noqa: E402

CONTROL = [f"Deployment/fedpipe-{role}" for role in ("api", "profiler", "planner", "aggregator")]
NATS = "StatefulSet/fedpipe-nats"
SITES = ("mail-1", "mail-2")
STEPS, BATCH = 30, 4
# A site's pace, which byte equality does not depend on: a round takes as long on any machine, and never less.
TOKENS_PER_SECOND = 4000
# A job of so many times what it took to start everything outlives a whole update, which starts everything again.
TIMES = 3
JOB_SECONDS = 600


class Rollout(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        stack = contextlib.ExitStack()
        cls.addClassCleanup(stack.close)
        cls.cluster = cluster = Cluster(stack)
        storage = {"endpoint": cluster.start_storage(), "allowHttp": True}
        settings = {name: {"datasets": {"mail": {"train": str(cls.records(name))}}, "throttle_tokens_per_second": TOKENS_PER_SECOND} for name in SITES}
        sites = [{"name": name, "settings": settings[name]} for name in SITES]
        cluster.render({"storage": storage, "liveness": {"idleMs": 2000}, "workers": {"sites": sites}})
        nats = cluster.start_nats()
        began = time.monotonic()
        # The aggregator and the workers first: they have most to lose.
        places = [CONTROL[-1], *(f"StatefulSet/fedpipe-worker-{site}" for site in SITES), *CONTROL[:-1]]
        cls.running = {place: cls.begin(place, place.rsplit("worker-", 1)[1] if place.startswith("StatefulSet/") else "first") for place in places}
        # After whom it serves.
        cls.running[NATS] = (nats, {})
        cls.rounds = math.ceil(max(12.0, TIMES * (time.monotonic() - began)) / cls.least_round_seconds())
        cls.digest = cls.push()

    @classmethod
    def least_round_seconds(cls) -> float:
        """What a round takes at least at the sites' pace: a record has a token for each letter of its question."""
        files = [cls.cluster.folder / f"{site}.jsonl" for site in SITES]
        letters = min(len(json.loads(line)["prompt"]) for file in files for line in file.read_text().splitlines())
        return STEPS * BATCH * letters / TOKENS_PER_SECOND

    @classmethod
    def records(cls, site: str) -> pathlib.Path:
        """A site's own data."""
        path = cls.cluster.folder / f"{site}.jsonl"
        lines = [json.dumps({"prompt": f"{site} asks {number}: is it even?", "completion": " yes" if number % 2 else " no"}) for number in range(32)]
        path.write_text("\n".join(lines) + "\n")
        return path

    @classmethod
    def begin(cls, place: str, pod: str):
        """A pod of a rendering, once it is ready."""
        process, ports = cls.cluster.start(place, pod=f"{place.split('-', 1)[1]}-{pod}")
        until(f"{place} is ready", lambda: get(ports["health"], "/readyz")[0] == 200, process)
        return process, ports

    @classmethod
    def push(cls) -> str:
        """The model's digest, once it is stored with the aggregator's own configuration."""
        tiny_model.write(cls.cluster.folder / "model")
        keys = SECRETS["fedpipe-storage"]
        storage = cls.cluster.folder / "storage.toml"
        endpoint = next(thing["data"]["api.toml"] for thing in cls.cluster.things if thing["metadata"]["name"] == "fedpipe-api" and thing["kind"] == "ConfigMap")
        lines = [line for line in endpoint.splitlines() if line.startswith(("url = \"s3", "endpoint", "allow_http"))]
        storage.write_text("\n".join([*lines, f'access_key = "{keys["access_key"]}"', f'secret_key = "{keys["secret_key"]}"']) + "\n")
        done = run(["model", "push", str(cls.cluster.folder / "model"), "--storage", str(storage), "--json"], {})
        assert done.returncode == 0, done.shown
        return json.loads(done.stdout)["digest"]

    def ask(self, *arguments: str) -> dict:
        """A command of the binary against the api that runs now."""
        _, ports = self.running[CONTROL[0]]
        done = run([*arguments, "--json", "--api", f"http://127.0.0.1:{ports['http']}"], {"FEDPIPE_TOKEN": SECRETS["fedpipe-api"]["token"]})
        self.assertEqual(done.returncode, 0, done.shown)
        return json.loads(done.stdout) if done.stdout.strip() else {}

    def submit(self, **more) -> str:
        """A job's id."""
        job = {
            "name": "tiny",
            "model": {"digest": self.digest},
            "data": {"dataset": "mail"},
            "adapter": {"targets": ["q", "v"], "rank": 4, "rank_max": 4, "alpha": 8.0},
            "training": {"optimizer": "adamw", "local_steps": STEPS, "batch": BATCH, "sequence_length": 64, "learning_rate": 1e-2, "seed": 7},
            "precision": {"compute": "f32"},
            "rounds": {"count": self.rounds, "quorum": "all"},
            "deadline_seconds": JOB_SECONDS,
            **more,
        }
        path = self.cluster.folder / "job.json"
        path.write_text(json.dumps(job))
        return self.ask("job", "submit", "--file", str(path))["id"]

    def adapter(self, job: str) -> bytes:
        """The adapter of a job, once it has succeeded."""

        def ended() -> str:
            found = self.ask("job", "get", job)
            return found["phase"] if found["phase"] in ("succeeded", "failed", "cancelled") else ""

        self.assertEqual(until(f"{job} ends", ended, seconds=JOB_SECONDS), "succeeded", self.ask("job", "get", job))
        folder = self.cluster.folder / f"adapter-{job}"
        self.ask("job", "adapter", job, "--output", str(folder))
        return (folder / "adapter_model.safetensors").read_bytes()

    def replace(self, place: str, pod: str) -> None:
        """A Deployment's way: the new pod is ready before the old one is told to end. A StatefulSet's: the other way round."""
        old, _ = self.running[place]
        if place.startswith("StatefulSet/"):
            self.assertEqual(old.stop(), 0, old.words())
        self.running[place] = self.begin(place, pod) if place != NATS else (self.cluster.start_nats(), {})
        if place.startswith("Deployment/"):
            self.assertEqual(old.stop(), 0, old.words())
        if place == NATS:
            for other, (process, ports) in self.running.items():
                if ports:
                    until(f"{other} has found NATS again", lambda ports=ports: get(ports["health"], "/readyz")[0] == 200, process)

    def test_a_rolling_update_of_everything_changes_nothing(self):
        undisturbed = self.submit()
        expected = self.adapter(undisturbed)
        disturbed = self.submit(plan_from=undisturbed)
        until("it trains", lambda: self.ask("job", "get", disturbed)["phase"] in ("training", "folding", "evaluating"))
        replaced = []
        for number, place in enumerate(itertools.cycle(self.running)):
            found = self.ask("job", "get", disturbed)
            if found["phase"] not in ("training", "folding"):
                break
            self.replace(place, place.rsplit("worker-", 1)[-1] if place.startswith("StatefulSet/") else f"pod-{number}")
            replaced.append(place)
        self.assertGreaterEqual(len(replaced), len(self.running), f"the job ended too early to meet a whole update: {found['cause']}")
        self.assertEqual(self.adapter(disturbed), expected)
        self.assertGreater(len(expected), 1000)


if __name__ == "__main__":
    unittest.main()
