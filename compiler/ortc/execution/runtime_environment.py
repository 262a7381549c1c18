"""Runtime environments: venvs made from exactly the pinned requirements that a bundle ships."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ortc.common.disk import room, temporary
from ortc.common.errors import StageError
from ortc.common.file_locks import file_lock
from ortc.common.values import digest
from ortc.execution.processes import standard_module

MARKER = ".complete"


def environment(
    requirements: str, root: Path, python: str = sys.executable, on_make: Callable[[], None] | None = None
) -> Path:
    """The interpreter of a cached venv that holds these requirements and nothing else.

    Made once per requirements and Python under a lock; one that a kill left half made is made again.

    Args:
        requirements: text of a hash-pinned requirements.txt.
        root: directory that holds the environments.
        python: the interpreter to make it with.
        on_make: called when the environment has to be made.

    Raises:
        StageError: the packages cannot be installed.
    """
    interpreter, _ = is_made(requirements, root, python)
    kept(interpreter.parent.parent, lambda place: _make(requirements, place, python), on_make)
    return interpreter


def kept(place: Path, make: Callable[[Path], None], on_make: Callable[[], None] | None = None) -> None:
    """Make a directory of the cache once, under a lock; one that a kill left half made is made again.

    Args:
        place: where; its parent is `environments` of the cache, which `ortc cache prune` looks through.
        make: fills it; it does not exist before.
        on_make: called when it has to be made.
    """
    if (place / MARKER).is_file():
        with contextlib.suppress(OSError):
            # The time of last use, for `ortc cache prune`.
            (place / MARKER).touch()
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(Path(f"{place}.lock")):
        if (place / MARKER).is_file():
            return
        shutil.rmtree(place, ignore_errors=True)
        if on_make is not None:
            on_make()
        try:
            with room(("the cache", place.parent), temporary()):
                make(place)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        (place / MARKER).touch()


def is_made(requirements: str, root: Path, python: str = sys.executable) -> tuple[Path, bool]:
    """Where the interpreter of an environment is or will be, and whether it is there."""
    place = root / digest([requirements, python, sys.version])[:24]
    return place / "bin" / "python", (place / MARKER).is_file()


def _make(requirements: str, place: Path, python: str) -> None:
    run_tool(standard_module("venv", "--without-pip", str(place), python=python), "make a virtual environment")
    listing = place / "requirements.txt"
    listing.write_text(requirements, "utf-8")
    # pip of this environment installs into the new one, which then holds nothing that the bundle does not ask for.
    pip = standard_module("pip", "--python", str(place / "bin" / "python"), "install", "--quiet")
    run_tool(
        [
            *pip,
            "--disable-pip-version-check",
            "--no-deps",
            "--require-hashes",
            "--only-binary=:all:",
            "-r",
            str(listing),
        ],
        "install the bundle's pinned requirements",
    )


def run_tool(
    arguments: list[str],
    purpose: str,
    help: str = "the package index must be reachable the first time; later builds use the cached environment",  # noqa: A002
) -> None:
    """Run a program to its end, without what would lead a Python astray.

    Raises:
        StageError: it failed; with its last lines.
    """
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    result = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    if result.returncode != 0:
        lines = (result.stderr or result.stdout).strip().splitlines()
        raise StageError(
            f"cannot {purpose} (exit code {result.returncode})",
            help=help,
            details=tuple(lines[-12:]),
        )
