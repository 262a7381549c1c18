"""The last lines of a build: one per target, the gates by name, the report, and the next commands."""

from __future__ import annotations

import io
import os
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from ortc.cli.made import Made
from ortc.common.suggest import joined
from ortc.common.units import count, format_seconds
from ortc.evaluation.gates import EXIT_UNMEASURED
from ortc.evaluation.report import BuildReport, TargetReport, Verdict

_STYLES = {"published": "green", "provisional": "yellow", "failed": "red"}
_GATE_LINES = 4
"""Lines about gates per target, on average: three targets, their gates and what follows fit in 24 lines."""
_LONGEST_ROW = 40
_LABEL = 9
_GAP = "  "
_REMEASURE = "--remeasure"
"""Of a build that timed again, the same command shows other times."""


@dataclass(frozen=True)
class Detail:
    """How much is said about a target: gates that are named with their values, and lines of one text."""

    broken: int
    lines: int


_DETAILS = (Detail(broken=3, lines=2), Detail(broken=2, lines=2), Detail(broken=1, lines=2), Detail(broken=1, lines=1))
"""The most detailed one that fits is taken; `-v` and the report have everything."""


def summary(
    builds: Sequence[Made], arguments: Sequence[str], width: int, *, is_verbose: bool = False
) -> Iterator[Text]:
    """Return the lines of the summary.

    Args:
        builds: at least one.
        arguments: those of the command that ends here, with its name.
        width: columns of the terminal. Only paths, commands and lines of one target are ever wider.
        is_verbose: whether all details were shown already.
    """
    yield from _rows(builds, width)
    yield from _cautions(builds, width)
    yield from _labelled("gates", _gates(builds, width - _LABEL))
    yield from _labelled("bundles", list(_bundles(builds)))
    yield from _labelled("report", [Text(str(file)) for made in builds for file in made.files])
    yield from _labelled("next", [Text(line) for line in _next(builds, arguments, is_verbose=is_verbose)])


def verdict_text(report: BuildReport, target: TargetReport) -> Text:
    """The verdict on a target; a target that is not fit to serve never reads as a plain pass."""
    status = _status(target)
    if report.unfit_reason is None or target.status == "failed":
        return Text(status, style=_STYLES[target.status])
    return Text(f"unfit; {status}", style=_STYLES["provisional"])


def _status(target: TargetReport) -> str:
    outcomes = {verdict.outcome for verdict in target.verdicts}
    if target.status == "published":
        return f"pass ({count(len(target.verdicts), 'gate')})"
    if target.status == "provisional":
        if "inconclusive" in outcomes:
            return "provisional: too busy to measure"
        names = sorted({verdict.platform for verdict in target.verdicts if verdict.outcome == "unmeasured"})
        return f"provisional: {', '.join(names)} not measured" if names else "provisional"
    if target.exit_code == EXIT_UNMEASURED and "fail" not in outcomes:
        return f"{'too busy to measure' if 'inconclusive' in outcomes else 'not measured'} (exit {target.exit_code})"
    return f"FAIL (exit {target.exit_code})"


def _rows(builds: Sequence[Made], width: int) -> Iterator[Text]:
    """One line per target: its name, as many facts as there is room for, the verdict."""
    rows = [
        (f"{made.report.name} {made.report.version} {target.target}", _facts(target), verdict_text(made.report, target))
        for made in builds
        for target in made.report.targets
    ]
    rows += [
        (f"{made.report.name} {made.report.version}", _NO_FACTS, Text(f"FAIL (exit {made.report.exit_code})", "red"))
        for made in builds
        if not made.report.targets
    ]
    first = max(cell_len(name) for name, _, _ in rows)
    last = max(verdict.cell_len for _, _, verdict in rows)
    sizes = [max(cell_len(facts[column]) for _, facts, _ in rows) for column in range(len(_NO_FACTS))]
    room = width - first - last - len(_GAP)
    shown: list[int] = []
    for column, size in enumerate(sizes):
        if size and size + len(_GAP) <= room:
            shown.append(column)
            room -= size + len(_GAP)
    for name, facts, verdict in rows:
        # Where name and verdict have no room side by side, padding would only move the verdict away.
        line = Text(set_cell_size(name, first) if room >= 0 else name, style="bold")
        for column in shown:
            line.append(_GAP + set_cell_size(facts[column], sizes[column]), style="not bold")
        yield line.append(_GAP, style="not bold").append(verdict)


