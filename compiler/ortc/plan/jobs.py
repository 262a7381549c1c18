"""Jobs: the parts of builds that machines can do apart, each one target of one spec."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator

from ortc import __version__
from ortc.common.errors import UsageError
from ortc.common.redaction import mask_secrets
from ortc.common.values import Frozen
from ortc.plan.plan import Plan, Search, TargetPlan

FORMAT_VERSION: Literal[1] = 1
MOST_BYTES = 2**20
"""Of the JSON of one job, or of several."""
HOST = "linux/amd64"
"""The platform of machines that build for browsers and for Node."""


class Job(Frozen):
    """One target of one spec, for a machine with the same checkout.

    A job grants nothing: packages, hosts and variables that a spec may use are allowed where it runs.
    """

    format_version: Literal[1] = FORMAT_VERSION
    ortc_version: str
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,200}$")]
    spec: str = Field(description="Its path below the root of the checkout, with slashes.")
    spec_sha256: str
    plan_sha256: str = Field(description="Of the plan of this target, with everything that decides its bundle.")
    name: str
    version: str
    target: str
    overrides: tuple[str, ...] = ()
    search: Search = "full"
    variant: str | None = None
    platform: str = Field(description="Of a machine that can measure what is built.")
    gpu: bool
    browser: bool
    cache_url: str | None = None
    cached: int = Field(ge=0, description="Stages whose results are known.")
    will_run: int = Field(ge=0, description="Stages that are still to do, as far as that can be told now.")

    @field_validator("spec")
    @classmethod
    def _is_below(cls, value: str) -> str:
        path = PurePosixPath(value)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise ValueError("it is no path below the root of the checkout")
        return value


class Jobs(Frozen):
    """Several jobs, which one machine does one after the other."""

    format_version: Literal[1] = FORMAT_VERSION
    jobs: Annotated[tuple[Job, ...], Field(min_length=1)]


def job_of(
    plan: Plan,
    target: TargetPlan,
    spec: str,
    spec_sha256: str,
    *,
    overrides: tuple[str, ...],
    cache_url: str | None,
    cached: int,
    will_run: int,
) -> Job:
    """Return the job of one target of a plan.

    Args:
        plan: of the spec, with all its targets.
        target: one of them.
        spec: the spec's path below the root of the checkout.
        spec_sha256: of its file.
        overrides: `--set` of the command.
        cache_url: the cache that machines share; left out where it holds a secret.
        cached: how many stages are.
        will_run: how many are not.
    """
    part = plan.slice(target.name).digest()
    shown = cache_url if cache_url is None or mask_secrets(cache_url) == cache_url else None
    return Job(
        ortc_version=__version__,
        id=f"{plan.name}-{plan.version}-{target.name}-{part[:12]}".replace("+", "-"),
        spec=spec,
        spec_sha256=spec_sha256,
        plan_sha256=part,
        name=plan.name,
        version=plan.version,
        target=target.name,
        overrides=overrides,
        search=plan.search,
        variant=plan.variant,
        platform=HOST if target.is_web else target.platforms[0],
        gpu=target.requires_gpu,
        browser=target.is_web,
        cache_url=shown,
        cached=cached,
        will_run=will_run,
    )


def jobs_text(jobs: Sequence[Job], *, indent: int | None = None) -> str:
    """Return jobs as JSON: one as an object, several as `jobs` of an object."""
    document: Frozen = jobs[0] if len(jobs) == 1 and indent is None else Jobs(jobs=tuple(jobs))
    separators = (",", ":") if indent is None else None
    return json.dumps(document.model_dump(mode="json"), indent=indent, separators=separators, ensure_ascii=False)


def read_jobs(text: str | bytes, where: str) -> tuple[Job, ...]:
    """Read what `jobs_text` wrote.

    Args:
        text: JSON.
        where: it came from, for messages.

    Raises:
        UsageError: it is no job of this version of ortc.
    """
    way_out = "take a job as `ortc plan --jobs json` prints it"
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is not JSON: {error}", help=way_out) from error
    if isinstance(content, dict) and content.get("ortc_version", __version__) != __version__:
        raise UsageError(
            f"{where} is a job of ortc {str(content['ortc_version'])[:40]!r}, and this is ortc {__version__}",
            help="plan and run jobs with the same version",
        )
    try:
        if isinstance(content, dict) and "jobs" in content:
            found = Jobs.model_validate(content).jobs
        else:
            found = (Job.model_validate(content),)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UsageError(f"{where} is no job: {f'`{place}`: ' if place else ''}{first['msg']}", help=way_out) from error
    if other := next((job for job in found if job.ortc_version != __version__), None):
        raise UsageError(
            f"{where} has a job of ortc {other.ortc_version[:40]!r}, and this is ortc {__version__}",
            help="plan and run jobs with the same version",
        )
    return found


def spec_of(job: Job, root: Path) -> Path:
    """Where the spec of a job lies in a checkout.

    Raises:
        UsageError: it is not there, or its place leads out of the checkout.
    """
    path = root / job.spec
    if not path.resolve().is_relative_to(root.resolve()):
        raise UsageError(f"the spec of the job, {job.spec}, lies outside of {root}")
    if not path.is_file():
        raise UsageError(f"the spec of the job, {job.spec}, is not in {root}", help="run it in the same checkout")
    return path
