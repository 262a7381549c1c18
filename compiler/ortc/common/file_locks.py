"""Locks that processes wait for, by a file that is there before anybody waits."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from filelock import FileLock


def file_lock(place: Path) -> FileLock:
    """A lock by a file, which is made here.

    Args:
        place: the file; its directory exists.

    Raises:
        OSError: the file cannot be made, or something else is at its place.
    """
    make_lock_file(place)
    return FileLock(place)


def make_lock_file(place: Path) -> None:
    """Make the file of a lock: where it cannot be made, the library would try again for ever.

    Raises:
        OSError: the file cannot be made, or something else is at its place.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(place, flags, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a plain file", str(place))
    finally:
        os.close(descriptor)
