#!/usr/bin/env python3
"""The engine beside PyTorch + PEFT: speed and memory of a LoRA training step on SmolLM2-135M-Instruct.

Ours and PyTorch's run in turn (A B A B …), so that a change of the machine's mood meets both; a ratio is the
median over the pairs. Figures move with the machine: only ratios of one run mean anything.

    benches/engine.py [--rows f32,fastest,…] [--pairs 3] [--steps 5]

Writes engine.json and engine.md into --out. Without --rows everything is measured; rows that are left out keep
the figures of the run before, and what they were measured on. Rows beside no figure of PyTorch (`--rows list` says
which) need none: they load the model's file as it is.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable

import table

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
RUN_TIMEOUT_SECONDS = 1800
BASES = ("f32", "bf16", "int8", "nf4")
# A zeroth-order step is two forward passes: at this share of their speed it has half of that of one.
ZEROTH_SPEED = 0.9


class BenchError(Exception):
    """What went wrong, in words for the terminal."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison: what we run, what PyTorch runs (if anything), and what the ratio must reach."""

    name: str
    title: str
    ours: tuple[str, ...]
    peer: str | None = None
    against: str | None = None  # a second figure of PyTorch, shown beside
    limits: tuple[tuple[str, str, float], ...] = ()  # (figure, ">=" or "<=", value)

    @property
    def beside_torch(self) -> bool:
        """Whether PyTorch is run for it."""
        return self.peer is not None or not (self.against or "forward ").startswith("forward ")


def rows(fast: tuple[str, str]) -> list[Row]:
    """The table of the comparison; `fast` is (base, compute) of the fastest mode that keeps the loss."""
    fast_flags = ("--base", fast[0], "--compute", fast[1])
    f32 = ("--base", "f32", "--compute", "f32")
    found = [
        Row("f32", "f32 base, no checkpointing", ("train", *f32), "fo-f32", None, (("speed", ">=", 1.25), ("memory", "<=", 0.35))),
        Row(
            "fastest",
            f"fastest mode that keeps the loss: {fast[0]} base, {fast[1]} compute",
            ("train", *fast_flags),
            "fo-f32",
            "fo-bf16",
            (("speed", ">=", 1.6), ("memory", "<=", 0.25), ("speed_against", ">=", 1.0)),
        ),
        Row(
            "nf4-checkpoint",
            f"nf4 base with checkpointing, {fast[1]} compute",
            ("train", "--base", "nf4", "--compute", fast[1], "--checkpoint"),
            "fo-f32-ckpt",
            None,
            (("speed", ">=", 1.0), ("peak_mib", "<=", 450)),
        ),
        Row("zeroth-f32", "zeroth-order, f32 base", ("train", *f32, "--optimizer", "mezo"), "zo-f32", None, (("speed", ">=", 1.15),)),
        Row(
            "zeroth-nf4",
            "zeroth-order, nf4 base",
            ("train", "--base", "nf4", "--compute", "f32", "--optimizer", "mezo"),
            "zo-f32",
            None,
            (("peak_mib", "<=", 300),),
        ),
        Row(
            "long",
            "sequence 2048 at batch 1, f32 base with checkpointing",
            ("train", *f32, "--checkpoint", "--batch", "1", "--seq", "2048"),
            limits=(("peak_mib", "<=", 1536),),
        ),
    ]
    for base in BASES:
        # What a zeroth-order step needs beyond inference, with every base.
        flags = ("--base", base, "--compute", "f32")
        title = f"zeroth-order beside forward alone, {base} base: at least {ZEROTH_SPEED} of the speed of two forward passes, which is {ZEROTH_SPEED / 2} of one's"
        limits = (("speed_against", ">=", ZEROTH_SPEED / 2), ("memory_against", "<=", 1.15))
        found.append(Row(f"forward-{base}", title, ("train", *flags, "--optimizer", "mezo"), None, f"forward {base}", limits))
    return found


# ---------------------------------------------------------------------------------------------------------------------
# One measurement.
# ---------------------------------------------------------------------------------------------------------------------


