"""Who may write where ortc keeps programs and results that later builds run and ship."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from ortc.common.errors import StageError

_HELP = "let $ORTC_CACHE_DIR name a directory of your own, which only you and your group may write to"


def refuse_others(directory: Path) -> None:
    """Check that no other user can have written a directory, nor can put another one in its place.

    A cache holds interpreters and packages that builds run. Groups may share one, as each member can run programs as
    the others do already; everybody may not.

    Raises:
        StageError: another user owns it or a directory in it, or everybody may write to one on the way.
    """
    place = directory if directory.is_absolute() else Path.cwd() / directory
    for parent in (place, *place.parents):
        found = _status(parent)
        if found is not None and parent != place and found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            raise StageError(f"refused the cache {directory}: everybody may replace what is in {parent}", help=_HELP)
    try:
        inner = sorted(place.iterdir())
    except OSError:
        inner = []
    for path in (place, *inner):
        found = _status(path)
        if found is None or not stat.S_ISDIR(found.st_mode):
            continue
        if found.st_uid not in (os.geteuid(), 0):
            raise StageError(f"refused the cache {directory}: {path} belongs to user {found.st_uid}", help=_HELP)
        if found.st_mode & stat.S_IWOTH:
            raise StageError(f"refused the cache {directory}: everybody may write to {path}", help=_HELP)


def within_umask(mode: int) -> int:
    """The permissions of a published file or directory without those that the user's umask takes away."""
    found = re.search(r"^Umask:\s+([0-7]+)$", Path("/proc/self/status").read_text("utf-8"), re.MULTILINE)
    return mode & ~int(found[1], 8) if found is not None else mode & ~0o077


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
