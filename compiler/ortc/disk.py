"""Disks that are full."""

from __future__ import annotations

import errno


def is_full(error: BaseException) -> bool:
    """Whether an error says that a file system, or the user's share of it, has no room left."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
