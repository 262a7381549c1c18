"""`ortc build`: the whole job."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from ortc.cli.caches import cache_url, open_store
from ortc.cli.emit import image_option, parse_kinds
from ortc.cli.jobs import foreseen_jobs
from ortc.cli.live_progress import progress_of_build
from ortc.cli.made import Made
from ortc.cli.options import (
    RemeasuringCommand,
    given_arguments,
    output_option,
    remeasure_option,
    set_option,
    target_option,
    trust_options,
    verbose_option,
)
from ortc.cli.prepare import prepare, prepare_plan, search_options
from ortc.cli.registry import open_registry
from ortc.cli.report import report_error
from ortc.cli.results import show_results
from ortc.cli.several import worst
from ortc.cli.side_by_side import do_side_by_side, model_bytes
from ortc.common.atomic_files import replace_file
from ortc.common.errors import OrtcError, StageError
from ortc.common.redaction import mask_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from ortc.build.context import Context
    from ortc.build.progress import Progress
    from ortc.bundle.delivery.manifests import Kind
    from ortc.evaluation.report import BuildReport
    from ortc.execution.action_cache import Store
    from ortc.plan.plan import Plan, Search
    from ortc.registry.store import Added, Registry


@click.command(cls=RemeasuringCommand)
@click.argument("specs", metavar="SPEC...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--plan",
    "plan_file",
    metavar="FILE",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Build exactly this plan, of `ortc plan --print`, instead of specs; `-` reads it from stdin. Its paths start "
    "from the project of the current directory.",
)
@target_option("Build")
@output_option("Directory for bundles: OUTPUT/NAME/VERSION/TARGET.")
@set_option("the specs")
@search_options
@trust_options
@remeasure_option()
@click.option("--locked", is_flag=True, help="Fail when anything would differ from the ortc.lock beside the spec.")
@click.option(
    "--register",
    "registry_url",
    metavar="URL",
    help="Register the bundles of each spec whose promises were all kept: a directory or a URL of fsspec.",
)
@click.option(
    "--emit",
    "emitted",
    callback=parse_kinds,
    metavar="KINDS",
    help="Write manifests that deploy each bundle to TARGET.deploy beside it: k8s, kserve, triton; a list with commas.",
)
@image_option
@cache_url
@click.option(
    "-j",
    "--jobs",
    "most",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    metavar="N",
    help="Work on N targets at once; while one is timed, the others wait.",
)
@verbose_option
@click.option("--json", "as_json", is_flag=True, help="Print the reports as JSON instead of a summary.")
def build(
    specs: tuple[Path, ...],
    plan_file: Path | None,
    targets: tuple[str, ...],
    output: Path,
    overrides: tuple[str, ...],
    search: Search,
    variant: str | None,
    remeasured: frozenset[str],
    locked: bool,
    registry_url: str | None,
    emitted: tuple[Kind, ...],
    image: str,
    cache_url: str | None,
    most: int,
    is_verbose: bool,
    as_json: bool,
) -> int:
    """Export, optimize, quantize, verify, measure and bundle.

    A bundle appears only when every promise of its spec was kept. Exit codes: 3 the spec is invalid, 4 a stage failed,
    5 accuracy, 6 a budget, 7 something could not be measured here.
    """
    if plan_file is not None:
        others = {"SPEC": specs, "--set": overrides, "--search": search != "full", "--variant": variant}
        _refuse_beside("--plan", {**others, "--locked": locked})
        specs, prepared = (plan_file,), [prepare_plan(plan_file, targets)]
    elif not specs:
        raise click.UsageError("Missing argument 'SPEC...', or `--plan FILE`.")
    else:
        # Every spec is checked before work on the first begins.
        prepared = [prepare(path, overrides, targets, search=search, variant=variant) for path in specs]
    if emitted:
        refuse_unfit_plans(plan for plan, _ in prepared)
    registry = None if registry_url is None else _reached(registry_url)
    expect_writable(output)
    store = open_store(cache_url)
    if most > 1:
        _refuse_beside("--jobs", {"--plan": plan_file, "--locked": locked, "--remeasure": remeasured})
        jobs = foreseen_jobs(
            specs, targets, overrides, search=search, variant=variant, output=output, store=store, cache_url=cache_url
        )
        do_side_by_side(jobs, most, cache_url, {plan.name: model_bytes(plan, root) for plan, root in prepared})
    done = Done()
    for path, (plan, root) in zip(specs, prepared, strict=True):
        progress = progress_of_build(str(path), plan, output, is_verbose=is_verbose)
        report = build_one(path, plan, root, output, store, progress, locked=locked, remeasured=remeasured)
        keep(done, report, output)
        bundles = [Path(target.bundle) for target in report.targets if target.bundle and report.exit_code == 0]
        with told(done):
            done.emitted += deploy(bundles, emitted, image)
            if registry is not None:
                done.registered += [registry.add(bundle) for bundle in bundles]
    if as_json:
        _print_json(done, has_registry=registry_url is not None, has_emitted=bool(emitted))
    else:
        _print_text(done, registry_url, is_verbose=is_verbose)
    return worst(done.codes)


def _reached(registry_url: str) -> Registry:
    """The registry: one that cannot be reached is told before hours of work."""
    registry = open_registry(registry_url)
    registry.prepare()
    return registry


def _refuse_beside(option: str, given: Mapping[str, object]) -> None:
    for name, value in given.items():
        if value:
            why = ", which says all that is built" if option == "--plan" else ""
            raise click.UsageError(f"{name} does not go with {option}{why}.")


def expect_writable(output: Path) -> None:
    """Make the directory for bundles: one that cannot be made is reported before hours of work.

    Raises:
        StageError: it cannot be made.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StageError(
            f"cannot make the directory for bundles, {output}: {error.strerror or error}",
            help="name another one with `-o`",
        ) from error


