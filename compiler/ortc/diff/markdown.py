"""Differences as Markdown for a pull request: one line that says it, tables, and the details folded.

Values come from files that anybody may have written; each stands in a code span, where it is text and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ortc.common.units import count
from ortc.diff import wording
from ortc.diff.report import BundleDiff, Section, SpecDiff, StageChange, TargetDiff
from ortc.diff.wording import ARROW, NOTHING
from ortc.spec.diagnostics.excerpt import printable

MODEL = "(model)"


def code(text: str) -> str:
    """A text as a code span that a table can hold."""
    if text == NOTHING:
        return text
    text = printable(text).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") or not text.strip() else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def bundles_markdown(diff: BundleDiff) -> str:
    """Two bundles, or two directories of them."""
    return "\n".join(_bundles(diff)) + "\n"


def specs_markdown(diff: SpecDiff) -> str:
    """Two states of a spec."""
    return "\n".join(_specs(diff)) + "\n"


def _bundles(diff: BundleDiff) -> Iterator[str]:
    changed = [target for target in diff.targets if not target.same]
    parts = [f"{count(len(diff.targets), 'target')} compared, {len(changed)} changed"]
    parts += [f"{code(name)} added" for name in diff.added] + [f"{code(name)} removed" for name in diff.removed]
    yield f"**{code(diff.before)} {ARROW} {code(diff.after)}**: {'no difference' if diff.same else '; '.join(parts)}"
    if diff.targets:
        yield ""
        yield from _table(
            ("target", "variant", "model", "graph", "outputs, B against A", "latency"),
            (
                (
                    code(target.target),
                    code(wording.variant(target)),
                    code(wording.size(target)),
                    wording.graph(target),
                    code(wording.outputs(target.numerics)),
                    code(wording.latency(target)),
                )
                for target in diff.targets
            ),
        )
    for target in changed:
        yield from _folded(f"{_html(target.target)}: what changed", _target(target))


def _target(target: TargetDiff) -> Iterator[str]:
    yield from _sections(target.sections)
    if target.operators:
        rows = ((code(entry.operator), str(entry.before), str(entry.after)) for entry in target.operators)
        yield from _titled("Graph operators", _table(("operator", "A", "B"), rows))
    yield from _titled("Outputs on the golden inputs", _outputs(target))
    yield from _titled("Latency", _latency(target))


def _sections(sections: tuple[Section, ...]) -> Iterator[str]:
    rows = [
        (code(f"{section.name}: {change.dotted}"), *map(code, wording.values(change)))
        for section in sections
        for change in section.changes
    ]
    if rows:
        yield ""
        yield from _table(("", "A", "B"), rows)


def _outputs(target: TargetDiff) -> Iterator[str]:
    found = target.numerics
    if found.skipped is not None or found.failed:
        yield code(f"not run: {found.skipped}" if found.skipped else "; ".join(found.failed))
        return
    rows: list[tuple[str, ...]] = [
        (code(case.case), case.golden_of, code(case.problem or wording.distance(case.outputs))) for case in found.cases
    ]
    yield from _table(("case", "golden of", "B against A"), rows)
    yield ""
    rows = [
        (code(case.case), side, code(wording.distance(case.outputs)))
        for side, cases in (("A", found.golden_before), ("B", found.golden_after))
        for case in cases
    ]
    yield from _table(("case", "bundle", "against PyTorch"), rows)


def _latency(target: TargetDiff) -> Iterator[str]:
    rows: list[tuple[str, ...]] = []
    if (race := target.race) is not None:
        where = "" if race.speedup is None else f" ({race.cpu}, {race.shape}, {race.threads} threads)"
        yield code(f"race on this host: {wording.faster(race)}{where}")
        rows += [("in the race", name, code(one), code(other)) for name, one, other in wording.race_rows(race)]
    for entry in target.timings:
        place = code(wording.machine(entry))
        if entry.comparable is not None or entry.before is None or entry.after is None:
            rows.append((place, "", code(f"not compared: {entry.comparable}"), ""))
            continue
        numbers = wording.timing_rows(entry.before, entry.after)
        rows += [(place, name, code(one), code(other)) for name, one, other in numbers]
    if rows:
        if target.race is not None:
            yield ""
        yield from _table(("measured", "", "A", "B"), rows)
    elif target.race is None:
        yield "neither bundle carries a measurement"


def _specs(diff: SpecDiff) -> Iterator[str]:
    yield f"**{code(diff.before)} {ARROW} {code(diff.after)}**: {wording.spec_summary(diff)}"
    for section in diff.sections:
        rows = [(code(change.dotted), *map(code, wording.values(change))) for change in section.changes]
        table = _table(("field" if section.name == "spec" else "", "A", "B"), rows)
        if section.name == "spec":
            yield ""
            yield from table
        else:
            title = {"files": "files that the spec names", "plan": "what follows in the resolved plan"}[section.name]
            yield from _folded(f"{count(len(rows), 'change')}: {title}", ("", *table))
    if diff.stages_unknown is not None:
        yield ""
        yield f"Which stages would run anew cannot be told: {code(diff.stages_unknown)}"
    elif any(stage.anew for stage in diff.stages):
        yield ""
        yield from _table(("target", "runs anew", "is reused"), _stage_rows(diff.stages))
        reasons = (
            (code(entry.target or MODEL), entry.stage, code(entry.subject), code(", ".join(entry.because)))
            for entry in diff.stages
            if entry.anew
        )
        yield from _folded("why", ("", *_table(("target", "stage", "", "what differs of its inputs"), reasons)))


def _stage_rows(stages: tuple[StageChange, ...]) -> Iterator[tuple[str, ...]]:
    for target in dict.fromkeys(entry.target for entry in stages):
        of = [entry for entry in stages if entry.target == target]
        anew = dict.fromkeys(entry.stage for entry in of if entry.anew)
        reused = dict.fromkeys(entry.stage for entry in of if not entry.anew and entry.stage not in anew)
        yield code(target or MODEL), ", ".join(anew) or NOTHING, ", ".join(reused) or NOTHING


def _titled(title: str, lines: Iterable[str]) -> Iterator[str]:
    yield from ("", f"**{title}**", "", *lines)


def _folded(title: str, lines: Iterable[str]) -> Iterator[str]:
    # Markdown inside of HTML needs an empty line on either side.
    yield from ("", f"<details><summary>{title}</summary>", *lines, "", "</details>")


def _html(text: str) -> str:
    from html import escape

    return f"<code>{escape(printable(text))}</code>"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    for cells in (head, ("---",) * len(head), *rows):
        yield f"| {' | '.join(cells)} |"
