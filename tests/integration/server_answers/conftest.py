"""The servers of bundles that answer texts: one that everybody may ask, and one that asks for a key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.answer_servers import guarded_server, open_server, write_repository
from tests.support.serving import Running


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("answers"))


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Running]:
    with open_server(repository) as running:
        yield running
        running.stop()


@pytest.fixture(scope="module")
def guarded(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with guarded_server(repository, tmp_path_factory.mktemp("keys") / "keys") as running:
        yield running
