"""Jobs as continuous integration reads them: a matrix of GitHub, a child pipeline of GitLab, a list of Argo."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ortc.plan.jobs import jobs_text

if TYPE_CHECKING:
    from ortc.plan.jobs import Job

MOST_OF_GITHUB = 256
"""Entries that a matrix of GitHub may have."""


def matrix_text(kind: str, jobs: Sequence[Job]) -> str:
    """Return jobs as one kind of continuous integration reads them, on one line where that is JSON."""
    return _KINDS[kind](jobs)


def _github(jobs: Sequence[Job]) -> str:
    """One object per job; above 256, one per group of jobs for the same kind of machine."""
    return json.dumps({"include": [_entry(group) for group in _groups(jobs, MOST_OF_GITHUB)]}) + "\n"


def _argo(jobs: Sequence[Job]) -> str:
    """A list for `withParam`, whose values are texts."""
    texts = ({key: _text(value) for key, value in _entry([job]).items()} for job in jobs)
    return json.dumps(list(texts)) + "\n"


def _gitlab(jobs: Sequence[Job]) -> str:
    """A child pipeline of one job each; YAML reads JSON."""
    document: dict[str, Any] = {"stages": ["build"]}
    for job in jobs:
        entry = _entry([job])
        document[entry["id"]] = {
            "stage": "build",
            "image": "$ORTC_IMAGE",
            "tags": [entry["platform"].replace("/", "-"), *(["gpu"] if entry["gpu"] else [])],
            # No variable is put into the text of a job.
            "variables": {"ORTC_JOB": {"value": entry["job"], "expand": False}},
            "script": ['ortc job run "$ORTC_JOB"'],
            "artifacts": {"when": "always", "paths": ["dist"]},
        }
    return json.dumps(document, indent=2) + "\n"


def _entry(group: Sequence[Job]) -> dict[str, Any]:
    """What a machine is chosen by, and the text that `ortc job run` takes."""
    first = group[0]
    alone = len(group) == 1
    return {
        "id": first.id if alone else f"{first.id} and {len(group) - 1} more",
        "name": first.name if alone else "",
        "version": first.version if alone else "",
        "target": first.target if alone else "",
        "platform": first.platform,
        "gpu": first.gpu,
        "browser": any(job.browser for job in group),
        "will_run": sum(job.will_run for job in group),
        "job": jobs_text(group),
    }


def _groups(jobs: Sequence[Job], most: int) -> list[list[Job]]:
    """At most so many groups of jobs that one kind of machine does; every job alone where that is few enough."""
    kinds: dict[tuple[str, bool], list[Job]] = {}
    for job in jobs:
        kinds.setdefault((job.platform, job.gpu), []).append(job)
    size = 1
    while sum(-(-len(found) // size) for found in kinds.values()) > most:
        size += 1
    return [found[start : start + size] for found in kinds.values() for start in range(0, len(found), size)]


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


_KINDS: Mapping[str, Callable[[Sequence[Job]], str]] = {"github": _github, "gitlab": _gitlab, "argo": _argo}
MATRICES = tuple(_KINDS)
