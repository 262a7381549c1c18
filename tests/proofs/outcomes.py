"""A plugin of pytest: each test that ends is a line of the journal that ORTC_PROOFS_JOURNAL names."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from journal import FAILED, PASSED, SKIPPED, Entry, append
from prove import now

WORST = (PASSED, SKIPPED, FAILED)
"""Outcomes of a test's phases, from the best to the worst: the worst is that of the test."""
_phases: dict[str, list[pytest.TestReport]] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report: pytest.TestReport = yield
    phases = _phases.setdefault(item.nodeid, [])
    phases.append(report)
    if report.when == "teardown":
        outcome = max((phase.outcome for phase in phases), key=WORST.index)
        seconds = round(sum(phase.duration for phase in phases), 1)
        append(Path(os.environ["ORTC_PROOFS_JOURNAL"]), Entry(item.nodeid, outcome, seconds, now()))
    return report
