"""How many steps a part of a build takes, and how long: as the last build of the same model took."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SUFFIX = ".report.json"


@dataclass(frozen=True)
class ExpectedSteps:
    """Steps of a build's parts. A part is a target, or what all targets share.

    Args:
        targets: names, in the order of the build.
        seconds: of each step, by part, stage and subject; None where the last build took it from the cache.
    """

    targets: tuple[str, ...]
    seconds: Mapping[str | None, Mapping[tuple[str, str], float | None]] = field(default_factory=dict)

    def part_of(self, subject: str) -> str | None:
        """The target that a step is about; None of a step for all of them."""
        name, _, _ = subject.partition(": ")
        return name if name in self.targets else None

    def left(self, part: str | None, done: Mapping[tuple[str, str], float | None]) -> float | None:
        """Return the seconds that a part still takes, about; None where nothing is known.

        Args:
            part: the part.
            done: seconds of its finished steps, None of those from the cache.
        """
        if not (expected := self.seconds.get(part)):
            return None
        taken = [seconds for seconds in done.values() if seconds is not None]
        usual = sum(taken) / len(taken) if taken else 0.0
        return sum(usual if seconds is None else seconds for step, seconds in expected.items() if step not in done)


def last_steps(directory: Path, targets: tuple[str, ...]) -> ExpectedSteps:
    """The steps of the newest report in a directory of bundles of one name; none where there is no report."""
    steps: dict[str | None, dict[tuple[str, str], float | None]] = {}
    found = ExpectedSteps(targets, steps)
    for entry in _stages(directory):
        stage, subject, seconds = entry.get("stage"), entry.get("subject"), entry.get("seconds")
        if isinstance(stage, str) and isinstance(subject, str) and isinstance(seconds, int | float):
            known = None if entry.get("cached") else float(seconds)
            steps.setdefault(found.part_of(subject), {})[stage, subject] = known
    return found


def _stages(directory: Path) -> Iterable[Mapping[str, Any]]:
    """What the newest report says of stages. A report that cannot be read only costs an estimate."""
    try:
        reports = [path for path in directory.iterdir() if path.name.endswith(_SUFFIX)]
        document = json.loads(max(reports, key=lambda path: path.stat().st_mtime).read_bytes())
    except (OSError, ValueError):
        return ()
    stages = document.get("stages") if isinstance(document, dict) else None
    return [entry for entry in stages if isinstance(entry, dict)] if isinstance(stages, list) else ()
