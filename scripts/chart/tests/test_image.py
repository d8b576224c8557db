"""The image's build: its commands run here, outside of a container, but for the compilation itself and the base's own programs.

A `cargo` that stands before the real one has it take the command as it is and tell what it would compile (its unit graph) instead of compiling
that, and lays the binary of this test run into the place of the compiled one. There is no container engine in this test: that the image
builds is not proven here.
"""

import contextlib
import fnmatch
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import helmchart  # noqa: E402
import live  # noqa: E402
from helmchart import ROOT  # noqa: E402

CARGO = """#!/bin/sh
# cargo {arguments} → every unit that would be compiled, and the binary that was.
[ "$*" = "build --release --locked --package fedpipe" ] || {{ echo "unexpected: cargo $*" >&2; exit 9; }}
RUSTC_BOOTSTRAP=1 "{cargo}" "$@" --offline -Z unstable-options --unit-graph >"{record}/$(basename "$PWD").units" || exit 1
mkdir -p target/release && ln -sf "{binary}" target/release/fedpipe
"""


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """(instruction, rest) of each line, continuations joined, comments left out."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile, flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def identity(unit: dict) -> str:
    """What tells a unit of the registry from others."""
    kept = ("pkg_id", "profile", "platform", "mode", "features")
    return json.dumps([unit[key] for key in kept] + [unit["target"][key] for key in ("name", "kind", "edition")], sort_keys=True)


def version(text: str) -> tuple[int, ...]:
    """Of which 2.100 is more than 2.34."""
    return tuple(map(int, text.split(".")))


def context(target: pathlib.Path) -> None:
    """What `docker build` would send: tracked and new files that .dockerignore lets through."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, timeout=20, check=True)
    ignored = [line for line in (ROOT / ".dockerignore").read_text().split("\n") if line and not line.startswith("#")]
    for name in listed.stdout.splitlines():
        parts = pathlib.PurePath(name).parts
        if any(fnmatch.fnmatch(parts[0], pattern) for pattern in ignored) or not (ROOT / name).is_file():
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)