_NO_FACTS = ("", "", "")


def _facts(target: TargetReport) -> tuple[str, str, str]:
    """The variant, its median time, and its speed-up over PyTorch; a time that claims nothing is marked."""
    numbers = target.numbers
    if numbers is None:
        return target.variant or "", "", ""
    time = "noisy" if numbers.noise else f"p50 {format_seconds(numbers.p50_ms.value / 1000)}"
    speedup = "" if numbers.speedup is None or numbers.speedup_noise else f"{numbers.speedup.value:.2f}x"
    return target.variant or "", time, speedup


def _cautions(builds: Sequence[Made], width: int) -> Iterator[Text]:
    """What the bundles are without, and shapes that were not checked: one line each."""
    for made in builds:
        report = made.report
        kinds = {
            "not fit to serve": [report.unfit_reason] if report.unfit_reason else [],
            "parts left out": report.parts_left_out,
            "not checked": _skipped(report.skipped_cases),
        }
        for kind, names in kinds.items():
            if names:
                yield Text(_shortened(f"{report.name}: {kind}: {', '.join(names)}", width), style="yellow")


def _skipped(cases: Sequence[str]) -> list[str]:
    """Numbers of shapes that were not checked, by reason."""
    reasons = Counter(case.partition(": ")[2] for case in cases)
    return [f"{count(number, 'shape')} ({reason})" for reason, number in reasons.items()]


def _gates(builds: Sequence[Made], width: int) -> list[Text]:
    """Names of the gates that pass, and those that do not with their values."""
    targets = [target for made in builds for target in made.report.targets]
    names = [target.target for target in targets]
    room = max(len(targets), 3) * _GATE_LINES
    found: list[Text] = []
    for detail in _DETAILS:
        found = []
        for made in builds:
            for target in made.report.targets:
                is_known = names.count(target.target) == 1
                name = target.target if is_known else f"{made.report.name} {target.target}"
                found += _gates_of(name, target, detail, width)
            if made.report.error and not made.report.targets:
                found += _told(made.report.name, made.report.error, detail, width)
        if len(found) <= room:
            break
    return found


def _gates_of(name: str, target: TargetReport, detail: Detail, width: int) -> Iterator[Text]:
    passed = list(dict.fromkeys(verdict.gate for verdict in target.verdicts if verdict.outcome == "pass"))
    if passed:
        yield from _wrapped(f"{name}: pass: {', '.join(passed)}", detail.lines, width, "")
    unmeasured = [verdict for verdict in target.verdicts if verdict.outcome == "unmeasured"]
    for platform, found in groupby(unmeasured, key=lambda verdict: verdict.platform):
        gates = ", ".join(dict.fromkeys(verdict.gate for verdict in found))
        yield from _wrapped(f"{name}: not measured on {platform}: {gates}", 1, width, "yellow")
    broken = [verdict for verdict in target.verdicts if verdict.outcome in ("fail", "inconclusive")]
    # A promise that is broken matters more than one that could not be judged.
    broken.sort(key=lambda verdict: verdict.outcome != "fail")
    for verdict in broken[: detail.broken]:
        yield from _broken(name, verdict, detail, width)
    if more := [verdict.gate for verdict in broken[detail.broken :]]:
        yield from _wrapped(f"{name}: not passed either: {', '.join(more)}", 1, width, "red")
    if target.error:
        yield from _told(name, target.error, detail, width)


def _broken(name: str, verdict: Verdict, detail: Detail, width: int) -> list[Text]:
    is_failure = verdict.outcome == "fail"
    text = f"{name}: {'FAIL' if is_failure else verdict.outcome}: {verdict.gate} {verdict.observed}"
    text += f", must be {verdict.limit}"
    if verdict.where:
        text += f" ({verdict.where})"
    return _wrapped(text, detail.lines, width, "red" if is_failure else "yellow")


def _told(name: str, error: str, detail: Detail, width: int) -> Iterator[Text]:
    """An error by its first line, and what to do."""
    message, *more = error.splitlines() or [""]
    yield from _wrapped(f"{name}: {message}", detail.lines, width, "red")
    if way_out := next((line for line in more if line.startswith("help: ")), None):
        yield from _wrapped(f"{name}: {way_out}", detail.lines, width, "")