@dataclass
class Done:
    """What the builds of one command gave so far: reports, exit codes, files that deploy, registered versions."""

    reports: list[BuildReport] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    emitted: list[Path] = field(default_factory=list)
    registered: list[Added] = field(default_factory=list)
    files: dict[int, tuple[Path, ...]] = field(default_factory=dict)
    """Files of reports, by their place in `reports`."""


def build_one(
    path: Path,
    plan: Plan,
    root: Path,
    output: Path,
    store: Store,
    progress: Progress,
    *,
    locked: bool,
    remeasured: frozenset[str],
) -> BuildReport:
    """Build one spec; an error becomes a report."""
    from ortc.build.pipeline import build as run

    try:
        check = None
        if locked:
            plan, check = apply_lock(path, plan)
        return run(plan, root, output, store, progress, check, remeasured=remeasured)
    except OrtcError as error:
        progress.close()
        report_error(error)
        return _failure(plan, error, progress)
    finally:
        progress.close()


@contextmanager
def told(done: Done) -> Iterator[None]:
    """Report an error, and go on with the next spec."""
    try:
        yield
    except OrtcError as error:
        report_error(error)
        done.codes.append(error.exit_code)


def _print_json(done: Done, *, has_registry: bool, has_emitted: bool) -> None:
    document: dict[str, Any] = {
        "format_version": 1,
        "builds": [report.model_dump(mode="json") for report in done.reports],
    }
    if has_registry:
        document["registered"] = [entry.model_dump(mode="json") for entry in done.registered]
    if has_emitted:
        document["emitted"] = [str(path) for path in done.emitted]
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def _print_text(done: Done, registry_url: str | None, *, is_verbose: bool) -> None:
    builds = [Made(report, done.files.get(index, ())) for index, report in enumerate(done.reports)]
    show_results(builds, given_arguments(), is_verbose=is_verbose)
    if done.emitted:
        sys.stdout.write("\nto deploy:\n" + "".join(f"  {path}\n" for path in done.emitted))
    if done.registered:
        sys.stdout.write(f"\nregistered in {mask_secrets(str(registry_url))}:\n")
        for entry in done.registered:
            state = "" if entry.new else ", as before"
            sys.stdout.write(f"  {entry.name}@{entry.version} for {entry.target}{state}\n")


def refuse_unfit_plans(plans: Iterable[Plan]) -> None:
    """Refuse to write manifests for what is not fit to serve, before hours of work.

    Raises:
        StageError: the weights of a model are random.
    """
    from ortc.bundle.assemble import unfit_reason

    for plan in plans:
        if (reason := unfit_reason(plan)) is not None:
            raise StageError(
                f"{plan.name} {plan.version} is not to be deployed: it would not be fit to serve, {reason}",
                help="build it with trained weights, or without `--emit`",
            )


def deploy(bundles: list[Path], kinds: tuple[Kind, ...], image: str) -> list[Path]:
    """Write what deploys bundles, and tell where.

    Raises:
        StageError: a bundle is not to be deployed, or not in that way.
    """
    if not kinds:
        return []
    from ortc.bundle.delivery.manifests import emit

    return [path for bundle in bundles for path in emit(bundle, kinds, image=image)]


def apply_lock(spec: Path, plan: Plan) -> tuple[Plan, Callable[[Context], None]]:
    """The plan as it was locked, and what refuses ingredients that were not.

    Raises:
        StageError: there is no lock for the spec, or the plan is another one.
    """
    from ortc.build.ingredients import ingredients
    from ortc.build.lock import LOCK_FILE, check_locked, lock_path, read_lock, restrict

    entry = read_lock(lock_path(spec)).specs.get(plan.name)
    if entry is None:
        raise StageError(
            f"{LOCK_FILE} beside {spec} has no entry for `{plan.name}`", help=f"write it: `ortc lock {spec}`"
        )

    def check(context: Context) -> None:
        check_locked(entry.ingredients, ingredients(context), context.workspace.root)

    return restrict(plan, entry), check


def _failure(plan: Plan, error: OrtcError, progress: Progress) -> BuildReport:
    """The report of a build that ended before any target could be judged."""
    from ortc.evaluation.report import BuildReport
    from ortc.execution.host import describe

    lines = [error.message, *error.details, *([f"help: {error.help}"] if error.help else [])]
    return BuildReport(
        name=plan.name,
        version=plan.version,
        plan_sha256=plan.digest(),
        host=describe(),
        stages=tuple(progress.times),
        error="\n".join(lines),
        exit_code=error.exit_code,
    )


def keep(done: Done, report: BuildReport, output: Path, part: str | None = None) -> None:
    """Add a report to what is done, and keep it as `keep_report` does."""
    done.reports.append(report)
    done.codes.append(report.exit_code)
    with told(done):
        done.files[len(done.reports) - 1] = keep_report(report, output, part)


def keep_report(report: BuildReport, output: Path, part: str | None = None) -> tuple[Path, Path]:
    """Keep the report and its page beside the bundles, whether they were published or not; return both files.

    Args:
        report: of the build.
        output: the directory of bundles.
        part: the only target that the report is of, where that was not asked for by name: its files are its own.

    Raises:
        StageError: they cannot be written.
    """
    from ortc.pages.report_page import report_page

    name = report.version if part is None else f"{report.version}.{part}"
    place = output / report.name / f"{name}.report.json"
    page = place.with_suffix(".html")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        replace_file(place, f"{json.dumps(report.model_dump(mode='json'), indent=1)}\n".encode())
        replace_file(page, report_page(report))
    except OSError as error:
        raise StageError(f"cannot write the report to {output}: {error.strerror or error}") from error
    return place, page
