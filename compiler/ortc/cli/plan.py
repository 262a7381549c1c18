"""`ortc plan`: what a build would do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from ortc.cli.caches import cache_url, open_store
from ortc.cli.jobs import foreseen_jobs
from ortc.cli.matrix import MATRICES, matrix_text
from ortc.cli.options import output_option, set_option, target_option, trust_options
from ortc.cli.prepare import checked_spec, prepare, search_options
from ortc.cli.report import write
from ortc.cli.several import Outcome, run_each
from ortc.cli.streams import write_raw
from ortc.plan.jobs import jobs_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ortc.build.dry_run import Foreseen
    from ortc.plan.plan import Plan, Search


@click.command
@click.argument("specs", metavar="SPEC...", nargs=-1, required=True, type=click.Path(path_type=Path))
@target_option("Plan")
@output_option("Where the bundles would go.")
@set_option()
@search_options
@trust_options
@cache_url
@click.option(
    "--print",
    "print_plan",
    is_flag=True,
    help="Print a plan file as JSON, for `ortc build --plan`.",
)
@click.option(
    "--jobs",
    "jobs_form",
    type=click.Choice(["json"]),
    help="Print the jobs that machines can do apart, one for each target, for `ortc job run`.",
)
@click.option(
    "--matrix",
    type=click.Choice(MATRICES),
    help="Print the jobs as continuous integration reads them: a matrix of GitHub, a child pipeline of GitLab, or a "
    "list for `withParam` of Argo.",
)
@click.option("--json", "as_json", is_flag=True, help="Print plan and stages as JSON.")
def plan(
    specs: tuple[Path, ...],
    targets: tuple[str, ...],
    output: Path,
    overrides: tuple[str, ...],
    search: Search,
    variant: str | None,
    cache_url: str | None,
    print_plan: bool,
    jobs_form: str | None,
    matrix: str | None,
    as_json: bool,
) -> int:
    """Show what `ortc build` would do with each spec: each stage cached, or why it will run."""
    _refuse_several({"--print": print_plan, "--jobs": jobs_form, "--matrix": matrix, "--json": as_json})
    if print_plan:
        if len(specs) > 1:
            raise click.UsageError("--print gives the plan file of one spec: not with several specs")
        from ortc.plan.plan_file import plan_file_text

        checked = checked_spec(specs[0], overrides, targets, variant)
        write_raw(plan_file_text(checked, targets, search=search, variant=variant))
        return 0
    from ortc.build.dry_run import foresee
    from ortc.plan.references import with_references

    store = open_store(cache_url)
    if jobs_form is not None or matrix is not None:
        jobs = foreseen_jobs(
            specs,
            targets,
            overrides,
            search=search,
            variant=variant,
            output=output,
            store=store,
            cache_url=cache_url,
        )
        for warning in store.warnings():
            write(f"note: {warning}\n")
        write_raw(f"{jobs_text(jobs, indent=2)}\n" if matrix is None else matrix_text(matrix, jobs))
        return 0
    told: set[str] = set()

    def one(spec: Path) -> Outcome:
        resolved, root = prepare(spec, overrides, targets, search=search, variant=variant)
        stages = foresee(resolved, root, output, store)
        for warning in store.warnings():
            if warning not in told:
                write(f"note: {warning}\n")
                told.add(warning)
        document = {
            "format_version": 1,
            "plan_sha256": resolved.digest(),
            "plan": with_references(resolved),
            "stages": [stage.model_dump(mode="json") for stage in stages],
        }
        return Outcome(document, "".join(_lines(resolved, stages)))

    return run_each(specs, one, as_json=as_json, noun="spec")


def _refuse_several(forms: Mapping[str, object]) -> None:
    if len(chosen := [name for name, given in forms.items() if given]) > 1:
        raise click.UsageError(f"{' and '.join(chosen)} exclude each other.")


def _lines(resolved: Plan, stages: Sequence[Foreseen]) -> Iterator[str]:
    yield f"{resolved.name} {resolved.version}, plan {resolved.digest()[:12]}\n"
    for target in resolved.targets:
        variants = ", ".join(variant.name for variant in target.variants)
        yield (
            f"  {target.name}: for {', '.join(target.platforms)}; precision {target.precision} ({variants}); "
            f"measured at {target.measure_at}\n"
        )
        for entry in target.left_out:
            yield f"    without {entry.variant}: {entry.reason}\n"
    width = max((len(stage.state) for stage in stages), default=0)
    for stage in stages:
        reason = f"  {stage.reason}" if stage.reason else ""
        yield f"  {stage.state:<{width}} {stage.stage:<13} {stage.subject}{reason}\n"
    running = sum(stage.state == "will run" for stage in stages)
    yield f"{running} of {len(stages)} stages will run\n"
    if (functions := resolved.entrypoints()) and any(stage.state.startswith("cached") for stage in stages):
        named = ", ".join(f"`{name}`" for name in functions)
        yield (
            f"not run: {named}. A build runs them and compares what they give; a plan compares the files that they "
            "read the last time\n"
        )
