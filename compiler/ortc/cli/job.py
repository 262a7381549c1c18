"""`ortc job`: parts of builds that machines do apart."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import rich_click as click

from ortc.cli.build import Done, build_one, expect_writable, keep
from ortc.cli.caches import cache_url as cache_url_option
from ortc.cli.caches import open_store
from ortc.cli.jobs import plan_of
from ortc.cli.live_progress import progress_of_build
from ortc.cli.made import Made
from ortc.cli.options import RecordingCommand, given_arguments, output_option, trust_options, verbose_option
from ortc.cli.results import show_results
from ortc.cli.several import worst
from ortc.common.errors import UsageError
from ortc.plan.jobs import MOST_BYTES, Job, read_jobs


@click.group
def job() -> None:
    """Do parts of builds on several machines: `ortc plan --jobs json` lists them, `ortc job run` does one."""


@job.command(cls=RecordingCommand)
@click.argument("given", metavar="JOB", envvar="ORTC_JOB")
@output_option("Where the bundle goes.")
@trust_options
@cache_url_option
@verbose_option
@click.option("--json", "as_json", is_flag=True, help="Print the reports as JSON instead of a summary.")
def run(given: str, output: Path, cache_url: str | None, is_verbose: bool, as_json: bool) -> int:
    """Build the target that JOB (or ORTC_JOB) names: a file, `-` for stdin, or the JSON itself.

    Run it in the root of the same commit that the job was planned in. A shared cache (--cache-url) brings what other
    machines did, and takes what this one does: `ortc build` then finds all of it there. Exit codes are those of
    `ortc build`.
    """
    jobs = _read(given)
    planned = [(job, *plan_of(job, Path.cwd())) for job in jobs]
    expect_writable(output)
    done = Done()
    for found, path, plan, root in planned:
        store = open_store(cache_url or found.cache_url)
        progress = progress_of_build(str(path), plan, output, is_verbose=is_verbose)
        report = build_one(path, plan, root, output, store, progress, locked=False, remeasured=frozenset())
        keep(done, report, output, part=found.target)
    if as_json:
        builds = [report.model_dump(mode="json") for report in done.reports]
        sys.stdout.write(json.dumps({"format_version": 1, "builds": builds}, indent=2) + "\n")
    else:
        made = [Made(report, done.files.get(index, ())) for index, report in enumerate(done.reports)]
        show_results(made, given_arguments(), is_verbose=is_verbose)
    return worst(done.codes)


def _read(given: str) -> tuple[Job, ...]:
    if given.lstrip().startswith("{"):
        return read_jobs(given, "JOB")
    if given == "-":
        return read_jobs(sys.stdin.buffer.read(MOST_BYTES), "stdin")
    try:
        with Path(given).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{given} cannot be read: {reason}", help="name a file, `-`, or give the JSON") from error
    if len(content) > MOST_BYTES:
        raise UsageError(f"{given} has more than {MOST_BYTES} bytes, which no job has")
    return read_jobs(content, given)
