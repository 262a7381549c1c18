"""A bundle, and measurements of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.bundles import runtime_module
from tests.support.measurements import BOARD, WHEN, Write
from tests.support.whole_bundles import own_measurement, whole_bundle

measure = runtime_module("measure")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return whole_bundle(tmp_path / "cpu")


@pytest.fixture
def write(tmp_path: Path, bundle: Path) -> Write:
    """A measurement of the bundle on a board, as runtime/measure.py writes it but for `changes`."""

    def written(
        name: str = "measurement.json", *, of: Path = bundle, milliseconds: float = 2.0, **changes: Any
    ) -> Path:
        rounds = [[milliseconds + 0.001 * (21 * turn + run) for run in range(21)] for turn in range(20)]
        document = {
            **own_measurement(of, BOARD, WHEN.isoformat()),
            "rounds": rounds,
            **changes,
        }
        place = tmp_path / name
        place.write_text(json.dumps({**document, "sha256": measure.digest(document)}, indent=1))
        return place

    return written
