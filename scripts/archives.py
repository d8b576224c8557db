"""The files in an archive, whatever kind it is: a wheel, a tarball, a Debian package.

Promises: names are those in the archive, without a leading `./`; nothing is written.
"""

import io
import pathlib
import tarfile
import zipfile
from collections.abc import Iterator


class Unreadable(Exception):
    """The file is not what its name says."""


def members(archive: pathlib.Path) -> Iterator[tuple[str, object]]:
    """Name and open stream of each file in a wheel, a tarball or a Debian package."""
    if archive.suffix == ".deb":
        with tarfile.open(fileobj=io.BytesIO(debian_data(archive))) as bundle:
            for entry in bundle:
                if entry.isfile():
                    yield entry.name.removeprefix("./"), bundle.extractfile(entry)
    elif archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as bundle:
            for info in bundle.infolist():
                if not info.is_dir():
                    with bundle.open(info) as stream:
                        yield info.filename, stream
                    if info.filename.endswith(".zip"):
                        yield from zipped(info.filename, bundle.read(info))
    else:
        with tarfile.open(archive) as bundle:
            for entry in bundle:
                if entry.isfile():
                    yield entry.name, bundle.extractfile(entry)


def zipped(name: str, content: bytes) -> Iterator[tuple[str, object]]:
    """The files of an archive within the archive, each as `NAME!/FILE`."""
    with zipfile.ZipFile(io.BytesIO(content)) as bundle:
        for info in bundle.infolist():
            if not info.is_dir():
                with bundle.open(info) as stream:
                    yield f"{name}!/{info.filename}", stream


def debian_data(archive: pathlib.Path) -> bytes:
    """The tarball with the files of a Debian package: a member of an `ar` archive, whose headers are 60 letters."""
    content, at = archive.read_bytes(), 8
    while content[:8] == b"!<arch>\n" and at + 60 <= len(content):
        name, length = content[at : at + 16].decode(errors="replace").strip().rstrip("/"), content[at + 48 : at + 58]
        begin = at + 60
        end = begin + int(length)
        if name.startswith("data.tar"):
            return content[begin:end]
        at = end + end % 2
    raise Unreadable(f"{archive.name} is no Debian package")
