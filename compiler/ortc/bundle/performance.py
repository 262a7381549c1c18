"""The performance that a bundle was measured to have, as registries and listings show it."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

from ortc.common.errors import StageError
from ortc.common.values import Frozen
from ortc.evaluation.report import Numbers
from ortc.execution.host import Host


class Performance(Frozen):
    """What a bundle's measurement says of one machine; `numbers` is None where nothing was timed."""

    fingerprint: str
    host: Host
    shape: str | None
    threads: int | None
    numbers: Numbers | None
    verdicts: dict[str, int]


def performance(fingerprint: str, document: dict[str, Any]) -> Performance:
    """What a file of measurements/ says.

    Raises:
        ValueError: it is no measurement of this format.
    """
    race = document.get("race") or {}
    outcomes = [str(verdict["outcome"]) for verdict in document["verdicts"]]
    return Performance.model_validate_json(
        json.dumps(
            {
                "fingerprint": fingerprint,
                "host": document["host"],
                "shape": race.get("shape"),
                "threads": race.get("threads"),
                "numbers": document["numbers"],
                "verdicts": {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))},
            }
        )
    )


def performance_in(content: bytes, path: str) -> Performance:
    """What a measurement says, from the bytes of its file.

    Args:
        content: the file.
        path: of the file, for its fingerprint and for messages.

    Raises:
        StageError: it is no measurement of this format.
    """
    try:
        return performance(PurePosixPath(path).stem, json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StageError(f"{path} is no measurement that this ortc reads: {error}") from error
