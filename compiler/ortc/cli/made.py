"""The result of one build, as commands keep it until they print."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ortc.evaluation.report import BuildReport


@dataclass(frozen=True)
class Made:
    """A report, and the files that hold it."""

    report: BuildReport
    files: tuple[Path, ...] = ()