def _bundles(builds: Sequence[Made]) -> Iterator[Text]:
    """Directories of bundles, or why there are none."""
    for made in builds:
        report = made.report
        if not report.targets:
            continue
        if places := dict.fromkeys(Path(target.bundle).parent for target in report.targets if target.bundle):
            yield from (Text(str(place)) for place in places)
            continue
        failed = [target.target for target in report.targets if target.exit_code]
        others = "" if len(failed) == len(report.targets) else "; all targets are published together"
        yield Text(f"none of {report.name}: {joined(failed, 'and')} did not pass{others}", style="red")


def _next(builds: Sequence[Made], arguments: Sequence[str], *, is_verbose: bool) -> Iterator[str]:
    """Commands that are of use now."""
    targets = [(made.report, target) for made in builds for target in made.report.targets]
    # First what ran here: another machine's bundle may not even open.
    ordered = sorted(targets, key=lambda pair: sum(verdict.outcome == "unmeasured" for verdict in pair[1].verdicts))
    bundles = [(report, Path(target.bundle)) for report, target in ordered if target.bundle]
    if bundles:
        yield _trial(bundles[0][1])
    served = next(((report, path) for report, path in bundles if (path / "Dockerfile").is_file()), None)
    if served is not None and served[0].unfit_reason is None:
        report, path = served
        yield f"docker build -t {report.name}:{report.version}-{path.name} {_shell(path)}"
    outcomes = {verdict.outcome for _, target in targets for verdict in target.verdicts}
    if elsewhere := [
        target.bundle
        for _, target in targets
        if target.bundle and any(verdict.outcome == "unmeasured" for verdict in target.verdicts)
    ]:
        yield f"ortc attach {_shell(elsewhere[0])} FILE  # measured on its own machine by its runtime/measure.py"
    command, *rest = arguments
    if "inconclusive" in outcomes:
        yield f"{shlex.join(['ortc', *arguments])}  # when this machine is less busy: only times are measured again"
    elif outcomes and not is_verbose and not any(argument.startswith(_REMEASURE) for argument in rest):
        yield f"{shlex.join(['ortc', command, '-v', *rest])}  # every number, and why each variant lost"


def _trial(bundle: Path) -> str:
    """The command that asks a bundle for an answer, or checks it where it takes bare tensors."""
    from ortc.bundle.answering import SEVERAL_PARTS
    from ortc.bundle.manifest import read_bundle
    from ortc.bundle.rows import example_row, takes_rows
    from ortc.execution.worker import is_script

    manifest = read_bundle(bundle)
    processing = manifest.processing
    if processing is not None and processing.kind not in SEVERAL_PARTS:
        argument = {"text": '"a text"', "image": "PICTURE", "audio": "SOUND"}[processing.takes]
        return f"ortc run {_shell(bundle)} {argument}"
    if processing is None and takes_rows(manifest) and not is_script(bundle):
        _, row = example_row(manifest)
        return f"ortc run {_shell(bundle)} {shlex.quote(row) if len(row) <= _LONGEST_ROW else 'ROWS.csv'}"
    return f"ortc verify {_shell(bundle)}"


def _shell(path: str | Path) -> str:
    return shlex.quote(os.fspath(path))


def _labelled(label: str, lines: Sequence[Text]) -> Iterator[Text]:
    for number, line in enumerate(lines):
        start = Text(f"{label if number == 0 else '':<{_LABEL}}", style="dim")
        yield Text.assemble(start, line)


def _shortened(text: str, width: int) -> str:
    """The text on one line; an end that has no room becomes an ellipsis."""
    text = " ".join(text.split())
    return text if cell_len(text) <= width else f"{set_cell_size(text, max(0, width - 1)).rstrip()}…"


def _wrapped(text: str, lines: int, width: int, style: str) -> list[Text]:
    """The text on at most that many lines; an end that has no room becomes an ellipsis."""
    inner = max(20, width - len(_GAP))
    text = " ".join(text.split())
    found = Text(text).wrap(Console(file=io.StringIO(), width=inner), inner)
    shown = [line.plain.rstrip() for line in found[:lines]]
    if len(found) > lines:
        shown[-1] = f"{_shortened(shown[-1], inner - 1).removesuffix('…')}…"
    return [Text(f"{_GAP if number else ''}{line}", style=style) for number, line in enumerate(shown)]