class Build(unittest.TestCase):
    """The stages, each RUN in its folder, with /src, /skeleton and /image as folders of this test."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="fedpipe-image-")
        cls.addClassCleanup(folder.cleanup)
        cls.root = pathlib.Path(folder.name)
        cls.image, cls.skeleton = cls.root / "image", cls.root / "skeleton"
        cls.instructions = instructions((ROOT / "Dockerfile").read_text())
        cargo = cls.root / "bin/cargo"
        cargo.parent.mkdir()
        cargo.write_text(CARGO.format(arguments="…", cargo=shutil.which("cargo"), record=cls.root, binary=live.FEDPIPE.resolve()))
        cargo.chmod(0o755)
        # A binary for tests may ask for what a release does not.
        needed = subprocess.run([ROOT / "scripts/image/glibc.sh", live.FEDPIPE], capture_output=True, text=True, timeout=60, check=True)
        cls.needed = needed.stdout.strip()
        for stage, commands in cls.stages().items():
            cls.run_stage(stage, commands)

    @classmethod
    def stages(cls) -> dict[str, list[str]]:
        """Stage → its RUN commands, in the order of the file."""
        found, stage = {}, ""
        for word, rest in cls.instructions:
            if word == "FROM":
                stage = rest.split(" AS ")[-1]
            if word == "RUN":
                found.setdefault(stage, []).append(rest)
        return found

    @classmethod
    def run_stage(cls, stage: str, commands: list[str]) -> None:
        """Its files, then its commands."""
        source = cls.root / stage
        if stage == "dependencies":
            shutil.copytree(cls.skeleton, source)
        else:
            context(source)
        for command in commands:
            for inside, outside in (("/src", source), ("/skeleton", cls.skeleton), ("/image", cls.image)):
                command = re.sub(rf"(?<= ){inside}\b", str(outside), command)
            environment = {**os.environ, "PATH": f"{cls.root}/bin:{os.environ['PATH']}", "GLIBC": max(cls.needed, "2.34", key=version)}
            done = subprocess.run(["sh", "-c", command], cwd=source, env=environment, capture_output=True, text=True, timeout=60, check=False)
            if done.returncode != 0:
                raise AssertionError(f"{stage}: {command}\n{done.stdout}{done.stderr}")

    def test_each_stage_ran_what_the_dockerfile_says(self):
        self.assertEqual(list(self.stages()), ["manifests", "dependencies", "build"])

    def graph(self, stage: str) -> dict:
        """What cargo would compile in a stage."""
        return json.loads((self.root / f"{stage}.units").read_text())

    def test_what_is_compiled_of_the_skeleton_need_not_be_compiled_again(self):
        # The same package, features, profile and target: what cargo finds again.
        of_skeleton, of_sources = ({unit for unit in map(identity, self.graph(stage)["units"]) if "registry+" in unit} for stage in ("dependencies", "build"))
        self.assertEqual(of_skeleton, of_sources)
        self.assertGreater(len(of_sources), 300)

    def test_cargo_takes_the_command_and_finds_each_crate_of_ours(self):
        for stage in ("dependencies", "build"):
            graph = self.graph(stage)
            roots = [graph["units"][index] for index in graph["roots"]]
            self.assertEqual([(unit["target"]["name"], unit["target"]["kind"], unit["profile"]["name"]) for unit in roots], [("fedpipe", ["bin"], "release")])
            ours = {unit["target"]["name"]: pathlib.Path(unit["target"]["src_path"]) for unit in graph["units"] if "registry+" not in unit["pkg_id"]}
            self.assertLessEqual({"fedpipe", "engine", "api", "domain"}, ours.keys())
            for path in ours.values():
                self.assertTrue(path.is_relative_to(self.root / stage) and path.is_file(), path)

    def test_every_file_that_the_compilation_reads_is_sent_to_it(self):
        # rustc's own list, pages that are built in included: .dockerignore leaves none of them out.
        listed = live.FEDPIPE.resolve().with_suffix(".d").read_text().split(": ", 1)[1]
        read = [pathlib.Path(name.replace("\\ ", " ")) for name in re.split(r"(?<!\\) ", listed.strip())]
        ours = [path.relative_to(ROOT) for path in read if path.is_relative_to(ROOT) and path.is_file()]
        self.assertGreater(len(ours), 300)
        self.assertIn(".html", {path.suffix for path in ours})
        self.assertEqual([str(path) for path in ours if not (self.root / "build" / path).is_file()], [])

    def test_the_skeleton_changes_with_manifests_alone(self):
        files = sorted(path for path in self.skeleton.rglob("*") if path.is_file())
        names = {path.name for path in files}
        self.assertEqual(names, {"Cargo.toml", "Cargo.lock", "lib.rs", "main.rs"})
        self.assertLessEqual({path.read_text() for path in files if path.suffix == ".rs"}, {"", "fn main() {}\n"})

    def test_the_image_holds_what_it_needs_and_no_shell(self):
        programs = [path for path in self.image.rglob("*") if path.parent.name in ("bin", "sbin")]
        self.assertEqual([path.name for path in programs], ["fedpipe"])
        authorities = (self.image / "etc/ssl/certs/ca-certificates.crt").read_text()
        self.assertGreater(authorities.count("BEGIN CERTIFICATE"), 50)
        self.assertIn("65532", (self.image / "etc/passwd").read_text())

    def test_the_binary_starts_in_there_without_rights(self):
        with contextlib.ExitStack() as stack:
            port = live.free_port()
            command = [*inside(self.image), "planner", "--health-listen", f"127.0.0.1:{port}"]
            process = live.Process("planner", command, {}, self.root)
            stack.callback(process.kill)
            live.until("it lives", lambda: live.get(port, "/healthz")[0] == 200, process)
            self.assertIn("nats", live.reasons(port))

    def test_a_glibc_that_is_too_new_is_refused(self):
        done = subprocess.run([ROOT / "scripts/image/glibc.sh", live.FEDPIPE, "2.17"], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual((done.returncode, done.stdout.strip()), (1, self.needed))
        self.assertIn("newer than 2.17", done.stderr)


def inside(image: pathlib.Path) -> list[str]:
    """The command that starts the image's binary in there, without rights; where nobody may change the root, with the image's libraries alone."""
    if os.geteuid() == 0:
        return ["chroot", "--userspec=65532:65532", str(image), "/usr/bin/fedpipe"]
    namespace = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*namespace, "true"], capture_output=True, timeout=20, check=False).returncode == 0:
        return [*namespace, "chroot", str(image), "/usr/bin/fedpipe"]
    loader = next(image.glob("lib*/ld-linux*"))
    libraries = {str(path.parent) for path in image.glob("lib/**/*.so*")}
    return [str(loader), "--inhibit-cache", "--library-path", ":".join(sorted(libraries)), str(image / "usr/bin/fedpipe")]


class Dockerfile(unittest.TestCase):
    def test_hadolint_finds_nothing(self):
        done = subprocess.run([helmchart.TOOLS / "bin/hadolint", "--format", "json", ROOT / "Dockerfile"], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual((done.returncode, json.loads(done.stdout)), (0, []))

    def test_bases_are_pinned_and_the_user_has_no_rights(self):
        lines = instructions((ROOT / "Dockerfile").read_text())
        stages = {rest.split(" AS ")[-1] for word, rest in lines if word == "FROM"}
        bases = {rest.split(" AS ")[0] for word, rest in lines if word == "FROM"} - stages
        label = next(rest for word, rest in lines if word == "LABEL")
        for base in bases - {"scratch"}:
            self.assertRegex(base, r"^[a-z]+:\d+\.\d+\.\d+-[a-z-]+@sha256:[0-9a-f]{64}$")
            tag, digest = base.split("@")
            self.assertIn(f'image.base.name="docker.io/library/{tag}"', label)
            self.assertIn(f'image.base.digest="{digest}"', label)
        self.assertIn(("USER", "65532:65532"), lines)

    def test_the_image_states_what_the_build_checks(self):
        lines = instructions((ROOT / "Dockerfile").read_text())
        stated = {rest.split("=")[1] for word, rest in lines if word == "ARG" and rest.startswith("GLIBC")}
        self.assertEqual(len(stated), 1)
        labels = next(rest for word, rest in lines if word == "LABEL")
        for label in ("title", "description", "licenses", "version", "revision", "base.name"):
            self.assertIn(f"org.opencontainers.image.{label}=", labels)
        self.assertIn('fedpipe.glibc.minimum="${GLIBC}"', labels)

    def test_versions_agree(self):
        text = (ROOT / "Dockerfile").read_text()
        manifest = (ROOT / "Cargo.toml").read_text()
        version = re.search(r'^version = "(.*)"', manifest, re.MULTILINE).group(1)
        self.assertIn(f"ARG VERSION={version}\n", text)
        chart = helmchart.yaml.safe_load((helmchart.CHART / "Chart.yaml").read_text())
        self.assertEqual((chart["version"], chart["appVersion"]), (version, version))
        rust = re.search(r'rust-version = "(.*)"', manifest).group(1)
        self.assertIn(f"FROM rust:{rust}.", text)


if __name__ == "__main__":
    unittest.main()
