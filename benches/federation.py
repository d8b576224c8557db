#!/usr/bin/env python3
"""The planner and the merging rules: seconds, memory, error, and how well the cost model predicts.

    benches/federation.py [--parts plan,validate,rules,scale] [--fedpipe target/release/fedpipe]

Writes federation.json and federation.md into --out; parts that are left out keep the figures of the run before, and
what they were measured on. Every figure is printed by a command that stands beside it. Exits with 1 if a limit is missed.
"""

import argparse
import json
import pathlib
import statistics
import sys

import engine

REPEATS = 3
# Rules that average and do not decompose.
AVERAGING = ("ffa", "slice", "fedit", "sum")
# Rules that decompose all that the others drop: slow enough to be run once.
DECOMPOSING = ("stack", "residual")
EXACT = "`stack` and `residual` keep what the others drop and decompose it: memory is promised of them, speed is not, and they are run once."
# The sizes compared.
FEW, MANY = 8, 512
# Fewer configurations than this show nothing of the cost model.
LEAST = 12
PLAN = ("plan", "--workers", "10,100,1000,10000", "--json")
RULES = ("aggregate", "--workers", "8", "--ranks", "4,8,16", "--json")
SCALE = ("aggregate", "--ranks", "16", "--json", "--rules")
VALIDATE = ("plan", "--validate", "--json")
PARTS = ("plan", "validate", "rules", "scale")


def main(words: list[str]) -> int:
    options = arguments(words)
    out = options.out / "federation.json"
    results = json.loads(out.read_text()) if out.is_file() else {}
    try:
        here = {"machine": engine.machine(options.threads), "binary": engine.binary(options.fedpipe)}
        for part in options.parts.split(","):
            print(f"bench: {part} …", flush=True)
            results[part] = measured(part, options.fedpipe, options.model)
            results.setdefault("on", {})[part] = here
            if results["on"].keys() >= results.keys() & set(PARTS):
                results.pop("machine", None)  # an older file's, of which no part is left
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(results, indent=1) + "\n")
    except (engine.BenchError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    text, missed = page(results)
    out.with_suffix(".md").write_text(text)
    print(text)
    for miss in missed:
        print(f"bench: missed: {miss}", file=sys.stderr)
    return 1 if missed else 0


def arguments(words: list[str]) -> argparse.Namespace:
    defaults = engine.arguments([])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help="only these, separated by commas")
    for name in ("fedpipe", "model", "out"):
        parser.add_argument(f"--{name}", type=pathlib.Path, default=getattr(defaults, name))
    options = parser.parse_args(words)
    unknown = set(options.parts.split(",")) - set(PARTS)
    if unknown:
        parser.error(f"there is no part {', '.join(sorted(unknown))}: use {', '.join(PARTS)}")
    options.threads = defaults.threads
    return options


def measured(part: str, fedpipe: pathlib.Path, model: pathlib.Path) -> dict | list:
    """One part, as its command prints it; where speed counts the repetition of median speed."""

    def bench(*words: str, may_miss: bool = False) -> dict:
        return engine.run([str(fedpipe), "bench", *words], may_miss)

    if part == "plan":
        return median([bench(*PLAN) for _ in range(REPEATS)], lambda run: run["sizes"][2]["seconds"])
    if part == "validate":
        return bench(*VALIDATE, "--model", str(model), may_miss=True)
    if part == "rules":
        return bench(*RULES, "--model", str(model))
    sizes = {}
    for workers in (FEW, MANY):
        merge = lambda names, workers=workers: bench(*SCALE, ",".join(names), "--workers", str(workers), "--model", str(model))
        runs = [merge(("product", *AVERAGING)) for _ in range(REPEATS)]
        found = median(runs, lambda run: run["rules"][0]["seconds"])
        sizes[str(workers)] = found | {"rules": found["rules"] + merge(DECOMPOSING)["rules"]}
    return sizes


def median(runs: list[dict], key) -> dict:
    """The run in the middle."""
    middle = statistics.median_low([key(run) for run in runs])
    return next(run for run in runs if key(run) == middle)


# ---------------------------------------------------------------------------------------------------------------------
# The page.
# ---------------------------------------------------------------------------------------------------------------------


def page(results: dict) -> tuple[str, list[str]]:
    """The page, and what is missed."""
    on, missed = origins(results), []
    same = len(set(on.values())) == 1

    def limit(what: str, met: bool) -> str:
        if not met:
            missed.append(what)
        return f"{what}: {'met' if met else 'missed'}"

    lines = [
        "# The planner and the merging rules",
        "",
        f"Written by `benches/federation.py`. {next(iter(on.values())) if same else 'Each section says on what it was measured'}. Weights of",
        f"SmolLM2-135M-Instruct. Where speed counts, the median of {REPEATS} runs.",
    ]
    makers = (("plan", plan), ("validate", validation), ("rules", rules), ("scale", scale))
    for name, make in makers:
        if name in results:
            heading, *rest = make(results[name], limit)
            lines += ["", heading, *([] if same else ["", f"Measured on: {on[name]}."]), *rest]
    return "\n".join(lines) + "\n", missed


