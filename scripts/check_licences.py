#!/usr/bin/env python3
"""Hold the dependency tree to deny.toml with python3 alone, for machines without cargo-deny.

Promises: every crate's licence expression can be met with the allowed licences; no banned crate is in the tree; crates that
must be single are; everything comes from an allowed registry. Prints how many crates stand there in several versions.
Does not: read licence texts, or know advisories (`cargo deny check` does both).
"""

import json
import pathlib
import re
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent


def packages() -> list[dict]:
    """What is compiled for this machine, ours and others'. Other platforms' crates would have to be downloaded."""
    version = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    host = re.search(r"^host: (\S+)$", version, re.MULTILINE)
    platform = ["--filter-platform", host.group(1)] if host else []
    command = ["cargo", "metadata", "--format-version", "1", *platform]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)["packages"]


def violations(crates: list[dict], rules: dict) -> list[str]:
    """One sentence per crate that breaks a rule."""
    foreign = [crate for crate in crates if crate["source"]]
    allowed = set(rules["licenses"]["allow"])
    registries = {f"registry+{url}" for url in rules["sources"]["allow-registry"]}
    found = []
    for crate in foreign:
        label = f"{crate['name']} {crate['version']}"
        if not satisfied(crate["license"] or "", allowed):
            found.append(f"{label}: licence {crate['license'] or 'not stated'} is not among those allowed in deny.toml")
        if crate["source"] not in registries:
            found.append(f"{label}: comes from {crate['source']}")
    versions = versions_by_name(foreign)
    for ban in rules["bans"]["deny"]:
        present = versions.get(ban["crate"], [])
        if ban.get("deny-multiple-versions"):
            if len(present) > 1:
                found.append(f"{ban['crate']}: in versions {', '.join(present)}: {ban['reason']}")
        elif present:
            found.append(f"{ban['crate']} {', '.join(present)}: {ban['reason']}")
    return found


def versions_by_name(crates: list[dict]) -> dict[str, list[str]]:
    """Name → the versions of it in the tree."""
    found: dict[str, list[str]] = {}
    for crate in crates:
        found.setdefault(crate["name"], []).append(crate["version"])
    return found


def satisfied(expression: str, allowed: set[str]) -> bool:
    """Whether an SPDX expression (or the old form with `/` for OR) can be met with the allowed licences."""
    tokens = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))
    if not tokens:
        return False
    value, rest = alternatives(tokens, allowed)
    return value and not rest


def alternatives(tokens: list[str], allowed: set[str]) -> tuple[bool, list[str]]:
    """`a OR b …`: AND binds tighter."""
    value, tokens = conjunction(tokens, allowed)
    while tokens and tokens[0] == "OR":
        right, tokens = conjunction(tokens[1:], allowed)
        value = value or right
    return value, tokens


def conjunction(tokens: list[str], allowed: set[str]) -> tuple[bool, list[str]]:
    """`a AND b …`."""
    value, tokens = single(tokens, allowed)
    while tokens and tokens[0] == "AND":
        right, tokens = single(tokens[1:], allowed)
        value = value and right
    return value, tokens


def single(tokens: list[str], allowed: set[str]) -> tuple[bool, list[str]]:
    """One licence, one licence WITH an exception, or an expression in brackets. Nonsense is not allowed."""
    if not tokens:
        return False, []
    if tokens[0] == "(":
        value, tokens = alternatives(tokens[1:], allowed)
        return (value, tokens[1:]) if tokens[:1] == [")"] else (False, tokens)
    if tokens[1:2] == ["WITH"]:
        return " ".join(tokens[:3]) in allowed, tokens[3:]
    return tokens[0] in allowed, tokens[1:]


def main() -> int:
    rules = tomllib.loads((ROOT / "deny.toml").read_text(encoding="utf-8"))
    crates = packages()
    found = violations(crates, rules)
    for sentence in found:
        print(f"licences: {sentence}", file=sys.stderr)
    several = {name: versions for name, versions in versions_by_name(crates).items() if len(versions) > 1}
    print(f"licences: {len(crates)} crates, {len(several)} in several versions: {', '.join(sorted(several)) or 'none'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
