"""Files of npm packages: fetched by npm, compared with their pinned digests, kept like runtime environments."""

from __future__ import annotations

import base64
import hashlib
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from ortc.common.digests import sha256_file
from ortc.common.errors import StageError
from ortc.common.values import digest
from ortc.execution.runtime_environment import MARKER, kept, run_tool

CLIENT = "npm"


class PinnedFiles(NamedTuple):
    """Some files of a package at one version: the integrity of its archive, and sha256 by path in the package."""

    name: str
    version: str
    integrity: str
    files: Mapping[str, str]


def package_place(pinned: PinnedFiles, root: Path) -> tuple[Path, bool]:
    """Where the files of a package are or will be, and whether they are there."""
    place = root / digest([pinned.name, pinned.version, pinned.integrity, dict(pinned.files)])[:24]
    return place, (place / MARKER).is_file()


def package_files(pinned: PinnedFiles, root: Path, on_make: Callable[[], None] | None = None) -> Path:
    """A cached directory with the pinned files of a package, by their paths in it.

    Args:
        pinned: what to fetch.
        root: directory that holds the environments.
        on_make: called when the package has to be fetched.

    Raises:
        StageError: npm is missing or cannot fetch the package, or a digest differs.
    """
    place, _ = package_place(pinned, root)
    kept(place, lambda directory: _make(pinned, directory), on_make)
    for path, sha256 in pinned.files.items():
        if sha256_file(place / path) != sha256:
            raise StageError(
                f"{place / path} is not as it was fetched: its sha256 is not {sha256}",
                help=f"remove {place} and build again",
            )
    return place


def _make(pinned: PinnedFiles, place: Path) -> None:
    named = f"{pinned.name}@{pinned.version}"
    if shutil.which(CLIENT) is None:
        raise StageError(
            f"{named} cannot be fetched: there is no npm on this machine",
            help="install it (Debian and Ubuntu: apt-get install npm); later builds use the cached files",
        )
    with tempfile.TemporaryDirectory(prefix="ortc-npm-") as scratch:
        run_tool(
            [CLIENT, "pack", "--silent", "--ignore-scripts", "--pack-destination", scratch, named],
            f"fetch {named}",
            help="the npm registry must be reachable the first time; later builds use the cached files",
        )
        archive = next(Path(scratch).glob("*.tgz"), None)
        if archive is None:
            raise StageError(f"npm fetched no archive of {named}", help="try `npm pack` by hand")
        check_integrity(archive, pinned)
        _unpack(archive, pinned, place)


def check_integrity(archive: Path, pinned: PinnedFiles) -> None:
    """Compare an archive with the pinned integrity.

    Raises:
        StageError: it is another one.
    """
    with archive.open("rb") as stream:
        content = hashlib.file_digest(stream, "sha512").digest()
    found = f"sha512-{base64.b64encode(content).decode()}"
    if found != pinned.integrity:
        raise StageError(
            f"the archive of {pinned.name}@{pinned.version} has the integrity {found}, expected {pinned.integrity}",
            help="the registry or a proxy serves another archive: use the public registry or a faithful mirror of it",
        )


def _unpack(archive: Path, pinned: PinnedFiles, place: Path) -> None:
    """Write the pinned files of an archive, whose members lie in one directory."""
    with tarfile.open(archive) as tar:
        members = {member.name.partition("/")[2]: member for member in tar if member.isfile()}
        for path, sha256 in pinned.files.items():
            stream = tar.extractfile(members[path]) if path in members else None
            content = b"" if stream is None else stream.read()
            if hashlib.sha256(content).hexdigest() != sha256:
                raise StageError(f"{path} of {pinned.name}@{pinned.version} is not the pinned file: expected {sha256}")
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_bytes(content)
