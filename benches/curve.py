#!/usr/bin/env python3
"""The loss of each training step, ours against PyTorch's in float32 and our faster modes against our own float32.

    benches/curve.py --data RECORDS.jsonl [--steps 40] [--modes bf16/bf16,int8/int8,nf4/f32]

Records are {"prompt", "completion"} in file order. Adds the table to results/engine.json, and fails where float32
parts from PyTorch by more than the limits below, or the mode that is called fastest parts from float32.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import engine
import table


# Relative differences of a step's loss: in float32 over the first ten steps and over all; of a faster mode.
FIRST_LIMIT, ALL_LIMIT, MODE_LIMIT = 1e-3, 1e-2, 1e-2


def losses(text: str) -> list[float]:
    """The losses in lines of JSON."""
    return [json.loads(line)["loss"] for line in text.splitlines()]


def furthest(got: list[float], want: list[float]) -> float:
    """The largest relative difference."""
    if len(got) != len(want):
        raise engine.BenchError(f"{len(got)} steps against {len(want)}")
    return max(abs(g - w) / w for g, w in zip(got, want, strict=True))


class Curves:
    """Runs each side from one adapter on the same records."""

    def __init__(self, options: argparse.Namespace, model: pathlib.Path, folder: pathlib.Path) -> None:
        self.options, self.model, self.folder = options, model, folder
        self.adapter = folder / "start"
        self.call(["train", *self.flags(), "--steps", "0", "--rank", "16", "--targets", "all-linear", "--alpha", "32", "--out", str(self.adapter)])

    def flags(self) -> list[str]:
        """What every run of ours has in common."""
        found = {"--model": self.model, "--data": self.options.data, "--sequence-length": self.options.sequence}
        found |= {"--batch": self.options.batch, "--threads": self.options.threads, "--learning-rate": self.options.rate}
        fixed = ["--format", "completion", "--order", "file", "--schedule", "constant", "--clip-norm", "0", "--weight-decay", "0"]
        return [str(word) for pair in found.items() for word in pair] + fixed

    def call(self, words: list[str]) -> None:
        """A run of fedpipe."""
        done = subprocess.run([str(self.options.fedpipe), *words], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise engine.BenchError(f"fedpipe {' '.join(words)}\n  {done.stderr.strip()[-2000:]}")

    def ours(self, base: str, compute: str) -> list[float]:
        """Our losses in one mode."""
        metrics = self.folder / f"{base}-{compute}.jsonl"
        mode = ["--base", base, "--compute", compute, "--init-adapter", str(self.adapter), "--steps", str(self.options.steps)]
        self.call(["train", *self.flags(), *mode, "--out", str(self.folder / f"{base}-{compute}"), "--metrics", str(metrics)])
        return losses(metrics.read_text())

    def torch(self) -> list[float]:
        """PyTorch's."""
        script = [str(self.options.python), str(engine.HERE / "torch_curve.py"), str(self.model), str(self.adapter), str(self.options.data)]
        numbers = [self.options.steps, self.options.rate, self.options.sequence, self.options.batch, self.options.threads]
        done = subprocess.run([*script, *map(str, numbers)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise engine.BenchError(done.stderr.strip()[-2000:])
        return losses(done.stdout)


def main(words: list[str]) -> int:
    defaults = engine.arguments([])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--sequence", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--modes", default="bf16/bf16,int8/int8,nf4/f32", help="BASE/COMPUTE, separated by commas")
    parser.add_argument("--fastest", default=defaults.fastest, help="the mode held to 1 %% of float32")
    for name in ("fedpipe", "python", "model", "tools", "out"):
        parser.add_argument(f"--{name}", type=pathlib.Path, default=getattr(defaults, name))
    options = parser.parse_args(words)
    try:
        model, on = engine.prepared(options), engine.origin(options, beside_torch=True)
        with tempfile.TemporaryDirectory() as folder:
            curves = Curves(options, model, pathlib.Path(folder))
            exact, peer = curves.ours("f32", "f32"), curves.torch()
            modes = [{"title": "f32 base, f32 compute", "first": furthest(exact[:10], peer[:10]), "all": furthest(exact, peer), "against": "PyTorch f32"}]
            for mode in filter(None, options.modes.split(",")):
                base, compute = mode.split("/")
                got = curves.ours(base, compute)
                difference = {"first": furthest(got[:10], exact[:10]), "all": furthest(got, exact), "against": "ours in f32"}
                modes.append({"title": f"{base} base, {compute} compute", **difference})
                print(f"bench: {modes[-1]}", file=sys.stderr)
    except (engine.BenchError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    out = options.out / "engine.json"
    results = json.loads(out.read_text()) if out.is_file() else {"rows": {}}
    about = {"records": options.data.name, "steps": options.steps, "batch": options.batch, "sequence": options.sequence, "rate": options.rate}
    results["curves"] = about | {"modes": modes, "on": on}
    engine.keep(results, out)
    print("\n".join(table.curves(results["curves"])))
    fastest = options.fastest.replace(",", "/")
    wrong = modes[0]["first"] > FIRST_LIMIT or modes[0]["all"] > ALL_LIMIT
    wrong |= any(mode["all"] > MODE_LIMIT for mode in modes if mode["title"] == "{} base, {} compute".format(*fastest.split("/")))
    if wrong:
        print("bench: losses part by more than their limit", file=sys.stderr)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
