#!/usr/bin/env python3
"""Generated files are committed, and equal what the binary generates now.

Promises: each file in GENERATED is compared byte for byte; `--fix` writes it instead. To add one, add a row.
Does not: build the binary (`./run check` does, before).

    scripts/check_drift.py --fedpipe target/debug/fedpipe [--fix]
"""

import argparse
import difflib
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TIMEOUT_SECONDS = 60
SHOWN_LINES = 20

# File → the arguments of `fedpipe` that print it.
GENERATED: dict[str, list[str]] = {
    "docs/openapi.json": ["openapi"],
    "docs/api.md": ["routes"],
    "docs/messages.md": ["messages"],
    "docs/metrics.md": ["metrics"],
    "docs/nats-permissions.conf": ["nats-permissions"],
    "docs/rules.md": ["rules"],
}


def generate(fedpipe: str, arguments: list[str]) -> bytes:
    """What the binary prints."""
    done = subprocess.run([fedpipe, *arguments], capture_output=True, timeout=TIMEOUT_SECONDS, check=False)
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        raise RuntimeError(f"`fedpipe {' '.join(arguments)}` failed: {' / '.join(words[:3])}")
    return done.stdout


def difference(path: str, committed: bytes, generated: bytes) -> str:
    """The first lines of the difference, for people."""
    lines = difflib.unified_diff(
        committed.decode(errors="replace").splitlines(),
        generated.decode(errors="replace").splitlines(),
        f"{path} (committed)",
        f"{path} (generated)",
        lineterm="",
    )
    return "\n".join(list(lines)[:SHOWN_LINES])


def check(root: pathlib.Path, fedpipe: str, fix: bool) -> list[str]:
    """One sentence per file that drifted; with `fix`, they are written and only failures remain."""
    found = []
    for path, arguments in GENERATED.items():
        target = root / path
        try:
            generated = generate(fedpipe, arguments)
        except (OSError, subprocess.TimeoutExpired, RuntimeError) as error:
            found.append(f"{path}: {error}")
            continue
        committed = target.read_bytes() if target.is_file() else None
        if committed == generated:
            continue
        if fix:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(generated)
            print(f"drift: {path} written")
        elif committed is None:
            found.append(f"{path}: missing; `./run check --fix` writes it")
        else:
            found.append(f"{path}: not what the binary generates; `./run check --fix` writes it\n{difference(path, committed, generated)}")
    return found


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fedpipe", required=True, help="the binary")
    parser.add_argument("--fix", action="store_true", help="write the files instead of comparing them")
    options = parser.parse_args(arguments)
    found = check(ROOT, options.fedpipe, options.fix)
    for sentence in found:
        print(f"drift: {sentence}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
