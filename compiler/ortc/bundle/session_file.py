"""session.json: how a bundle's session is made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator

from ortc.bundle.manifest import FORMAT_VERSION, parsed
from ortc.common.errors import StageError
from ortc.common.plain_files import read_plain
from ortc.common.texts import Cleaned, Label, Line
from ortc.common.values import Frozen
from ortc.plan.plan import SessionPlan
from ortc.spec.profile import Concurrency, GraphLevel
from ortc.spec.vocabulary import MAX_THREADS

LEVEL = "graph_optimization_level"
Threads = Annotated[int, Field(ge=1, le=MAX_THREADS)]


class Provider(Frozen):
    """An execution provider with its options."""

    name: Label
    options: dict[Label, Line | Literal[""]]


class ThreadPolicy(Frozen):
    """Thread counts, or how to find them where the bundle runs."""

    intra_op: Literal["physical"] | Threads
    inter_op: Threads


class Prepacked(Frozen):
    """A second graph, whose weights lie as one kind of processor wants them under one release of the runtime."""

    file: Label
    processor: Cleaned
    runtime: Label


class SessionFile(Frozen):
    """session.json."""

    format_version: int = FORMAT_VERSION
    session_options: dict[Label, bool | Label]
    threads: ThreadPolicy
    concurrency: Concurrency
    config_entries: dict[Label, Line | Literal[""]]
    providers: tuple[Provider, ...]
    environment: dict[Label, Line | Literal[""]]
    prepacked: Prepacked | None = None

    @field_validator("session_options")
    @classmethod
    def _has_level(cls, options: dict[str, bool | str]) -> dict[str, bool | str]:
        if options.get(LEVEL) not in (known := get_args(GraphLevel)):
            raise ValueError(f"expected `{LEVEL}`, one of {', '.join(known)}")
        return options


def session_file(session: SessionPlan, level: GraphLevel, prepacked: Prepacked | None = None) -> SessionFile:
    """session.json of a session at a graph optimization level."""
    return SessionFile(
        session_options={LEVEL: level, **session.options},
        threads=ThreadPolicy(intra_op=session.threads.intra_op, inter_op=session.threads.inter_op),
        concurrency=session.concurrency,
        config_entries=session.config_entries,
        providers=tuple(Provider(name=entry.name, options=entry.options) for entry in session.providers),
        environment=session.environment,
        prepacked=prepacked,
    )


def read_session(bundle: Path) -> SessionFile:
    """The session.json of a bundle.

    Raises:
        StageError: it is missing, or not of this format.
    """
    name = f"{bundle}/session.json"
    try:
        content = read_plain(bundle / "session.json")
    except OSError as error:
        raise StageError(f"{name} cannot be read: {error.strerror}", help="get the bundle again") from error
    return parsed(SessionFile, content, name)
