#!/usr/bin/env python3
"""The demonstration: three mail providers learn one spam filter without showing each other a mail.

Promises: everything goes through the command line and REST interface that anybody has; out/demo/report.json holds the
figures, out/demo/adapter an adapter that Hugging Face PEFT loads; nothing keeps running afterwards, however it ends.
Does not: build the binary or fetch the model and the mail (`./run demo` does, before).
"""

import argparse
import hashlib
import json
import pathlib
import shutil
import sys

import demo_report
import mail_sites
from local_fleet import Failed, adapter_of_latest, call, heading, running, show


def demonstrate(fedpipe: str, tools: pathlib.Path, out: pathlib.Path) -> None:
    """The show, from dealing the mail to the adapter on disk."""
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    heading("the mail: whole lists on one site, most spam on the first")
    if mail_sites.main([str(tools / "data/mail"), str(out / "mail")]) != 0:
        raise Failed("the mail could not be dealt")
    model = next((tools / "models/smollm2-135m-instruct").glob("*.gguf"))
    with running(fedpipe, "demo/fleet.toml", out) as api:
        call(fedpipe, out, "model", "push", str(model), "--state", str(out / "state"))
        heading("the fleet")
        call(fedpipe, out, "fleet")
        heading("the job")
        call(fedpipe, out, "job", "submit", "-f", "demo/job.yaml", "--watch")
        _, plan, report = adapter_of_latest(api, fedpipe, out)
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
    return show("demo", lambda: demonstrate(options.fedpipe, options.tools, pathlib.Path("out/demo")))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
