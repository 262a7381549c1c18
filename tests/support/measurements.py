"""Measurements of a bundle on a board, before and after they are attached."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ortc.execution.host import Host

BOARD = Host(platform="linux/amd64", cpu="A board", isa=(), cores=4, memory=2**30, gpus=())
NAME = f"measurements/{BOARD.fingerprint()}.json"
SIGNATURE = f"attestations/measurements/{BOARD.fingerprint()}.sig"
WHEN = datetime(2026, 5, 1, 12, tzinfo=UTC)
Write = Callable[..., Path]


def verdicts_of(bundle: Path) -> list[dict[str, Any]]:
    """What the attached measurement says of the promises."""
    found: list[dict[str, Any]] = json.loads((bundle / NAME).read_bytes())["verdicts"]
    return found


def outcomes(bundle: Path) -> dict[str, str]:
    found = json.loads((bundle / NAME).read_bytes())["verdicts"]
    return {verdict["gate"]: verdict["outcome"] for verdict in found}