class Bench:
    """How each side is called."""

    def __init__(self, options: argparse.Namespace, model: pathlib.Path) -> None:
        self.options, self.model = options, model

    def ours(self, arguments: tuple[str, ...]) -> dict:
        """A run of `fedpipe bench`; later flags win over the common ones."""
        what, *flags = arguments
        common = {"--batch": "4", "--seq": "256", "--steps": str(self.options.steps), "--threads": str(self.options.threads)}
        if what == "train":
            common |= {"--rank": "16", "--targets": "all-linear"}
        for flag in flags:
            common.pop(flag, None)
        words = [word for pair in common.items() for word in pair]
        return run([str(self.options.fedpipe), "bench", what, "--model", str(self.model), *words, *flags, "--json"])

    def torch(self, mode: str) -> dict:
        """A run of PyTorch."""
        step = [str(self.options.python), str(HERE / "torch_step.py"), str(self.model), mode]
        return run([*step, "4", "256", str(self.options.steps), str(self.options.threads)])

    def against(self, row: Row) -> dict | None:
        """The second figure of a row."""
        if row.against is None:
            return None
        if row.against.startswith("forward "):
            return self.ours(("forward", "--base", row.against.split()[1], "--compute", "f32"))
        return self.torch(row.against)

    def row(self, row: Row, say: Callable[[str], None]) -> dict:
        """A row's pairs and the medians."""
        pairs = []
        for number in range(self.options.pairs):
            pair = {"ours": self.ours(row.ours)}
            if row.peer:
                pair["torch"] = self.torch(row.peer)
            against = self.against(row)
            if against:
                pair["against"] = against
            pairs.append(pair)
            say(f"{row.name} {number + 1}/{self.options.pairs}: " + "; ".join(f"{side} {brief(run)}" for side, run in pair.items()))
        return summary(row, pairs)


def run(command: list[str], may_miss: bool = False) -> dict:
    """The JSON object that a program prints; one that `may_miss` its own goal says so by exit code 1, after it printed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_TIMEOUT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"{command[0]}: {error}") from error
    missed = may_miss and done.returncode == 1 and "{" in done.stdout
    if done.returncode != 0 and not missed:
        raise BenchError(f"{' '.join(command)}\n  exit code {done.returncode}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout[done.stdout.index("{") :])


def brief(figures: dict) -> str:
    """A run in a few words."""
    return f"{figures['tokens_per_second']:.0f} tokens/s, {figures['peak_mib']:.0f} MiB"


def summary(row: Row, pairs: list[dict]) -> dict:
    """Medians of the figures and of the pairs' ratios."""
    figures: dict = {"title": row.title, "command": " ".join(row.ours), "torch_mode": row.peer, "against_mode": row.against, "pairs": pairs}
    median = lambda side, key: statistics.median(pair[side][key] for pair in pairs)
    ratio = lambda side, key: statistics.median(pair["ours"][key] / pair[side][key] for pair in pairs)
    for side in pairs[0]:
        figures[side] = {key: median(side, key) for key in ("tokens_per_second", "peak_mib", "loss")}
    for key in ("achieved_gflops", "roofline_gflops", "fraction_of_roofline"):
        figures["ours"][key] = median("ours", key)
    figures["peak_mib"] = figures["ours"]["peak_mib"]
    for side, suffix in (("torch", ""), ("against", "_against")):
        if side in pairs[0]:
            figures[f"speed{suffix}"] = ratio(side, "tokens_per_second")
            figures[f"memory{suffix}"] = ratio(side, "peak_mib")
    figures["limits"] = [
        {"figure": name, "relation": relation, "value": value, "met": figures[name] >= value if relation == ">=" else figures[name] <= value}
        for name, relation, value in row.limits
    ]
    return figures


# ---------------------------------------------------------------------------------------------------------------------
# The whole.
# ---------------------------------------------------------------------------------------------------------------------


def machine(threads: int) -> dict:
    """What the figures depend on; nothing that names the machine."""
    found: dict = {"cpu": platform.processor() or "unknown", "cores": os.cpu_count(), "threads": threads, "instructions": []}
    known = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8", "asimd")
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            found["cpu"] = value.strip()
        elif key.strip() in ("flags", "Features"):
            found["instructions"] = [name for name in known if name in value.split()]
            break
    meminfo = pathlib.Path("/proc/meminfo")
    if meminfo.is_file():
        found["memory_gib"] = round(int(meminfo.read_text().split()[1]) / 1024 / 1024)
    return found


