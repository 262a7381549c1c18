"""Find Node on this machine."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

PROGRAMS = ("node", "nodejs")
LEAST_NODE = 20
"""The first release that has all that the loader of bundles uses."""
INSTALL = f"install Node.js {LEAST_NODE} or newer (Debian: apt-get install nodejs)"


class Node(NamedTuple):
    """A program that is Node, and the version that it tells."""

    program: Path
    version: str


@cache
def find_node() -> Node | None:
    """The first Node on the path that is new enough; None where there is none."""
    for name in PROGRAMS:
        found = shutil.which(name)
        if found is None:
            continue
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=30, check=False)
            version = done.stdout.strip().removeprefix("v")
            major = version.partition(".")[0]
            if done.returncode == 0 and major.isdigit() and int(major) >= LEAST_NODE:
                return Node(Path(found), version)
    return None
