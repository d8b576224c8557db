#!/usr/bin/env python3
"""Prove that the workspace's arrows point down, from `cargo metadata`.

Promises: every workspace crate is named below with what it may depend on; a crate that is not named is an error, so that a
new one gets its place on purpose; each outside system has its one gatekeeper crate. Dev-dependencies may also use testkit.
Does not: look inside crates. Transitive dependencies follow from the direct ones.
"""

import json
import subprocess
import sys

LIBS = {"domain", "contract", "bus", "artifacts", "engine", "chassis"}
SERVICES = {"api", "profiler", "planner", "worker", "aggregator"}

# What each workspace crate may depend on within the workspace.
MAY_USE: dict[str, set[str]] = {
    "domain": set(),
    "contract": {"domain"},
    "bus": {"domain", "contract"},
    "artifacts": {"domain", "contract"},
    "engine": {"domain"},
    "chassis": {"domain"},
    "testkit": LIBS,
    **{service: LIBS for service in SERVICES},
    "fedpipe": LIBS | SERVICES,
    "tests": LIBS | {"testkit"},
}

# Outside crates (a trailing * covers a family) and the only workspace crates that may name them.
GATEKEEPERS: dict[str, set[str]] = {
    # The black-box tests forge and repeat messages as an intruder would, below the bus's types.
    "async-nats": {"bus", "tests"},
    "object_store": {"artifacts"},
    "candle-*": {"engine"},
    "tokenizers": {"engine"},
}

# What the pure crates must not name: no runtime, no network, no clock, no randomness that is not seeded.
IMPURE = {"tokio", "tokio-util", "futures", "reqwest", "axum", "async-nats", "object_store", "rand", "getrandom", "jiff", "sysinfo"}
PURE = {"domain", "contract", "engine"}


def metadata() -> dict:
    """The workspace as cargo sees it."""
    command = ["cargo", "metadata", "--no-deps", "--format-version", "1"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def violations(packages: list[dict]) -> list[str]:
    """One sentence per arrow that points the wrong way."""
    ours = {package["name"] for package in packages}
    found = [f"{name}: not named in scripts/check_layering.py; give it its place there" for name in sorted(ours - set(MAY_USE))]
    for package in packages:
        name = package["name"]
        for dependency in package["dependencies"]:
            reason = wrong(name, dependency["name"], dependency.get("kind"), ours)
            if reason:
                found.append(f"{name} → {dependency['name']}: {reason}")
    return found


def wrong(name: str, used: str, kind: str | None, ours: set[str]) -> str | None:
    """Why the crate `name` may not use the crate `used`, if it may not."""
    if used in ours and used != name:
        if used == "testkit" and kind == "dev":
            return None
        if used == "testkit" and name != "tests":
            return "testkit is for tests: make it a dev-dependency"
        if used not in MAY_USE.get(name, set()):
            allowed = ", ".join(sorted(MAY_USE.get(name, set()))) or "no workspace crate"
            return f"arrows point down only; {name} may use {allowed}"
    for pattern, keepers in GATEKEEPERS.items():
        if matches(used, pattern) and name not in keepers:
            return f"only {' and '.join(sorted(keepers))} may name it"
    if name in PURE and used in IMPURE and kind != "dev":
        return f"{name} is synchronous and pure"
    return None


def matches(name: str, pattern: str) -> bool:
    """Whether a crate is the one named, or of the family."""
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def main() -> int:
    packages = metadata()["packages"]
    found = violations(packages)
    for sentence in found:
        print(f"layering: {sentence}", file=sys.stderr)
    if not found:
        print(f"layering: {len(packages)} crates, all arrows point down")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
