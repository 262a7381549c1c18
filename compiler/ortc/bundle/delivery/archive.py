"""Archives of bundles: the same bundle gives the same bytes, on any machine."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ortc.bundle.manifest import Manifest
from ortc.common.plain_files import open_plain


class Writable(Protocol):
    """What takes bytes."""

    def write(self, data: bytes, /) -> int:
        """Take some bytes; returns how many."""


class Digesting(io.RawIOBase):
    """A stream that hashes and counts what goes through to another one."""

    def __init__(self, stream: Writable) -> None:
        super().__init__()
        self._stream = stream
        self._hash = hashlib.sha256()
        self.bytes = 0

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        """Pass bytes on."""
        self._hash.update(data)
        self.bytes += len(data)
        return self._stream.write(data)

    @property
    def sha256(self) -> str:
        """The digest of what went through."""
        return self._hash.hexdigest()


def write_tar(stream: Writable, places: Mapping[str, Path], *, prefix: str, stamp: int) -> tuple[str, int]:
    """Write files as an uncompressed tar, and tell its sha256 and bytes.

    Names are in order, and owners, times and modes those of the format, not of a machine. Not compressed: the bytes of
    a compressor differ between its versions, and weights hardly shrink.

    Args:
        stream: where to.
        places: where each file lies, by its path in the archive.
        prefix: a directory that everything goes into; its own entries come first.
        stamp: modification time, in seconds since the epoch.
    """
    out = Digesting(stream)
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        known: set[str] = set()
        for path in sorted(places):
            name = f"{prefix}/{path}"
            parts = name.split("/")
            for depth in range(1, len(parts)):
                directory = "/".join(parts[:depth])
                if directory not in known:
                    known.add(directory)
                    archive.addfile(_entry(directory, stamp, directory=True))
            entry = _entry(name, stamp)
            with open_plain(places[path]) as content:
                entry.size = places[path].stat().st_size
                archive.addfile(entry, content)
    return out.sha256, out.bytes


def _entry(name: str, stamp: int, *, directory: bool = False) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = tarfile.DIRTYPE if directory else tarfile.REGTYPE
    entry.mode = 0o755 if directory else 0o644
    entry.mtime = stamp
    return entry


def label(manifest: Manifest) -> str:
    """The name of a bundle's archive, without a suffix."""
    return f"{manifest.name}-{manifest.version}-{manifest.target}"
