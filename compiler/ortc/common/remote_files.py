"""Places that fsspec reaches: a directory, a bucket, a server; and files that are seen there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ortc.common.plain_files import MOST_DOCUMENT, open_plain, read_plain
from ortc.common.redaction import mask_secrets
from ortc.common.units import format_bytes

_CHUNK = 1 << 20


def check_url(url: str) -> None:
    """Look whether fsspec can reach such a place, without reaching for it.

    Raises:
        ValueError: no file system of fsspec has this protocol, or its package is not installed.
    """
    import fsspec
    from fsspec.utils import get_protocol

    for part in url.split("::"):
        try:
            fsspec.get_filesystem_class(get_protocol(part))
        except (ImportError, ValueError) as error:
            raise ValueError(f"`{mask_secrets(part)}`: {error}") from error


def reach(url: str, *, probe: str, patience: float) -> tuple[Any, str]:
    """The file system of a place and the path in it, after it has answered once.

    The question is asked in a thread that can be left behind: drivers retry for minutes where there is nobody.

    Args:
        url: as fsspec writes it.
        probe: a name below the place to ask for; whether it is there does not matter.
        patience: seconds to wait for the answer.

    Raises:
        TimeoutError: no answer came.
        Exception: whatever the driver raises.
    """
    import fsspec.core

    found: list[tuple[Any, str]] = []
    failed: list[Exception] = []

    def contact() -> None:
        try:
            system, root = fsspec.core.url_to_fs(url)
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                system.info(f"{root}/{probe}")
            found.append((system, str(root).rstrip("/")))
        except Exception as error:  # noqa: BLE001 - raised again by the thread that waits
            failed.append(error)

    thread = threading.Thread(target=contact, daemon=True)
    thread.start()
    thread.join(patience)
    if failed:
        raise failed[0]
    if not found:
        raise TimeoutError(f"no answer in {patience:.0f} s")
    return found[0]


def is_directory(system: Any) -> bool:
    """Whether a file system shows a file while it grows; object stores show it when all of it has come."""
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(system, LocalFileSystem)


def put_whole(system: Any, path: str, write: Callable[[str], None]) -> None:
    """Write a file that is seen whole or not at all, in place of what was there.

    Args:
        system: a file system of fsspec.
        path: where to.
        write: writes the file to the path that it is given.
    """
    visible = is_directory(system)
    fresh = aside(path) if visible else path
    try:
        with_parents(system, fresh, write)
        if visible:
            system.mv(fresh, path)
    except BaseException:
        if visible:
            with contextlib.suppress(OSError):
                system.rm_file(fresh)
        raise


def aside(path: str) -> str:
    """A new hidden name in the same directory."""
    return f"{path.rpartition('/')[0]}/.{uuid.uuid4().hex}"


def with_parents(system: Any, path: str, write: Callable[[str], None]) -> None:
    """Write a file, and make its directories where they are missing."""
    try:
        write(path)
    except FileNotFoundError:
        system.makedirs(path.rpartition("/")[0], exist_ok=True)
        write(path)


def reason(error: Exception) -> str:
    """Why a driver failed, in one line without credentials."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return mask_secrets(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)


def read_document(system: Any, path: str) -> bytes:
    """The content of a document.

    Raises:
        OSError: it cannot be read, is not a plain file, or is larger than a document may be.
    """
    if is_directory(system):
        return read_plain(Path(path))
    if (system.info(path).get("size") or 0) > MOST_DOCUMENT:
        raise OSError(errno.EFBIG, f"it has more than {format_bytes(MOST_DOCUMENT)}", path)
    return bytes(system.cat_file(path))


def copy_file(system: Any, path: str, place: Path, size: int) -> None:
    """Copy a file of a known size to this machine; of another size an empty file or a part is left there.

    Args:
        system: a file system of fsspec.
        path: of the file.
        place: where to.
        size: bytes that the file must have.

    Raises:
        OSError: it cannot be read, or is not a plain file.
    """
    if not is_directory(system):
        if system.info(path).get("size") in (size, None):
            system.get_file(path, str(place))
        else:
            place.touch()
        return
    left = size + 1
    with open_plain(Path(path)) as source, place.open("wb") as target:
        while left > 0 and (chunk := source.read(min(_CHUNK, left))):
            target.write(chunk)
            left -= len(chunk)
