"""Put a finished bundle into place: all of it or nothing, and never without the one before."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock

from ortc.bundle.manifest import COMPANIONS, LAST_STAMP, MEASUREMENTS, PROVENANCE, STAMP, FileInfo, Manifest, to_json
from ortc.common.digests import sha256_file
from ortc.common.disk import full, is_full
from ortc.common.errors import StageError
from ortc.common.file_locks import make_lock_file
from ortc.common.plain_files import read_plain, read_plain_text
from ortc.common.texts import shown
from ortc.execution.ownership import within_umask

_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


def stamp() -> int:
    """Modification time of published files, in seconds since the epoch: $SOURCE_DATE_EPOCH, or 1980-01-01.

    Raises:
        StageError: SOURCE_DATE_EPOCH is not a number, or beyond the year 9999.
    """
    value = os.environ.get("SOURCE_DATE_EPOCH")
    if value is None:
        return STAMP
    if not (value.isdecimal() and value.isascii() and len(value) < 20 and int(value) <= LAST_STAMP):
        raise StageError(f"SOURCE_DATE_EPOCH is `{shown(value)}`, not a number of seconds from 0 to {LAST_STAMP}")
    return int(value)


def seal(directory: Path, manifest: Manifest) -> Manifest:
    """Write manifest.json and SHA256SUMS over the files of a directory, and set every file's time to the stamp.

    Returns the manifest with its list of files.
    """
    skipped = {"manifest.json", "SHA256SUMS"}
    files = tuple(
        FileInfo(path=path, sha256=sha256_file(directory / path), bytes=(directory / path).stat().st_size)
        for path in sorted(str(file.relative_to(directory)) for file in directory.rglob("*") if file.is_file())
        if path not in skipped and path.partition("/")[0] not in COMPANIONS
    )
    manifest = manifest.model_copy(update={"files": files})
    (directory / "manifest.json").write_text(to_json(manifest), "utf-8")
    sums = {file.path: file.sha256 for file in files} | {"manifest.json": sha256_file(directory / "manifest.json")}
    (directory / "SHA256SUMS").write_text("".join(f"{sums[path]}  {path}\n" for path in sorted(sums)), "utf-8")
    for file in directory.rglob("*"):
        file.chmod(within_umask(0o755 if file.is_dir() else 0o644))
        os.utime(file, (manifest.stamp, manifest.stamp))
    directory.chmod(within_umask(0o755))
    return manifest


def is_intact(place: Path, sums: str) -> bool:
    """Whether a published bundle is the one whose SHA256SUMS has this digest, by its files' names, sizes and times.

    Args:
        place: where the bundle lies, or not.
        sums: sha256 of its SHA256SUMS.
    """
    try:
        if sha256_file(place / "SHA256SUMS") != sums:
            return False
        manifest = Manifest.model_validate_json(read_plain(place / "manifest.json"))
        listed = read_plain_text(place / "SHA256SUMS").splitlines()
        if f"{sha256_file(place / 'manifest.json')}  manifest.json" not in listed:
            return False
        if not any((place / MEASUREMENTS).iterdir()) or not (place / PROVENANCE).is_file():
            return False
        found = {str(file.relative_to(place)): file.stat() for file in place.rglob("*") if file.is_file()}
    except (OSError, ValueError):
        return False
    expected = {"manifest.json", "SHA256SUMS", *(file.path for file in manifest.files)}
    # What the loader allows to come and go.
    own = {path for path in found if path.partition("/")[0] not in COMPANIONS and "__pycache__" not in Path(path).parts}
    if own != expected:
        return False
    return all(
        found[file.path].st_size == file.bytes and int(found[file.path].st_mtime) == manifest.stamp
        for file in manifest.files
    )


class Staging:
    """A directory beside a place, that takes its place in one step or leaves no trace. Use as a context manager.

    At every moment the place holds the whole old bundle or the whole new one. Builds that publish to the same place
    wait for each other.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.directory = place
        self._lock = FileLock(place.parent / f".{place.name}.lock")

    def __enter__(self) -> Self:
        with self._writing():
            self.place.parent.mkdir(parents=True, exist_ok=True)
            make_lock_file(Path(self._lock.lock_file))
            self._lock.acquire()
            _recover(self.place)
            self.directory = Path(tempfile.mkdtemp(prefix=f".{self.place.name}.new-", dir=self.place.parent))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.directory != self.place:
            shutil.rmtree(self.directory, ignore_errors=True)
        self._lock.release()

    def commit(self) -> None:
        """Put the directory into place.

        Raises:
            StageError: the place cannot be written.
        """
        with self._writing():
            self.directory.chmod(within_umask(0o755))
            _flush(self.directory)
            _swap(self.directory, self.place)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if is_full(error):
                raise full(("bundles", self.place.parent)) from error
            raise StageError(
                f"cannot write the bundle to {self.place}: {error.strerror or error}",
                help="check free space and permissions; what was there before is untouched",
            ) from error


def _recover(place: Path) -> None:
    """Clear up after a killed build; the lock says that no other is running."""
    for aside in place.parent.glob(f".{place.name}.old-*"):
        # Killed between the two renames of a file system without exchange: the old bundle comes back.
        if place.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.rename(place)
    for leftover in place.parent.glob(f".{place.name}.new-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _flush(directory: Path) -> None:
    for file in directory.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())


def _swap(fresh: Path, place: Path) -> None:
    if not place.exists():
        fresh.rename(place)
        return
    if _exchange(fresh, place):
        return
    # A file system without exchange: two renames, and the old bundle comes back when the second fails.
    aside = fresh.with_name(fresh.name.replace(".new-", ".old-"))
    place.rename(aside)
    try:
        fresh.rename(place)
    except OSError:
        aside.rename(place)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two directories in one step (renameat2, Linux >= 3.15); False where that does not exist."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(other))