def origins(results: dict) -> dict[str, str]:
    """What each part was measured on. Older files say no more than the machine of their last run."""
    found = {}
    for name in PARTS:
        if name in results:
            own = results.get("on", {}).get(name) or {"machine": results["machine"]}
            machine, build = own["machine"], own.get("binary", "not recorded")
            found[name] = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; binary {build}"
    return found


def plan(found: dict, limit) -> list[str]:
    rows = [
        f"| {row['workers']} | {row['planned']} | {row['seconds']:.3f} | {row['profiles_mib']:.1f} | {row['peak_mib']:.1f} |"
        for row in found["sizes"]
    ]
    thousand = next(row for row in found["sizes"] if row["workers"] == 1000)
    one = found["one_worker"]
    return [
        f"## Planning: `fedpipe bench {' '.join(PLAN)}`",
        "",
        "| workers | planned | seconds | MiB of profiles | MiB at the peak |",
        "|---|---|---|---|---|",
        *rows,
        "",
        f"{limit('1000 workers in 1 s', thousand['seconds'] < 1.0)}; {limit('in 200 MB', thousand['peak_mib'] * 1.048576 < 200)}.",
        f"One worker: exactly in {1000 * one['exact_seconds']:.1f} ms, fast in {1000 * one['fast_seconds']:.1f} ms, whose objective is "
        f"{one['fast_share_of_exact']:.6f} of the exact one.",
    ]


def validation(found: dict, limit) -> list[str]:
    rows = []
    for row in found["validated"]:
        mode = f"{row['base']}, {row['kernel']}, {row['optimizer']}{', checkpointing' if row['checkpoint'] else ''}"
        shape = f"{row['rank']} | {row['batch']} | {row['sequence_length']} | {row['beyond_probed']:.1f}"
        time = f"{row['predicted_seconds']:.3f} | {row['measured_seconds']:.3f} | {100 * row['time_error']:+.0f} % | {row['pace']:.2f}"
        memory = f"{row['predicted_mib']:.0f} | {row['measured_mib']:.0f} | {100 * row['memory_error']:+.0f} %"
        rows.append(f"| {mode} | {shape} | {time} | {memory} |")
    time, memory = (abs(found[f"worst_{what}"]) for what in ("time_error", "memory_error"))
    measured = len(rows)
    verdicts = [limit(f"at least {LEAST} configurations", measured >= LEAST) + f" ({measured} of {found.get('asked', measured)})"]
    if rows:  # the worst of none is no figure
        verdicts += [
            limit("step times within 15 %", time <= 0.15) + f" ({100 * time:.0f} %)",
            limit("peaks within 10 %", memory <= 0.10) + f" ({100 * memory:.0f} %)",
        ]
    return [
        f"## Predictions: `fedpipe bench {' '.join(VALIDATE)}`",
        "",
        "| mode | rank | batch | sequence | of the largest probed step | step predicted, s | measured | off by | pace | MiB predicted | measured | off by |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        "; ".join(verdicts) + ".",
        "Pace: the largest probed step made again beside each case, over what the model says of it: what the machine itself changed since the probe. Far from 1, the machine was not quiet.",
    ]


def rules(found: dict, limit) -> list[str]:
    rows = [
        f"| `{row['rule']}` | {', '.join(map(str, row['ranks']))} | {row['error']:.1e} | {row['dropped_energy']:.2g} | {row['side_slices']} | "
        f"{row['seconds']:.2f} | {row['bytes_per_second'] / 1e6:.0f} | {row['peak_mib']:.0f} |"
        for row in found["rules"]
    ]
    return [
        f"## Rules against the mean of the changes: `fedpipe bench {' '.join(RULES)}`",
        "",
        "| rule | ranks | error | energy dropped | side slices | seconds | MB/s | MiB |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        "Rules that cannot merge uneven ranks got the largest for all. The error of `product` is what its kept rank leaves out.",
    ]


def scale(found: dict, limit) -> list[str]:
    few = {row["rule"]: row for row in found[str(FEW)]["rules"]}
    rows = []
    for row in found[str(MANY)]["rules"]:
        name, before = row["rule"], few[row["rule"]]
        wanted = None if name in DECOMPOSING else 500 if name in AVERAGING else 100
        speed, growth = row["bytes_per_second"] / 1e6, row["peak_mib"] / before["peak_mib"]
        limits = [limit(f"{name} at {wanted} MB/s", speed >= wanted)] if wanted else []
        limits += [
            limit(f"{name} within 10 % of the memory for {FEW}", growth <= 1.10),
            limit(f"{name} in 400 MB", row["peak_mib"] * 1.048576 < 400),
        ]
        rows.append(f"| `{name}` | {speed:.0f} | {before['peak_mib']:.0f} | {row['peak_mib']:.0f} | {'; '.join(limits)} |")
    names = ",".join(few)
    return [
        f"## {MANY} updates of rank 16, one thread: `fedpipe bench {' '.join(SCALE)} {names} --workers {FEW}` and `{MANY}`",
        "",
        f"| rule | MB/s of updates | MiB for {FEW} | MiB for {MANY} | wanted |",
        "|---|---|---|---|---|",
        *rows,
        *(["", EXACT] if set(DECOMPOSING) <= few.keys() else []),
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
