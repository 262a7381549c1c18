"""What the caller of a command allows a spec: entry points of installed packages, and variables of the environment.

A spec cannot allow itself anything: the command line and the environment of the command do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextvars import ContextVar

TRUST_ENTRYPOINT = "ORTC_TRUST_ENTRYPOINT"
"""Variable with the packages whose functions a spec may name as entry points, separated by commas."""
PREFIX = "ORTC_"
"""Variables with this prefix are meant for specs."""
SETTINGS = frozenset(
    {
        TRUST_ENTRYPOINT,
        "ORTC_CACHE_DIR",
        "ORTC_CACHE_URL",
        "ORTC_DEBIAN_MIRROR",
        "ORTC_ENGINE_CACHE",
        "ORTC_JOB",
        "ORTC_JOBS_GATE",
        "ORTC_KEY_PASSWORD",
        "ORTC_MEASURE_LOCK_HELD",
        "ORTC_REGISTRY",
    }
)
"""Variables that set up ortc itself; some of them hold secrets."""

_PACKAGES: ContextVar[frozenset[str]] = ContextVar("packages", default=frozenset())
_VARIABLES: ContextVar[frozenset[str]] = ContextVar("variables", default=frozenset())
_HTTP: ContextVar[frozenset[str]] = ContextVar("http", default=frozenset())

_READ: ContextVar[dict[str, str]] = ContextVar("read", default={})  # noqa: B039  # it is never changed in place
_SHORTEST = 4
"""Fewer characters tell nothing, and would be found in any text."""


def grant(packages: Iterable[str] = (), variables: Iterable[str] = (), hosts: Iterable[str] = ()) -> None:
    """Allow entry points of packages, references to variables, and hosts for plain HTTP; earlier ones stay allowed."""
    _PACKAGES.set(_PACKAGES.get() | set(packages))
    _VARIABLES.set(_VARIABLES.get() | set(variables))
    _HTTP.set(_HTTP.get() | {host.lower().strip("[]") for host in hosts})


def withdraw() -> None:
    """Allow nothing but what the environment allows."""
    _PACKAGES.set(frozenset())
    _VARIABLES.set(frozenset())
    _HTTP.set(frozenset())
    _READ.set({})


def trusted_packages() -> frozenset[str]:
    """Modules whose functions, and those of modules below them, may be entry points."""
    listed = os.environ.get(TRUST_ENTRYPOINT, "").split(",")
    return _PACKAGES.get() | {name.strip() for name in listed if name.strip()}


def is_trusted(module: str) -> bool:
    """Whether a module, or a package that it is in, is one of `trusted_packages`."""
    return any(module == name or module.startswith(f"{name}.") for name in trusted_packages())


def may_read(variable: str) -> bool:
    """Whether a spec may refer to a variable of the environment."""
    return variable in _VARIABLES.get() or (variable.startswith(PREFIX) and variable not in SETTINGS)


def may_use_http(host: str) -> bool:
    """Whether files may come from a host over plain HTTP, where anybody on the way may change or read them."""
    return host.lower().strip("[]") in _HTTP.get()


def granted_options() -> list[str]:
    """The options by which another command is allowed the same variables and hosts; the environment has packages."""
    return [
        *(f"--env={name}" for name in sorted(_VARIABLES.get())),
        *(f"--allow-http={host}" for host in sorted(_HTTP.get())),
    ]


def remember(variable: str, value: str) -> None:
    """Note that a spec took the value of a variable: `masked` shows its name instead.

    A directory counts without the slashes at its end, too, and a value in the form in which JSON has it.
    """
    plain = {value, value.rstrip("/")}
    forms = {json.dumps(form, ensure_ascii=ascii_)[1:-1] for form in plain for ascii_ in (True, False)}
    known = {form: f"${{env:{variable}}}" for form in plain | forms if len(form) >= _SHORTEST}
    _READ.set({**_READ.get(), **known})


def masked(text: str) -> str:
    """A text for people, with the names of variables where it holds what a spec took from them."""
    for value, reference in sorted(_READ.get().items(), key=lambda item: -len(item[0])):
        text = text.replace(value, reference)
    return text
