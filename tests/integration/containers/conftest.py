"""The images of bundles, each built once a session."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.containers import Engine, Image, need

ImageOf = Callable[[Path, str], tuple[str, Image]]


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    need("buildah", "mmdebstrap", "runc")
    # Not below pytest's own temporary directories: it removes those of earlier sessions, mounted or not.
    with tempfile.TemporaryDirectory(prefix="ortc-containers-") as directory:
        engine = Engine(Path(directory))
        try:
            yield engine
        finally:
            engine.unmount()


@pytest.fixture(scope="session")
def image_of(engine: Engine) -> ImageOf:
    """The image of a bundle for a platform, by a tag, built once."""
    built: dict[str, Image] = {}

    def make(bundle: Path, platform: str) -> tuple[str, Image]:
        tag = "-".join((bundle.parts[-3], bundle.name, platform.partition("/")[2]))
        if tag not in built:
            built[tag] = engine.build(bundle, platform, tag)
        return tag, built[tag]

    return make