def binary(path: pathlib.Path) -> str:
    """Enough of the file's digest to tell one build from another."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:12]


def origin(options: argparse.Namespace, beside_torch: bool) -> dict:
    """What figures are measured on and with."""
    found = {"machine": machine(options.threads), "binary": binary(options.fedpipe)}
    return found | ({"peer": versions(options.python)} if beside_torch else {})


def versions(python: pathlib.Path) -> dict:
    """The versions of the other side."""
    program = "import json,torch,transformers,peft;print(json.dumps({m.__name__: m.__version__ for m in (torch,transformers,peft)}))"
    return run([str(python), "-c", program])


def prepared(options: argparse.Namespace) -> pathlib.Path:
    """The model as float32 safetensors, which both sides load; made once."""
    if options.model.is_dir():
        return options.model
    folder = options.tools / "bench" / "smollm2-f32"
    if not (folder / "config.json").is_file():
        done = subprocess.run([str(options.python), str(HERE / "dequantize.py"), str(options.model), str(folder)], check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise BenchError(f"{options.model} cannot be dequantized: {done.stderr.strip()[-2000:]}")
    return folder


def arguments(words: list[str]) -> argparse.Namespace:
    """The command line."""
    tools = pathlib.Path(os.environ.get("FEDPIPE_TOOLS") or ROOT / ".tools")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", help="only these, separated by commas; --rows list shows them")
    parser.add_argument("--pairs", type=int, default=3, help="runs of each side (default 3)")
    parser.add_argument("--steps", type=int, default=5, help="measured steps of a run (default 5)")
    parser.add_argument("--threads", type=int, default=2, help="compute threads of both sides (default 2)")
    parser.add_argument("--fastest", default="bf16,bf16", metavar="BASE,COMPUTE", help="the fastest mode that keeps the loss")
    parser.add_argument("--fedpipe", type=pathlib.Path, default=ROOT / "target/release/fedpipe", help="our binary, a release build")
    parser.add_argument("--python", type=pathlib.Path, default=tools / "torch/bin/python", help="a Python with requirements.txt, for rows beside PyTorch")
    parser.add_argument("--model", type=pathlib.Path, help="GGUF file, or float32 folder")
    parser.add_argument("--tools", type=pathlib.Path, default=tools, help="where fetched and derived files lie")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results", help="where results go")
    options = parser.parse_args(words)
    options.model = options.model or options.tools / "models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf"
    return options


def chosen(options: argparse.Namespace) -> list[Row]:
    """The rows to measure."""
    base, _, compute = options.fastest.partition(",")
    known = rows((base, compute or base))
    if options.rows is None:
        return known
    wanted = options.rows.split(",")
    unknown = set(wanted) - {row.name for row in known}
    if unknown:
        raise BenchError(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(row.name for row in known)}")
    return [row for row in known if row.name in wanted]


def keep(results: dict, out: pathlib.Path) -> None:
    """Writes the results, after each row, so that what was measured survives an interruption. What an older file says of all of it
    goes with the last of what it is about."""
    told = [*results["rows"].values(), *filter(None, [results.get("curves")])]
    if all("on" in one for one in told):
        for name in ("machine", "peer", "steps"):
            results.pop(name, None)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=1) + "\n")


def main(words: list[str]) -> int:
    options = arguments(words)
    say = lambda text: print(f"bench: {text}", file=sys.stderr, flush=True)
    try:
        if options.rows == "list":
            print("\n".join(f"{row.name:15} {row.title}{'' if row.beside_torch else ' (without PyTorch)'}" for row in rows(("bf16", "bf16"))))
            return 0
        selection = chosen(options)
        out = options.out / "engine.json"
        results = json.loads(out.read_text()) if out.is_file() else {"rows": {}}
        on = origin(options, any(row.beside_torch for row in selection)) | {"steps": options.steps}
        for row in selection:
            bench = Bench(options, prepared(options) if row.beside_torch else options.model)
            results["rows"][row.name] = bench.row(row, say) | {"on": on}
            keep(results, out)
        page = table.page(results, [row.name for row in rows(("", ""))])
        (options.out / "engine.md").write_text(page)
        print(page)
    except (BenchError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    missed = [name for name, row in results["rows"].items() for limit in row["limits"] if not limit["met"]]
    if missed:
        say(f"below its limit: {', '.join(dict.fromkeys(missed))}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
