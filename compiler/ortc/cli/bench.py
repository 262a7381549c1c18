"""`ortc bench`: measure a finished bundle, or a spec's bundles beside PyTorch, on this host."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from click.core import ParameterSource

from ortc.cli.options import (
    RemeasuringCommand,
    measurement_option,
    output_option,
    remeasure_option,
    set_option,
    target_option,
    trust_options,
)
from ortc.cli.prepare import prepare, search_options
from ortc.cli.verify import exit_code, note
from ortc.common.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from ortc.build.benchmark import AtBatch, Benchmark, Row
    from ortc.common.statistics import Interval
    from ortc.plan.plan import Search

_NOTHING = "-"
_OF_SPECS = ("targets", "output", "overrides", "search", "variant", "batches", "remeasured")


def _batches(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """Whole numbers with commas between them."""
    try:
        sizes = tuple(int(part) for part in value.split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise click.BadParameter(
            f"{value!r} is no list of batch sizes. Expected whole numbers from 1 on, such as 1,4,16."
        )
    return sizes


@click.command(cls=RemeasuringCommand)
@click.argument("what", metavar="SPEC|BUNDLE", type=click.Path(path_type=Path, exists=True))
@target_option("Measure")
@click.option(
    "--batches",
    callback=_batches,
    metavar="SIZES",
    default="1,4,16",
    show_default=True,
    help="Sizes of the batch axis.",
)
@output_option("Where the spec's bundles lie, if they are built already. Nothing is written there.")
@set_option()
@search_options
@trust_options
@remeasure_option()
@measurement_option()
@click.option("--json", "as_json", is_flag=True, help="Print the measurements as JSON.")
@click.pass_context
def bench(
    context: click.Context,
    what: Path,
    targets: tuple[str, ...],
    batches: tuple[int, ...],
    output: Path,
    overrides: tuple[str, ...],
    search: Search,
    variant: str | None,
    remeasured: frozenset[str],
    measurement: Path | None,
    as_json: bool,
) -> int:
    """Measure a bundle (a directory) or a spec's model (a file) on this host.

    Of a bundle: latency percentiles with intervals, start to first answer, peak memory. Of a spec: all of that for
    PyTorch eager, torch.compile and the bundles that `ortc build` gives, in one interleaved run at every batch size.
    """
    if what.is_dir():
        for name in _OF_SPECS:
            if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
                option = next(entry for entry in context.command.params if entry.name == name).opts[-1]
                raise click.UsageError(f"{option} is for specs; {what} is a directory, so it is taken for a bundle")
        return _bench_bundle(what, as_json, measurement)
    if measurement is not None:
        raise click.UsageError(f"--measurement is for bundles; {what} is a file, so it is taken for a spec")
    from ortc.build.benchmark import benchmark
    from ortc.cli.progress import ConsoleProgress
    from ortc.common.resources import cache_root
    from ortc.execution.action_cache import Store

    plan, root = prepare(what, overrides, targets, search=search, variant=variant)
    progress = ConsoleProgress(str(what))
    try:
        found = benchmark(plan, root, output, Store(cache_root()), progress, batches, remeasured=remeasured)
    finally:
        progress.close()
    if as_json:
        sys.stdout.write(json.dumps(found.model_dump(mode="json"), indent=2) + "\n")
    else:
        show(found)
    return 0


def show(found: Benchmark) -> None:
    """Print one table a batch size."""
    from ortc.cli.table import console, noisy
    from ortc.evaluation.noise import beside

    out = console()
    versions = ", ".join(
        f"{name} {version}"
        for name, version in found.versions.items()
        if name in ("python", "torch") or name.startswith("onnxruntime")
    )
    out.print(f"{found.name} {found.version} on {found.host.cpu}, {found.threads} threads; {versions}", markup=False)
    for at in found.batches:
        out.print(f"\n{at.shape}: {at.rounds} interleaved rounds", style="bold", markup=False)
        out.print(_table(at))
        if at.noise:
            out.print(f"  {noisy({'latency and speed-up': at.noise})}", style="yellow")
            for line in (*at.noise, beside(at.load)):
                out.print(f"    {line}", markup=False, soft_wrap=True)
        for row in at.rows:
            if row.failed is not None:
                out.print(f"  {row.contender}: {row.failed}", markup=False, soft_wrap=True)
            if row.compile_seconds is not None:
                seconds = format_seconds(row.compile_seconds)
                out.print(f"  {row.contender}: {seconds} to compile, counted nowhere else", markup=False)
    for line in found.notes:
        out.print(f"note: {line}", markup=False, soft_wrap=True)


def _table(at: AtBatch) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    table.add_column("contender")
    for column in ("p50", "p90", "p99", "requests/s", "vs eager", "start", "peak memory", "samples"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in at.rows:
        table.add_row(*_cells(row))
    return table


def _cells(row: Row) -> list[str]:
    latencies = [
        _NOTHING if value is None else format_seconds(value.value / 1000)
        for value in (row.p50_ms, row.p90_ms, row.p99_ms)
    ]
    return [
        row.contender,
        *latencies,
        _NOTHING if row.requests_per_second is None else f"{row.requests_per_second:.1f}",
        _NOTHING if row.speedup is None else _ratio(row.speedup),
        _NOTHING if row.start_seconds is None else format_seconds(row.start_seconds),
        _NOTHING if row.peak_rss_bytes is None else format_bytes(row.peak_rss_bytes),
        str(row.samples) if row.samples else _NOTHING,
    ]


def _ratio(speedup: Interval) -> str:
    low, high = ("?" if bound is None else f"{bound:.2f}" for bound in (speedup.low, speedup.high))
    return f"{speedup.value:.2f}x [{low}, {high}]"


def _bench_bundle(bundle: Path, as_json: bool, measurement: Path | None) -> int:
    from ortc.bundle.verify import reverify
    from ortc.cli.table import noisy
    from ortc.common.resources import cache_root
    from ortc.evaluation.noise import beside
    from ortc.execution.action_cache import Store

    found = reverify(bundle, Store(cache_root()), measurement=measurement, say=note)
    if as_json:
        sys.stdout.write(json.dumps(found.model_dump(mode="json"), indent=2) + "\n")
    elif found.numbers is not None and found.race is not None:
        numbers = found.numbers
        sys.stdout.write(f"{found.bundle} at {found.race.shape}, {found.race.threads} threads, {found.host.cpu}\n")
        for name, interval in (("p50", numbers.p50_ms), ("p90", numbers.p90_ms), ("p99", numbers.p99_ms)):
            sys.stdout.write(f"  {name}    {_interval(interval)}, {interval.samples} samples\n")
        sys.stdout.write(f"  start  {format_seconds(numbers.start_seconds.value)} to the first answer\n")
        sys.stdout.write(f"  memory {format_bytes(numbers.peak_rss_bytes)} at most\n")
        if noise := (*numbers.noise, *numbers.start_noise):
            sys.stdout.write(f"  {noisy({'latency': numbers.noise, 'start': numbers.start_noise})}\n")
            for line in (*dict.fromkeys(noise), beside(numbers.load)):
                sys.stdout.write(f"    {line}\n")
    else:
        for verdict in found.verdicts:
            sys.stdout.write(f"{verdict.outcome}: {verdict.observed}\n")
    return 0 if found.numbers is not None else exit_code(found)


def _interval(interval: Interval) -> str:
    low, high = ("?" if bound is None else format_seconds(bound / 1000) for bound in (interval.low, interval.high))
    return f"{format_seconds(interval.value / 1000)} [{low}, {high}]"
