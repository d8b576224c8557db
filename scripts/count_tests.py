#!/usr/bin/env python3
"""Count the tests in a log of `./run test`, whichever runner wrote it: one line for the closing summary."""

import pathlib
import re
import sys


def count(log: str) -> str:
    """The counts of nextest's, libtest's and unittest's own summaries, added up."""
    log = re.sub(r"\x1b\[[0-9;]*m", "", log)
    passed = failed = skipped = 0
    for line in log.splitlines():
        nextest = re.match(r"\s*Summary \[[^\]]*\]\s+(?:\d+/)?\d+ tests? run: (.*)", line)
        libtest = re.match(r"test result: \w+\. (.*)", line)
        script = re.match(r"Ran (\d+) tests? in ", line)
        failure = re.match(r"FAILED \((.*)\)$", line)
        left_out = re.match(r"OK \((.*)\)$", line)
        words = (nextest or libtest or failure or left_out)
        words = words.group(1) if words else ""
        passed += number(words, r"(\d+) passed") + (int(script.group(1)) if script else 0)
        broken = sum(number(words, rf"(?:{kind})=(\d+)") for kind in ("failures", "errors")) if failure else 0
        passed -= broken
        failed += broken + number(words, r"(\d+) failed") + number(words, r"(\d+) timed out") + number(words, r"(\d+) exec failed")
        # unittest counts among those that ran what it skipped.
        passed -= number(words, r"skipped=(\d+)")
        skipped += number(words, r"skipped=(\d+)")
        skipped += number(words, r"(\d+) skipped") + number(words, r"(\d+) ignored")
    return f"{passed} tests passed, {failed} failed, {skipped} skipped"


def number(text: str, pattern: str) -> int:
    """The first number that the pattern finds, or 0."""
    found = re.search(pattern, text)
    return int(found.group(1)) if found else 0


def main(arguments: list[str]) -> int:
    print(count(pathlib.Path(arguments[0]).read_text(encoding="utf-8", errors="replace")))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
