"""Which stages run again when a module of the compiler changes: compared with `tests/golden/touched.txt`.

Rewrite the table with `pytest tests/integration/test_touched.py --update-golden`, and read the difference.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.plans import ROOT, plan

from ortc.build.stages import ENTRYPOINT, STAGES
from ortc.diff.stages import foresee
from ortc.execution import code_closure
from ortc.execution.code_closure import code_modules, code_of

NAMED = {(stage.name, stage.code): stage.label for stage in reversed(STAGES) if stage.code is not None}
"""Stages of one name that run the same code are one column."""
CODES = {stage.label: stage.code for stage in STAGES if stage.code is not None and stage.label in NAMED.values()}
TABLE = Path(__file__).parents[1] / "golden" / "touched.txt"
HEAD = """\
Which actions run again when one module changes, of a build of specs/digits.yaml and of any other.

  #  the action runs the module's code
  .  the action reads the result of one that does

"""


@pytest.fixture
def digests(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Digests of all modules that an action runs; a test may replace one."""
    names = {name for code in CODES.values() for name in code_modules(code)}
    found = {name: code_closure.module_digest(name) for name in names}
    monkeypatch.setattr(code_closure, "module_digest", found.__getitem__)
    return found


def stages(work: Path) -> dict[str, list[object]]:
    """What goes into each stage of a build of the digits, as the driver computes it."""
    work.mkdir(parents=True)
    code_of.cache_clear()
    found: dict[str, list[object]] = {}
    for entry in foresee(plan(ROOT / "specs" / "digits.yaml"), ROOT, work).stages:
        found.setdefault(entry.stage, []).append(entry.inputs)
    code_of.cache_clear()
    return found


def line(name: str, cells: list[str], columns: list[str]) -> str:
    shown = (f"{cell:^{len(column)}}" for cell, column in zip(cells, columns, strict=True))
    return f"{name:<24}{'  '.join(shown)}".rstrip()


def test_stages_that_run_again(
    digests: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, update_golden: bool
) -> None:
    before = stages(tmp_path / "before")
    columns = [label for label in CODES if label != ENTRYPOINT.label]
    again: dict[frozenset[str], set[str]] = {}
    rows = []
    for name in sorted(digests):
        own = frozenset(label for label, code in CODES.items() if name in code_modules(code))
        if own not in again:
            # Modules of the same actions are in the same keys: one of them speaks for all.
            with monkeypatch.context() as touched:
                touched.setitem(digests, name, "0" * 64)
                after = stages(tmp_path / "after" / name)
            again[own] = {stage for stage in after if after[stage] != before[stage]}
        for action in own & before.keys():
            assert action in again[own], f"{name} is run by {action}, which keeps its key"
        marks = ["#" if action in own else "." if action in again[own] else " " for action in columns]
        rows.append(line(name.removeprefix("ortc."), marks, columns))
    table = HEAD + "\n".join([line("", columns, columns), *rows]) + "\n"
    if update_golden:
        TABLE.write_text(table, "utf-8")
    assert TABLE.read_text("utf-8") == table
