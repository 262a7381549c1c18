"""All results of a build: a table, every promise that was not simply kept, and why variants lost."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ortc.cli.summary import verdict_text
from ortc.common.statistics import Interval
from ortc.common.suggest import joined
from ortc.common.units import format_bytes, format_seconds
from ortc.evaluation.footprint import Footprint
from ortc.evaluation.noise import beside
from ortc.evaluation.report import BuildReport, Decision, Numbers, Soak, TargetReport, Verdict
from ortc.evaluation.trade import Trade
from ortc.passes.kernel_tables import counted, own_operators
from ortc.plan.precision_mix import IN

_WIDTH = 160
_MAY_WRAP = ("variant", "verdict")
"""The columns that give way on a narrow terminal; a number that is cut off tells nothing."""

SHOWN_NODES = 5
"""Nodes that are named: of a trade the ones that are best kept in higher precision, of a graph the first on the CPU."""
_NOTHING = "\u2013"
"""An en dash, where there is no value."""
_NOISY = "noisy"
_OUTCOME = {"pass": "green", "fail": "red", "inconclusive": "yellow", "unmeasured": "yellow"}


def show(reports: list[BuildReport]) -> None:
    """Print one line a target, then every promise that was not simply kept, and why variants lost."""
    out = console()
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in ("model", "target", "variant", "size", "p50", "p99", "vs eager", "parity", "verdict"):
        table.add_column(
            column,
            justify="right" if column in ("size", "p50", "p99", "vs eager") else "left",
            no_wrap=column not in _MAY_WRAP,
        )
    for report in reports:
        for target in report.targets:
            table.add_row(*_row(report, target))
    out.print(table)
    for report in reports:
        if report.exporter_reason:
            out.print(f"\n{report.name}: exported by {report.exporter}, because {report.exporter_reason}", markup=False)
        for kind, names in (("parts", report.parts_left_out), ("inputs", report.inputs_left_out)):
            if names:
                out.print(f"\n{report.name}: {kind} left out: {', '.join(names)}", markup=False, soft_wrap=True)
        if report.unfit_reason:
            out.print(f"\n{report.name}: not fit to serve: {report.unfit_reason}", markup=False, soft_wrap=True)
        if report.skipped_cases:
            out.print(f"\n{report.name}: not checked: {_skipped(report.skipped_cases)}", markup=False, soft_wrap=True)
        for target in report.targets:
            _details(out, report, target)


def console() -> Console:
    """Stdout; as wide as a table needs where no terminal says how wide it is."""
    found = Console(file=sys.stdout, highlight=False)
    return found if found.is_terminal else Console(file=sys.stdout, highlight=False, width=_WIDTH)


def _row(report: BuildReport, target: TargetReport) -> list[str | Text]:
    numbers = target.numbers
    variant = _NOTHING if target.variant is None else f"{target.variant} ({target.graph_level})"
    if target.tuning is not None:
        variant += f", {target.tuning}"
    return [
        f"{report.name} {report.version}",
        target.target,
        variant,
        _NOTHING if target.model_bytes is None else format_bytes(target.model_bytes),
        _NOTHING if numbers is None else _time(numbers.p50_ms, numbers),
        _NOTHING if numbers is None else _time(numbers.p99_ms, numbers),
        _NOTHING if numbers is None or numbers.speedup is None else _speedup(numbers.speedup, numbers),
        target.parity or _NOTHING,
        verdict_text(report, target),
    ]


def _time(milliseconds: Interval, numbers: Numbers) -> str | Text:
    """A time; one that claims nothing is marked, and does not look like the others."""
    text = format_seconds(milliseconds.value / 1000)
    return Text(f"{text} {_NOISY}", style="dim") if numbers.noise else text


def _speedup(speedup: Interval, numbers: Numbers) -> str | Text:
    """A ratio with its interval. Of one that claims nothing the figure itself would be remembered."""
    return Text(_NOISY, style="dim") if numbers.speedup_noise else _ratio(speedup)


def _ratio(speedup: Interval) -> str:
    low, high = ("?" if bound is None else f"{bound:.2f}" for bound in (speedup.low, speedup.high))
    return f"{speedup.value:.2f}x [{low}, {high}]"


def _skipped(cases: tuple[str, ...]) -> str:
    """Shapes that were left out, by reason."""
    shapes: dict[str, list[str]] = {}
    for case in cases:
        shape, _, reason = case.partition(": ")
        shapes.setdefault(reason, []).append(shape)
    return "; ".join(f"{' and '.join(found)} ({reason})" for reason, found in shapes.items())


def _details(out: Console, report: BuildReport, target: TargetReport) -> None:
    lines = [
        _verdict(verdict) for verdict in target.verdicts if target.status != "published" or verdict.outcome != "pass"
    ]
    lines.extend(
        _decision(decision)
        for decision in target.decisions
        if decision.outcome != "selected" or len(target.decisions) > 1
    )
    lines.extend(
        Text(f"  at {entry.shape}: {entry.fastest} is the fastest, by {entry.gain.value:.2f}x")
        for entry in target.elsewhere
        if entry.fastest != target.variant and entry.gain.low is not None and entry.gain.low > 1
    )
    lines.extend(_graph(target))
    if target.smallest_right is not None:
        lines.append(_decision(target.smallest_right))
    if target.calibration_requests is not None:
        lines.append(
            Text(f"  calibrated on {target.calibration_requests} requests; none of them is used to judge accuracy")
        )
    if target.error:
        lines.append(Text(f"  {target.error}", style="red"))
    if target.footprint is not None:
        lines.append(Text(f"  footprint: {_footprint(target.footprint)}"))
    if target.numbers is not None:
        numbers = target.numbers
        start = format_seconds(numbers.start_seconds.value)
        memory = None if numbers.start_peak_rss_bytes is None else format_bytes(numbers.start_peak_rss_bytes)
        if numbers.eager_start_seconds is not None:
            start += f" (PyTorch {format_seconds(numbers.eager_start_seconds)})"
        if numbers.cached_start_seconds is not None:
            start += f", {format_seconds(numbers.cached_start_seconds.value)} when the browser kept the files"
        if memory is not None and numbers.eager_peak_rss_bytes is not None:
            memory += f" (PyTorch {format_bytes(numbers.eager_peak_rss_bytes)})"
        lines.append(
            Text(
                f"  start to first answer {start}"
                + (f" in {memory}" if memory else "")
                + f", at most {format_bytes(numbers.peak_rss_bytes)} at any shape{_soaked(numbers.soak)}"
                + f", {numbers.p99_ms.samples} samples"
                + (f", {numbers.requests_per_second.value:.1f} requests/s" if numbers.requests_per_second else "")
            )
        )
        lines.extend(_noise(numbers))
    lines.extend(line for trade in target.trades for line in _trade(trade))
    if lines:
        out.print(f"\n{report.name} {target.target}", style="bold", markup=False)
        for line in lines:
            out.print(line, soft_wrap=True)


def _noise(numbers: Numbers) -> Iterator[Text]:
    """Why times claim nothing, and what ran beside them."""
    kinds = {
        "latency": numbers.noise,
        "speed-up": numbers.speedup_noise,
        "requests per second": numbers.rate_noise,
        "start": numbers.start_noise,
    }
    if not any(kinds.values()):
        return
    yield Text(f"  {noisy(kinds)}", style="yellow")
    for line in dict.fromkeys(line for lines in kinds.values() for line in lines):
        yield Text(f"    {line}", style="yellow")
    yield Text(f"    {beside(numbers.load)}", style="yellow")


def noisy(kinds: Mapping[str, Sequence[str]]) -> str:
    """Name the measurements that claim nothing, from the reasons against each kind."""
    found = joined([kind for kind, reasons in kinds.items() if reasons], "and")
    return f"noisy: this machine is too busy to measure {found}; the times shown for that are no evidence"


def _footprint(footprint: Footprint) -> str:
    """What the variant that ships takes besides time, in at most 100 columns."""
    parts = {
        "environment": footprint.environment_bytes,
        "image": footprint.image_bytes,
        "download": footprint.download_bytes,
        "model": footprint.model_bytes,
        "memory": footprint.memory_bytes,
    }
    found = [f"{name} {format_bytes(size)}" for name, size in parts.items() if size is not None]
    if footprint.start_seconds is not None:
        found.append(f"start {format_seconds(footprint.start_seconds)}")
    return ", ".join(found)


def _soaked(soak: Soak | None) -> str:
    """By how many shapes the memory is known, where there is more than one."""
    return "" if soak is None or soak.end == "fixed" else f" ({soak.shapes} of {soak.of} were run)"


def _graph(target: TargetReport) -> Iterator[Text]:
    """ONNX Runtime's own operators in the graph that is served, and which nodes have no kernel on its provider."""
    if own := own_operators(target.operators):
        yield Text(f"  ONNX Runtime's own operators: {counted(own)}; {sum(target.operators.values())} nodes in all")
    if (placement := target.placement) is None:
        return
    of = f"{placement.provider} of {placement.runtime}"
    if not placement.cpu_nodes:
        yield Text(f"  foreseen: {of} has a kernel for every compute node")
        return
    yield Text(f"  foreseen on the CPU, for want of a kernel of {of}:", style="yellow")
    for node in placement.cpu_nodes[:SHOWN_NODES]:
        yield Text(f"    {node.operator} ({', '.join(node.types)}) {node.name}")
    if (more := len(placement.cpu_nodes) - SHOWN_NODES) > 0:
        yield Text(f"    and {more} more")


