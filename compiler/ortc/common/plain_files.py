"""Files that somebody else named or wrote: plain ones only, and never more bytes than such a file may have.

A pipe would wait for a writer, a device such as /dev/zero never ends, and opening some devices changes them.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

from ortc.common.units import format_bytes

MOST_DOCUMENT = 64 * 2**20
"""Bytes of a JSON document, a list of requirements or digests, or a source file."""
MOST_KEY = 2**20
"""Bytes of a key."""
MOST_TEXTS = 2**30
"""Bytes of a file of text samples."""

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def open_plain(path: Path) -> BufferedReader:
    """Open a plain file, or a link to one, for reading.

    Raises:
        OSError: it cannot be opened, or is a directory, a pipe, a device or a socket.
    """
    # Asked before, too: opening a device can already act on it.
    _expect_plain(path, path.stat())
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _expect_plain(path, os.fstat(descriptor))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_plain(path: Path, most: int = MOST_DOCUMENT) -> bytes:
    """The bytes of a plain file.

    Raises:
        OSError: it cannot be read, is not a plain file, or has more than `most` bytes.
    """
    with open_plain(path) as stream:
        content = stream.read(most + 1)
    # Some files of /proc have nothing to give at the moment.
    if content is None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path))
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than {format_bytes(most)}", str(path))
    return content


def read_plain_text(path: Path, most: int = MOST_DOCUMENT) -> str:
    """The UTF-8 text of a plain file.

    Raises:
        OSError: as `read_plain`.
        UnicodeDecodeError: it is not UTF-8.
    """
    return read_plain(path, most).decode("utf-8")


def is_plain(path: Path) -> bool:
    """Whether a path leads to a plain file; it does not where no file can have such a name."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_directory(path: Path) -> bool:
    """Whether a path leads to a directory; it does not where none can have such a name."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def not_plain(path: Path) -> str | None:
    """What a path is where it is neither a plain file nor a directory, as in `a pipe`; None else."""
    try:
        return _KINDS.get(stat.S_IFMT(path.stat().st_mode))
    except (OSError, ValueError):
        return None


def _expect_plain(path: Path, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "of an unknown kind")
        raise OSError(errno.EINVAL, f"it is {kind}, not a plain file", str(path))
