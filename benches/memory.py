#!/usr/bin/env python3
"""Predicted memory beside the measured peak, over the modes of a training step on SmolLM2-135M-Instruct.

    benches/memory.py [--fedpipe target/release/fedpipe]

Prints the table of docs/engine.md and fails if a prediction is off by more than 15 %.
"""

import argparse
import pathlib
import sys

import engine

LIMIT = 0.15
MODES = (
    ("train", "--base", "f32", "--compute", "f32"),
    ("train", "--base", "f32", "--compute", "f32", "--checkpoint"),
    ("train", "--base", "f32", "--compute", "f32", "--checkpoint", "--batch", "1", "--seq", "2048"),
    ("train", "--base", "f32", "--compute", "f32", "--optimizer", "mezo"),
    ("train", "--base", "f32", "--compute", "f32", "--optimizer", "mezo", "--parameters", "all"),
    ("train", "--base", "bf16", "--compute", "bf16"),
    ("train", "--base", "int8", "--compute", "int8", "--rank", "4"),
    ("train", "--base", "nf4", "--compute", "bf16", "--checkpoint"),
    ("train", "--base", "nf4", "--compute", "f32", "--optimizer", "mezo"),
    ("train", "--base", "nf4", "--compute", "bf16", "--batch", "1", "--targets", "attention"),
    ("forward", "--base", "nf4", "--compute", "f32"),
    ("forward", "--base", "f32", "--compute", "f32"),
)


def main(words: list[str]) -> int:
    defaults = engine.arguments([])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("fedpipe", "python", "model", "tools"):
        parser.add_argument(f"--{name}", type=pathlib.Path, default=getattr(defaults, name))
    options = parser.parse_args(words)
    options.steps, options.threads = 2, 2
    off = []
    print("| `fedpipe bench …` | predicted MiB | measured MiB | off by |\n|---|---|---|---|")
    try:
        bench = engine.Bench(options, engine.prepared(options))
        for mode in MODES:
            figures = bench.ours(mode)
            predicted, measured = figures["predicted_mib"], figures["peak_mib"]
            error = predicted / measured - 1
            print(f"| `{' '.join(mode)}` | {predicted:.0f} | {measured:.0f} | {100 * error:+.0f} % |", flush=True)
            if abs(error) > LIMIT:
                off.append(" ".join(mode))
    except (engine.BenchError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if off:
        print(f"bench: off by more than {LIMIT:.0%}: {'; '.join(off)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
