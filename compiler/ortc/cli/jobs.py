"""What `ortc plan` says of the jobs of some specs, and what `ortc job run` does with one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from ortc.cli.prepare import checked_spec
from ortc.common.digests import sha256_file
from ortc.common.errors import UsageError
from ortc.plan.jobs import Job, job_of, spec_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ortc.execution.action_cache import Store
    from ortc.plan.plan import Plan, Search


def foreseen_jobs(
    specs: Sequence[Path],
    targets: tuple[str, ...],
    overrides: tuple[str, ...],
    *,
    search: Search,
    variant: str | None,
    output: Path,
    store: Store,
    cache_url: str | None,
) -> list[Job]:
    """The jobs of some specs: one for each target.

    Args:
        specs: of one checkout, that of the current directory.
        targets: those that are meant; all when empty.
        overrides, search, variant: as of the command.
        output: where bundles will go.
        store: where results may be known.
        cache_url: the cache that machines share.

    Raises:
        SpecError: a spec is invalid.
        UsageError: a spec is of another checkout, or two jobs are for one bundle.
    """
    from ortc.build.dry_run import foresee

    # Every spec is checked before the work on the first is foreseen.
    prepared = [(spec, *_whole(spec, overrides, targets, search, variant)) for spec in specs]
    jobs: list[Job] = []
    for spec, plan, root in prepared:
        place = _below(spec, root)
        for target in (target for target in plan.targets if not targets or target.name in targets):
            states = Counter(stage.state for stage in foresee(plan.slice(target.name), root, output, store))
            jobs.append(
                job_of(
                    plan,
                    target,
                    place,
                    sha256_file(spec),
                    overrides=overrides,
                    cache_url=cache_url,
                    cached=states["cached"] + states["cached (remote)"],
                    will_run=states["will run"],
                )
            )
    _refuse_twins(jobs)
    return jobs


def plan_of(job: Job, root: Path) -> tuple[Path, Plan, Path]:
    """The spec of a job in a checkout, the plan of its target, and the root that its paths resolve against.

    Raises:
        SpecError: the spec is invalid.
        UsageError: the checkout is another one than the job was planned in.
    """
    path = spec_of(job, root)
    whole, own = _whole(path, job.overrides, (job.target,), job.search, job.variant)
    plan = whole.slice(job.target)
    if plan.digest() == job.plan_sha256:
        return path, plan, own
    raise UsageError(
        f"{job.id}: this checkout has another plan for `{job.target}` of {job.spec} than the job names: "
        f"{plan.digest()[:12]}, and not {job.plan_sha256[:12]}",
        help="run the job in the commit that it was planned in, with the same profiles; or plan again",
    )


def _whole(
    path: Path, overrides: tuple[str, ...], targets: tuple[str, ...], search: Search, variant: str | None
) -> tuple[Plan, Path]:
    """The plan of all targets of a spec, whose `targets` have the variant: slices of it are those of any build."""
    from ortc.plan.resolve import resolve

    checked = checked_spec(path, overrides, targets, variant)
    spec, root = checked.loaded.spec, checked.loaded.root
    return resolve(spec, checked.profiles, search=search, variant=variant), root


def _below(spec: Path, root: Path) -> str:
    """The path of a spec below the current directory.

    Raises:
        UsageError: it lies elsewhere.
    """
    try:
        return spec.resolve().relative_to(Path.cwd().resolve()).as_posix()
    except ValueError as error:
        raise UsageError(
            f"{spec} lies outside of the current directory, so that no other machine finds it",
            help=f"plan jobs in the root of the checkout: {root}",
        ) from error


def _refuse_twins(jobs: Sequence[Job]) -> None:
    """Check that no two jobs write one bundle.

    Raises:
        UsageError: two do.
    """
    seen: dict[tuple[str, str, str], Job] = {}
    for job in jobs:
        twin = seen.setdefault((job.name, job.version, job.target), job)
        if twin is not job:
            raise UsageError(
                f"{twin.spec} and {job.spec} both build `{job.target}` of {job.name} {job.version}",
                help="give one of them another `metadata.name` or `metadata.version`",
            )
