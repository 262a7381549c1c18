"""Differences for a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ortc.common.units import count
from ortc.diff import wording
from ortc.diff.report import BundleDiff, Section, SpecDiff, TargetDiff
from ortc.spec.diagnostics.excerpt import printable

_WIDTH = 160


class Page:
    """Writes to stdout; what files say is text, never markup."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stdout, highlight=False)
        if not self._console.is_terminal:
            self._console = Console(file=sys.stdout, highlight=False, width=_WIDTH)

    def line(self, text: str = "", style: str = "") -> None:
        self._console.print(Text(text, style=style), soft_wrap=True)

    def rows(self, rows: Iterable[tuple[str, ...]], head: tuple[str, ...] | None = None, indent: int = 4) -> None:
        table = Table(box=None, pad_edge=False, show_edge=False, show_header=head is not None, header_style="bold")
        for name in ("", *(head or ())):
            table.add_column(name)
        for row in rows:
            table.add_row(" " * max(0, indent - 2), *(Text(printable(cell)) for cell in row))
        self._console.print(table)


def show_bundles(diff: BundleDiff) -> None:
    """Print one line a target, then all that changed."""
    page = Page()
    page.line(f"A  {printable(diff.before)}\nB  {printable(diff.after)}")
    page.line()
    if diff.targets:
        head = ("target", "variant", "model", "graph", "outputs, B against A", "latency")
        rows = (
            (
                target.target,
                wording.variant(target),
                wording.size(target),
                wording.graph(target),
                wording.outputs(target.numerics),
                wording.latency(target),
            )
            for target in diff.targets
        )
        page.rows(rows, head, indent=0)
    for word, names in (("added", diff.added), ("removed", diff.removed)):
        for name in names:
            page.line(f"{word}: {printable(name)}", "green" if word == "added" else "red")
    for target in diff.targets:
        page.line(f"\n{printable(target.target)}{': no difference' if target.same else ''}", "bold")
        _target(page, target)


def _target(page: Page, target: TargetDiff) -> None:
    _sections(page, target.sections)
    if target.operators:
        page.line("  graph operators", "dim")
        page.rows((entry.operator, f"{entry.before} {wording.ARROW} {entry.after}") for entry in target.operators)
    page.line("  outputs on the golden inputs", "dim")
    found = target.numerics
    if found.skipped is not None:
        page.rows([(f"not run: {found.skipped}",)])
    rows = [("failed", failure) for failure in found.failed]
    rows += [
        (f"{case.case} (golden of {case.golden_of})", f"B against A: {case.problem or wording.distance(case.outputs)}")
        for case in found.cases
    ]
    rows += [
        (case.case, f"{side} against PyTorch: {wording.distance(case.outputs)}")
        for side, cases in (("A", found.golden_before), ("B", found.golden_after))
        for case in cases
    ]
    page.rows(rows)
    _latency(page, target)


def _latency(page: Page, target: TargetDiff) -> None:
    page.line("  latency", "dim")
    if (race := target.race) is not None:
        where = "" if race.speedup is None else f"  ({race.cpu}, {race.shape}, {race.threads} threads)"
        page.rows([(f"race on this host: {wording.faster(race)}{where}",)])
        page.rows((name, f"{one} {wording.ARROW} {other}") for name, one, other in wording.race_rows(race))
    for entry in target.timings:
        page.rows([(f"measured on {wording.machine(entry)}",)])
        if entry.comparable is not None or entry.before is None or entry.after is None:
            page.rows([(f"not compared: {entry.comparable}",)], indent=6)
            continue
        numbers = wording.timing_rows(entry.before, entry.after)
        page.rows(((name, f"{one} {wording.ARROW} {other}") for name, one, other in numbers), indent=6)
    if target.race is None and not target.timings:
        page.rows([("neither bundle carries a measurement",)])


def _sections(page: Page, sections: tuple[Section, ...]) -> None:
    for section in sections:
        page.line(f"  {section.name}", "dim")
        rows = ((change.dotted, wording.values(change)) for change in section.changes)
        page.rows((name, f"{one} {wording.ARROW} {other}") for name, (one, other) in rows)


def show_specs(diff: SpecDiff) -> None:
    """Print what the specs say differently, what follows from it, and which stages would run anew."""
    page = Page()
    page.line(f"A  {printable(diff.before)}\nB  {printable(diff.after)}")
    page.line(f"\n{wording.spec_summary(diff)}", "bold")
    _sections(page, diff.sections)
    if diff.stages_unknown is not None:
        page.line(f"\nwhich stages would run anew cannot be told: {printable(diff.stages_unknown)}", "yellow")
        return
    if not any(entry.anew for entry in diff.stages):
        return
    for target in dict.fromkeys(entry.target for entry in diff.stages):
        of = [entry for entry in diff.stages if entry.target == target]
        anew = [entry for entry in of if entry.anew]
        page.line(f"\n{printable(target or 'model')}: {len(anew)} of {count(len(of), 'stage')} would run anew", "bold")
        page.rows(((entry.stage, entry.subject, ", ".join(entry.because)) for entry in anew), indent=2)
