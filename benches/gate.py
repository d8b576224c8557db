#!/usr/bin/env python3
"""Whether a faster arithmetic may stand in for f32 in zeroth-order steps on SmolLM2-135M-Instruct: do slopes mean the same?

    benches/gate.py [--fedpipe target/release/fedpipe]

Writes gate.json and gate.md into --out, some ten minutes on two cores. What does not pass is a finding, by which the planner leaves
that arithmetic out for such steps, and no defect: exits with 1 only if a command fails.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Callable, Iterator

import engine

# What is compared with f32: each arithmetic on each base, at MeZO's distance for adapters and at the paper's.
BASES = ("source", "f32")
COMPUTES = ("bf16", "int8")
DISTANCES = ("1e-2", "1e-3")
# All that the slopes are taken on; told in full, so that a default that changes does not change the page.
COMMON = ("--rank", "16", "--targets", "all-linear", "--batch", "2", "--seq", "128", "--labelled", "32")


def main(words: list[str]) -> int:
    options = arguments(words)
    say = lambda text: print(f"bench: {text}", file=sys.stderr, flush=True)
    try:
        results = {"on": engine.origin(options, beside_torch=False), "rows": list(measured(options, say))}
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "gate.json").write_text(json.dumps(results, indent=1) + "\n")
        text = page(results)
        (options.out / "gate.md").write_text(text)
    except (engine.BenchError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(text)
    return 0


def arguments(words: list[str]) -> argparse.Namespace:
    defaults = engine.arguments([])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("fedpipe", "model", "out"):
        parser.add_argument(f"--{name}", type=pathlib.Path, default=getattr(defaults, name))
    parser.add_argument("--threads", type=int, default=defaults.threads)
    return parser.parse_args(words)


def measured(options: argparse.Namespace, say: Callable[[str], None]) -> Iterator[dict]:
    """Each comparison, as its command prints it, with what was asked for."""
    for base in BASES:
        for compute in COMPUTES:
            for distance in DISTANCES:
                asked = ("--base", base, "--compute", compute, "--perturbation", distance)
                beside = ("--model", str(options.model), "--threads", str(options.threads), "--json")
                found = engine.run([str(options.fedpipe), "bench", "zo-agreement", *asked, *COMMON, *beside])
                say(f"{base} base, {compute}, μ {distance}: signs {100 * found['signs']:.1f} %, off by {off(found)}")
                yield {"base": base, "compute": compute, "distance": distance} | found


# ---------------------------------------------------------------------------------------------------------------------
# The page.
# ---------------------------------------------------------------------------------------------------------------------


def page(results: dict) -> str:
    """All comparisons, the limits, and what follows."""
    rows, on = results["rows"], results["on"]
    machine, first = on["machine"], rows[0]
    lines = [
        "# Zeroth-order slopes in a faster arithmetic",
        "",
        f"Written by `benches/gate.py`. {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; {', '.join(machine['instructions'])}; "
        f"{machine['threads']} threads; binary {on['binary']}.",
        "SmolLM2-135M-Instruct, a fresh adapter, made-up records; each row is",
        "",
        f"    fedpipe bench zo-agreement --base BASE --compute ARITHMETIC --perturbation μ {' '.join(COMMON)}",
        "",
        f"A zeroth-order step goes by a small difference of two losses. A faster arithmetic may stand in for f32 if over {first['pairs']} pairs of seed and batch the",
        f"slope's sign is that in f32 in at least {100 * first['least_signs']:.0f} %, and the differences have a root mean square of at most "
        f"{100 * first['most_difference']:.0f} % of the slopes', at the job's μ.",
        "",
        "| base | arithmetic | μ | signs agree | off by | gate |",
        "|---|---|---|---|---|---|",
        *(line(row) for row in rows),
        "",
        verdict(rows),
    ]
    return "\n".join(lines) + "\n"


def line(row: dict) -> str:
    """One comparison."""
    said = "passes" if row["passes"] else f"does not pass: {', '.join(missed(row))}"
    return f"| `{row['base']}` | `{row['compute']}` ({row['kernel']}) | {row['distance']} | {100 * row['signs']:.1f} % | {off(row)} | {said} |"


def missed(row: dict) -> list[str]:
    """What a comparison fails by."""
    difference = row["difference"]
    failed = [("signs", row["signs"] < row["least_signs"]), ("size", difference is None or difference > row["most_difference"])]
    return [what for what, is_missed in failed if is_missed]


def off(row: dict) -> str:
    """The relative root mean square of the differences, where it is a number."""
    return "no number" if row["difference"] is None else f"{100 * row['difference']:.1f} %"


def verdict(rows: list[dict]) -> str:
    """Which arithmetics pass on every base and at every distance that was measured; a planner that knows neither needs no less."""
    through = [compute for compute in COMPUTES if all(row["passes"] for row in rows if row["compute"] == compute)]
    some = [compute for compute in COMPUTES if compute not in through and any(row["passes"] for row in rows if row["compute"] == compute)]
    said = [f"On this model and machine {', '.join(f'`{name}`' for name in through) or 'no faster arithmetic'} passes on every base at every μ."]
    if some:
        said.append(f"{', '.join(f'`{name}`' for name in some)} passes in some rows alone, which is not enough to be offered.")
    return " ".join([*said, "The planner plans zeroth-order steps in f32 alone."])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
