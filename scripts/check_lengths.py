#!/usr/bin/env python3
"""No source file is longer than 500 lines; about 150 is the habit. A file that has two reasons to exist is two files."""

import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIMIT = 500
SKIPPED = {"target", "out", "node_modules"}
SUFFIXES = {".rs", ".py", ".sh", ".html", ".css", ".js", ".mjs"}


def sources(root: pathlib.Path) -> list[pathlib.Path]:
    """Every source file that is not built, fetched or hidden."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in SKIPPED and not name.startswith("."))
        found += [pathlib.Path(folder, name) for name in sorted(files) if pathlib.Path(name).suffix in SUFFIXES]
    return found


def too_long(root: pathlib.Path) -> list[str]:
    """One sentence per file beyond the limit."""
    found = []
    for path in sources(root):
        lines = path.read_bytes().count(b"\n")
        if lines > LIMIT:
            found.append(f"{path.relative_to(root)}: {lines} lines; {LIMIT} is the end")
    return found


def main() -> int:
    found = too_long(ROOT)
    for sentence in found:
        print(f"lengths: {sentence}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
