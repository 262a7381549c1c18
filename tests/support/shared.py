"""Directories that all workers of a session share: the first one that needs such a thing makes it, once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def session_root(factory: pytest.TempPathFactory) -> Path:
    """The directory of the session, above those of its workers where pytest-xdist runs several."""
    own = factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def shared(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A directory that `make` fills once a session; other workers wait for it. What it raised, they raise as well.

    Args:
        factory: pytest's fixture.
        name: of the directory, one for each `make`.
        make: is given the directory, which exists and is empty.
    """
    place = session_root(factory) / f"shared-{name}"
    made, failed = place.with_suffix(".made"), place.with_suffix(".failed")
    with FileLock(place.with_suffix(".lock")):
        if failed.exists():
            raise RuntimeError(f"{name} was not made by another worker: {failed.read_text('utf-8')}")
        if not made.exists():
            place.mkdir()
            try:
                make(place)
            except BaseException as error:
                failed.write_text(f"{type(error).__name__}: {error}", "utf-8")
                raise
            made.touch()
    return place
