"""Commands over several bundles or specs: one after the other, each with its own result, and one exit code."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from ortc.cli.report import refused_path, report_error
from ortc.common.errors import OrtcError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

bundles_argument = click.argument(
    "bundles",
    metavar="BUNDLE...",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
)


@dataclass(frozen=True)
class Outcome:
    """What a command gives for one bundle: what `--json` prints, what is printed else, and the exit code."""

    document: Mapping[str, Any]
    text: str
    exit_code: int = 0


def run_each(
    paths: tuple[Path, ...],
    run: Callable[[Path], Outcome],
    *,
    as_json: bool,
    noun: str = "bundle",
    headed: bool = False,
) -> int:
    """Run a command for each of some paths, and print what it gives; an error ends the work on its path alone.

    Args:
        paths: at least one. The document of a single one is printed as it is; those of several are a list, named by
            the noun with an `s`, whose entries have `path` and `exit_code` beside the document's keys.
        run: the command.
        as_json: whether one JSON document is printed.
        noun: what a path is of.
        headed: whether each of several paths stands above its text.

    Returns:
        The lowest exit code other than 0; 0 when there is none.

    Raises:
        OrtcError: of a single path, as everything else that `run` raises.
    """
    if len(paths) == 1:
        outcome = run(paths[0])
        sys.stdout.write(_json(outcome.document) if as_json else outcome.text)
        return outcome.exit_code
    documents, codes = [], []
    for path in paths:
        outcome = _outcome(path, run)
        codes.append(outcome.exit_code)
        documents.append({"path": str(path), "exit_code": outcome.exit_code, **outcome.document})
        if not as_json:
            sys.stdout.write((f"{path}:\n" if headed and outcome.text else "") + outcome.text)
            sys.stdout.flush()
    if as_json:
        sys.stdout.write(_json({"format_version": 1, f"{noun}s": documents}))
    return worst(codes)


def _outcome(path: Path, run: Callable[[Path], Outcome]) -> Outcome:
    """What a command gives for a path; an error that is the path's own is reported, and is its outcome."""
    try:
        return run(path)
    except OrtcError as error:
        found: OrtcError = error
    except click.ClickException as error:
        found = UsageError(error.format_message())
    except OSError as error:
        refused = refused_path(error)
        if refused is None:
            raise
        found = refused
    report_error(found)
    return Outcome({"error": found.message}, "", found.exit_code)


def worst(codes: Iterable[int]) -> int:
    """The exit code of a command over several things: the lowest other than 0; 0 when there is none."""
    return min((code for code in codes if code), default=0)


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
