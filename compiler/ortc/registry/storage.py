"""The files of a registry, in any place that fsspec reaches: seen whole or not at all, some of them made only once."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from ortc.common.disk import is_full
from ortc.common.errors import StageError, UsageError
from ortc.common.redaction import mask_secrets
from ortc.common.remote_files import (
    aside,
    check_url,
    copy_file,
    is_directory,
    put_whole,
    reach,
    read_document,
    reason,
    with_parents,
)

T = TypeVar("T")
PATIENCE = 30.0
"""Seconds for the first answer of a place."""
_OF_ONE_FILE = {errno.EISDIR, errno.EINVAL, errno.EFBIG, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG}
"""Why one file cannot be read where others can."""


class Storage:
    """One place. Paths are relative to it; hidden names are files that are being written, or were left behind so."""

    def __init__(self, url: str) -> None:
        """Look whether fsspec can reach such a place.

        Raises:
            UsageError: it cannot.
        """
        try:
            check_url(url)
        except ValueError as error:
            raise UsageError(
                f"no registry can be at {error}", help="give a directory or a URL of fsspec: file://, s3://, gs://, …"
            ) from error
        self.name = mask_secrets(url)
        self._url = url
        self._reached: tuple[Any, str] | None = None

    def read(self, path: str) -> bytes | None:
        """The content of a file; None where there is none.

        Raises:
            StageError: the place cannot be reached, or this file cannot be read.
        """

        def ask(system: Any, root: str) -> bytes:
            try:
                return read_document(system, f"{root}/{path}")
            except OSError as error:
                if error.errno not in _OF_ONE_FILE:
                    raise
                raise StageError(
                    f"{path} of the registry {self.name} cannot be read: {reason(error)}",
                    help="it was put there by hand or by another program: remove it",
                ) from error

        return self._ask(ask)

    def is_file(self, path: str) -> bool:
        """Whether a plain file has this name."""
        return self._ask(lambda system, root: system.info(f"{root}/{path}").get("type")) == "file"

    def size(self, path: str) -> int | None:
        """The bytes of a file; None where there is none."""
        return self._ask(lambda system, root: int(system.info(f"{root}/{path}")["size"]))

    def modified(self, path: str) -> datetime | None:
        """When a file was written; None where there is none.

        Raises:
            StageError: this kind of place does not tell.
        """

        def ask(system: Any, root: str) -> datetime:
            try:
                found: datetime = system.modified(f"{root}/{path}")
            except NotImplementedError as error:
                raise StageError(
                    f"{self.name} does not tell when its files were written, so nothing there can be collected",
                    help="use the place's own rules for the life of files",
                ) from error
            return found if found.tzinfo else found.replace(tzinfo=UTC)

        return self._ask(ask)

    def names(self, path: str, *, hidden: bool = False) -> list[str]:
        """The names of what lies in a directory, sorted; none where there is no such directory."""

        def ask(system: Any, root: str) -> list[str]:
            # What another process wrote is seen too: drivers keep listings.
            system.invalidate_cache()
            directory = f"{root}/{path}".rstrip("/") or str(system.root_marker)
            entries = [str(entry).rstrip("/") for entry in system.ls(directory, detail=False)]
            return sorted({PurePosixPath(entry).name for entry in entries if entry != directory})

        found = self._ask(ask) or []
        return [name for name in found if hidden or not name.startswith(".")]

    def fetch(self, path: str, place: Path, size: int) -> bool:
        """Copy a file of `size` bytes to a place on this machine, and say whether there was one."""

        def ask(system: Any, root: str) -> bool:
            copy_file(system, f"{root}/{path}", place, size)
            return True

        return bool(self._ask(ask))

    def put_file(self, path: str, place: Path) -> None:
        """Put a file of this machine there, in place of what was there."""
        with self._writing() as (system, root):
            put_whole(system, f"{root}/{path}", partial(_put_durably, system, place))

    def put(self, path: str, content: bytes) -> None:
        """Write a file, in place of what was there."""
        with self._writing() as (system, root):
            put_whole(system, f"{root}/{path}", partial(_pipe_durably, system, content))

    def create(self, path: str, content: bytes) -> bool:
        """Write a file that is not there yet, and say whether it is this one that is there now.

        Of several writers at once one succeeds, on local file systems and where fsspec's driver can make a file
        conditionally (s3, memory); elsewhere the last one to look before it writes.
        """
        with self._writing() as (system, root):
            full = f"{root}/{path}"
            try:
                if not is_directory(system):
                    with_parents(system, full, lambda place: system.pipe_file(place, content, mode="create"))
                    return True
                fresh = aside(full)
                try:
                    with_parents(system, fresh, partial(_pipe_durably, system, content))
                    _link(fresh, full)
                finally:
                    with contextlib.suppress(FileNotFoundError):
                        system.rm_file(fresh)
            except FileExistsError:
                return False
            return True

    def remove(self, path: str) -> None:
        """Delete a file; nothing happens where there is none."""
        with self._writing() as (system, root), contextlib.suppress(FileNotFoundError):
            system.rm_file(f"{root}/{path}")

    def _connect(self) -> tuple[Any, str]:
        if self._reached is None:
            self._reached = reach(self._url, probe="registry.json", patience=PATIENCE)
        return self._reached

    def _ask(self, operation: Callable[[Any, str], T]) -> T | None:
        """What an operation gives; None where there is no such file.

        Raises:
            StageError: the place cannot be reached or read.
        """
        try:
            return operation(*self._connect())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except StageError:
            raise
        except Exception as error:
            if is_full(error):
                raise
            raise StageError(f"the registry {self.name} cannot be read: {reason(error)}") from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[tuple[Any, str]]:
        try:
            yield self._connect()
        except Exception as error:
            raise StageError(
                f"the registry {self.name} cannot be written: {reason(error)}",
                help="check address, credentials and free space; what is registered there is untouched",
            ) from error


def _pipe_durably(system: Any, content: bytes, path: str) -> None:
    system.pipe_file(path, content)
    _flush(system, path)


def _put_durably(system: Any, place: Path, path: str) -> None:
    system.put_file(str(place), path)
    _flush(system, path)


def _flush(system: Any, path: str) -> None:
    """A name must not outlive the content it stands for when the power goes."""
    if is_directory(system):
        with Path(path).open("rb") as stream:
            os.fsync(stream.fileno())


def _link(fresh: str, place: str) -> None:
    """Give a whole file its name, unless the name is taken.

    Raises:
        FileExistsError: it is.
    """
    try:
        os.link(fresh, place)
    except FileExistsError:
        raise
    except OSError:
        # A file system without hard links.
        if Path(place).exists():
            raise FileExistsError(place) from None
        Path(fresh).rename(place)
