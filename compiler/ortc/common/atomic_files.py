"""Files that are replaced in one step: a reader sees the old content or the new one, and never a part."""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path

from ortc.common.plain_files import not_plain

PRIVATE = 0o600
"""Mode of a file that only its owner reads."""
SHARED = 0o666
"""Mode of a file that everybody reads whom the umask lets."""


def replace_file(
    place: Path, content: bytes, *, mode: int = SHARED, stamp: int | None = None, is_durable: bool = False
) -> None:
    """Write a file beside its place, and rename it into it.

    Args:
        place: the file; its directory exists.
        content: the whole of it.
        mode: permission bits, less those of the umask.
        stamp: time of last change in seconds since the epoch; now when None.
        is_durable: whether the content is on the disk before it takes the place, so that no crash loses both.

    Raises:
        OSError: the file cannot be written, or a pipe or a device is there; whatever was in its place is untouched.
    """
    if (kind := not_plain(place)) is not None:
        raise OSError(errno.EINVAL, f"it is {kind}, not a plain file", str(place))
    fresh = place.with_name(f".{place.name[:12]}-{uuid.uuid4().hex[:12]}")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
            stream.write(content)
            if is_durable:
                stream.flush()
                os.fsync(stream.fileno())
        if stamp is not None:
            os.utime(fresh, (stamp, stamp))
        fresh.replace(place)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