def _trade(trade: Trade) -> Iterator[Text]:
    """The mixes of precisions that were tried for a variant that is too inexact as a whole."""
    gates = sorted(trade.limits)
    worst = ", ".join(node.name for node in trade.nodes[:SHOWN_NODES])
    yield Text(f"  trade of {trade.variant}, {len(trade.nodes)} nodes; first kept in higher precision: {worst}")
    for point in trade.points:
        accuracy = " ".join(f"{gate} {point.accuracy[gate]:.5f}" for gate in gates if gate in point.accuracy)
        time = "" if point.p50_ms is None else format_seconds(point.p50_ms / 1000)
        line = Text("    ")
        line.append(f"{'pass' if point.passes else 'fail':<5}", style=_OUTCOME["pass" if point.passes else "fail"])
        line.append(f"{point.reduced:>4} {IN[trade.precision]} {format_bytes(point.bytes):>9} {time:>9}  {accuracy}")
        yield line.append(f"  ({point.data}; {point.name})", style="dim")


def _decision(decision: Decision) -> Text:
    facts = [] if decision.bytes is None else [format_bytes(decision.bytes)]
    if decision.p50_ms is not None:
        facts.append(format_seconds(decision.p50_ms / 1000))
    if decision.slower is not None:
        facts.append(f"{decision.slower.value:.2f}x as long")
    text = Text(f"  {decision.variant}: {decision.outcome}, {decision.reason}")
    return text.append(f" ({', '.join(facts)})" if facts else "", style="dim")


def _verdict(verdict: Verdict) -> Text:
    text = Text("  ")
    text.append(f"{verdict.outcome:<12}", style=_OUTCOME[verdict.outcome])
    text.append(f" {verdict.platform:<12} {verdict.gate:<13} {verdict.observed}, must be {verdict.limit}")
    if verdict.where:
        text.append(f"  ({verdict.where})", style="dim")
    return text
