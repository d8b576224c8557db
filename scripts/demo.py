#!/usr/bin/env python3
"""The demonstration: three mail providers learn one spam filter without showing each other a mail.

Promises: everything goes through the command line and REST interface that anybody has; out/demo/report.json holds the
figures, out/demo/adapter an adapter that Hugging Face PEFT loads; nothing keeps running afterwards, however it ends.
Does not: build the binary or fetch the model and the mail (`./run demo` does, before).
"""

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import demo_report
import mail_sites

ROOT = pathlib.Path(__file__).resolve().parent.parent
READY_SECONDS = 60
STOP_SECONDS = 30
ADDRESS = "127.0.0.1:8080"


class DemoError(Exception):
    """What went wrong and what to do next, in words for the terminal."""


class Api:
    """The REST interface, as far as the demonstration reads it."""

    def __init__(self, address: str):
        self.base = f"http://{address}"

    def get(self, path: str) -> dict:
        """The JSON answer to a GET."""
        try:
            with urllib.request.urlopen(f"{self.base}{path}", timeout=30) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise DemoError(f"GET {path}: {error.code}: {error.read().decode(errors='replace')[:300]}") from error
        except OSError as error:
            raise DemoError(f"GET {path}: {error}") from error

    def ready(self) -> bool:
        """Whether the service answers and calls itself ready."""
        try:
            return bool(self.get("/readyz"))
        except DemoError:
            return False


def heading(words: str) -> None:
    """A line that starts a new part of the show."""
    print(f"\n── {words} " + "─" * max(0, 100 - len(words)), flush=True)


@contextlib.contextmanager
def running(fedpipe: str, state: pathlib.Path) -> Iterator[Api]:
    """All services of `fedpipe up`, ready; stopped at the end by signal, and by force if that is not enough."""
    log_path = state.parent / "up.log"
    with log_path.open("wb") as log:
        command = [fedpipe, "up", "--fleet", "demo/fleet.toml", "--state", str(state), "--listen", ADDRESS]
        child = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            api = Api(ADDRESS)
            deadline = time.monotonic() + READY_SECONDS
            while not api.ready():
                if child.poll() is not None or time.monotonic() > deadline:
                    raise DemoError(f"`{' '.join(command)}` is not ready. Next: read {log_path}\n{last_lines(log_path)}")
                time.sleep(0.2)
            yield api
        finally:
            child.send_signal(signal.SIGINT)
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def last_lines(path: pathlib.Path) -> str:
    """The end of a log."""
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])


def call(fedpipe: str, *arguments: str) -> None:
    """A command of the binary, its output shown as it comes."""
    done = subprocess.run([fedpipe, *arguments], env={**os.environ, "FEDPIPE_API": f"http://{ADDRESS}"}, check=False)
    if done.returncode != 0:
        raise DemoError(f"`fedpipe {' '.join(arguments)}` ended with {done.returncode}; the services' log is out/demo/up.log")


def demonstrate(fedpipe: str, tools: pathlib.Path, out: pathlib.Path) -> None:
    """The show, from dealing the mail to the adapter on disk."""
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    heading("the mail: whole lists on one site, most spam on the first")
    if mail_sites.main([str(tools / "data/mail"), str(out / "mail")]) != 0:
        raise DemoError("the mail could not be dealt")
    model = next((tools / "models/smollm2-135m-instruct").glob("*.gguf"))
    with running(fedpipe, out / "state") as api:
        call(fedpipe, "model", "push", str(model), "--state", str(out / "state"))
        heading("the fleet")
        call(fedpipe, "fleet")
        heading("the job")
        call(fedpipe, "job", "submit", "-f", "demo/job.yaml", "--watch")
        job = api.get("/v1/jobs?limit=1")["items"][0]["id"]
        call(fedpipe, "job", "adapter", job, "-o", str(out / "adapter"))
        plan, report = api.get(f"/v1/jobs/{job}/plan"), api.get(f"/v1/jobs/{job}/report")
    adapter = (out / "adapter/adapter_model.safetensors").read_bytes()
    figures = demo_report.figures(report, hashlib.sha256(adapter).hexdigest())
    (out / "report.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    heading("why each site trains as it does")
    print(demo_report.plan_text(plan))
    heading("the result")
    print(demo_report.text(figures))
    print("\n" + demo_report.kept_text(plan, figures))
    print(f"\nfigures: {out / 'report.json'}\nadapter: {out / 'adapter'} (loads with peft.PeftModel.from_pretrained)")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", type=pathlib.Path, required=True, help="where `./run setup` installed the model and the mail")
    parser.add_argument("--fedpipe", required=True, help="the binary")
    options = parser.parse_args(arguments)
    os.chdir(ROOT)
    try:
        demonstrate(options.fedpipe, options.tools, pathlib.Path("out/demo"))
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
