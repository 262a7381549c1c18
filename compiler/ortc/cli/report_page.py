"""`ortc report`: the page of a build, from its report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click
from pydantic import ValidationError

from ortc.common.atomic_files import replace_file
from ortc.common.errors import StageError
from ortc.common.plain_files import read_plain

if TYPE_CHECKING:
    from ortc.evaluation.report import BuildReport

SUFFIX = ".report.json"
"""Ends the name of a build's report; the page beside it ends with `.report.html`."""


@click.command
@click.argument("source", metavar="REPORT.json|BUNDLE", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="The page; beside the report if not given."
)
def report(source: Path, output: Path | None) -> int:
    """Make the page of a build again: one HTML file that needs no network.

    The source is a report, which `ortc build` writes to OUTPUT/NAME/VERSION.report.json, or a bundle that still lies
    where the build put it. Every number of the page is one of the report.
    """
    from ortc.pages.report_page import report_page

    path = find_report(source)
    found = read_report(path)
    place = output or path.with_name(f"{path.name.removesuffix('.json').removesuffix('.report')}.report.html")
    page = report_page(found)
    try:
        replace_file(place, page)
    except OSError as error:
        raise StageError(
            f"cannot write the page {place}: {error.strerror or error}", help="name it with `-o`"
        ) from error
    sys.stdout.write(f"{place}\n")
    return 0


def find_report(source: Path) -> Path:
    """The report that an argument means.

    Raises:
        StageError: there is none.
    """
    if not source.is_dir():
        return source
    bundle = source.resolve()
    path = bundle.parent.parent / f"{bundle.parent.name}{SUFFIX}"
    if not path.is_file():
        raise StageError(
            f"there is no report of the bundle {source}: {path} is missing",
            help="name the report that `ortc build` wrote: OUTPUT/NAME/VERSION.report.json",
        )
    return path


def read_report(path: Path) -> BuildReport:
    """Read a build's report.

    Raises:
        StageError: it cannot be read, or is not a report of this version of ortc.
    """
    from ortc.evaluation.report import FORMAT_VERSION, BuildReport

    try:
        found = BuildReport.model_validate_json(read_plain(path))
    except OSError as error:
        raise StageError(f"cannot read the report {path}: {error.strerror or error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise StageError(
            f"{path} is not a report that this ortc reads: {place}: {first['msg']}",
            help="name a REPORT.json that `ortc build` wrote; a build with this version of ortc writes a new one",
        ) from error
    if not 1 <= found.format_version <= FORMAT_VERSION:
        raise StageError(
            f"{path} has format version {found.format_version}; this ortc reads 1 to {FORMAT_VERSION}",
            help="build again with this version of ortc",
        )
    return found
