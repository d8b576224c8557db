#!/usr/bin/env python3
"""Zeroth-order training on three local sites: forward passes alone, a kilobyte up per site and round.

Promises: everything goes through the command line and REST interface that anybody has; out/mezo/report.json holds the
bytes that each site sent in each round, out/mezo/adapter an adapter that Hugging Face PEFT loads; nothing keeps running
afterwards. Ends with 1 if a site sent more than it may. With --quick the tests' tiny model on made-up records, a
minute; otherwise SmolLM2-135M on the mail of the demonstration, some minutes. Does not: show how well this learns.
"""

import argparse
import hashlib
import json
import pathlib
import shutil
import sys

import mail_sites
import mezo_report
from local_fleet import ROOT, Failed, adapter_of_latest, call, heading, running, show

SITES = ("mail-a", "mail-b", "mail-c")
STEPS = 30
RECORDS = 48


def job(model: pathlib.Path, quick: bool, rounds: int) -> dict:
    """The job's file."""
    return {
        "name": "mezo",
        "model": {"source": f"file://{model.resolve()}"},
        "data": {"dataset": "mail"},
        "adapter": {"targets": ["q", "k", "v", "o", "gate", "up", "down"], "rank": 16, "rank_max": 16, "alpha": 32},
        "training": {
            "optimizer": "mezo",
            "local_steps": STEPS,
            # The paper's. A scalar of one record leaves a site only with its consent, which the fleet's file gives.
            "batch": 1,
            "sequence_length": 80,
            "order": "balanced",
            "learning_rate": 1e-4,
            "seed": 7,
            "mezo": {"perturbation": 1e-2, "clip": 50},
        },
        "aggregation": {"strategy": "sum"},
        "rounds": {"count": rounds, "quorum": "all"},
        # The tiny model knows capitals alone.
        "evaluation": {"choices": [" YES", " NO"] if quick else [" yes", " no"], "every": 1, "sample": 16},
    }


def fleet(data: pathlib.Path) -> str:
    """The fleet's file: three sites that measure themselves shortly, and consent to figures of few records."""
    site = (
        '[[workers]]\nname = "{name}"\nthreads = 1\nprobe_seconds = 5\n\n[workers.policy]\nshare_small_counts = true\n\n'
        '[workers.datasets.mail]\ntrain = "{data}/{name}/train.jsonl"\nheld_out = "{data}/{name}/heldout.jsonl"\n'
    )
    return "\n".join(site.format(name=name, data=data) for name in SITES)


def made_up(data: pathlib.Path) -> None:
    """Records for the tiny model."""
    for number, name in enumerate(SITES):
        folder = data / name
        folder.mkdir(parents=True)
        for file in ("train.jsonl", "heldout.jsonl"):
            lines = (record(number, one, file == "train.jsonl") for one in range(RECORDS))
            (folder / file).write_text("".join(lines), encoding="utf-8")


def record(site: int, number: int, train: bool) -> str:
    """One record; those that are kept back read otherwise."""
    spam = number % 2 == 0
    subject = ("WIN A PRIZE" if spam else "MINUTES OF MEETING") + f" {site}{number}" + ("" if train else "?")
    return json.dumps({"prompt": f"{subject} SPAM:", "completion": " YES" if spam else " NO"}) + "\n"


def demonstrate(fedpipe: str, tools: pathlib.Path | None, rounds: int, out: pathlib.Path) -> None:
    """The show; without `tools` the quick one."""
    if out.exists():
        shutil.rmtree(out)
    data = out / "data"
    data.mkdir(parents=True)
    if tools is None:
        model = ROOT / "libs/engine/tests/reference/tiny"
        made_up(data)
    else:
        model = next((tools / "models/smollm2-135m-instruct").glob("*.gguf"))
        heading("the mail")
        if mail_sites.main([str(tools / "data/mail"), str(data)]) != 0:
            raise Failed("the mail could not be dealt")
    (out / "fleet.toml").write_text(fleet(data), encoding="utf-8")
    (out / "job.json").write_text(json.dumps(job(model, tools is None, rounds), indent=2) + "\n", encoding="utf-8")
    with running(fedpipe, str(out / "fleet.toml"), out) as api:
        heading("the job")
        call(fedpipe, out, "job", "submit", "-f", str(out / "job.json"), "--watch")
        _, _, report = adapter_of_latest(api, fedpipe, out)
    adapter = (out / "adapter/adapter_model.safetensors").read_bytes()
    figures = mezo_report.figures(report, len(adapter), hashlib.sha256(adapter).hexdigest(), STEPS)
    (out / "report.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    heading("what travelled")
    print(mezo_report.text(figures))
    print(f"\nfigures: {out / 'report.json'}\nadapter: {out / 'adapter'} (loads with peft.PeftModel.from_pretrained)")
    if found := mezo_report.beyond(figures):
        raise Failed("; ".join(found))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", type=pathlib.Path, required=True, help="where `./run setup` installed the model and the mail")
    parser.add_argument("--fedpipe", required=True, help="the binary")
    parser.add_argument("--quick", action="store_true", help="the tests' tiny model on made-up records")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of 30 steps")
    options = parser.parse_args(arguments)
    tools = None if options.quick else options.tools
    return show("mezo", lambda: demonstrate(options.fedpipe, tools, options.rounds, pathlib.Path("out/mezo")))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
