"""Attributes of any object: those in its mapping, and those in its slots."""

from __future__ import annotations

import threading
import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ortc.frontend.reachable.walk import Walk


def attributes(walk: Walk, value: Any, path: str, without: frozenset[str] = frozenset()) -> Any:
    """Attributes of an object in its mapping and in its slots."""
    found = {**dict(_slots(value)), **_mapping(value)}
    return [[key, walk.value(entry, f"{path}.{key}".lstrip("."))] for key, entry in found.items() if key not in without]


def _mapping(value: Any) -> dict[str, Any]:
    try:
        # A class may answer with anything for the name, but one of C that has another mapping for each thread.
        is_local = isinstance(value, threading.local)
        found = vars(value) if is_local else object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return {str(key): entry for key, entry in found.items()} if isinstance(found, dict) else {}


def _slots(value: Any) -> Iterator[tuple[str, Any]]:
    for base in type(value).__mro__:
        for name, entry in vars(base).items():
            if isinstance(entry, types.MemberDescriptorType) and not name.startswith("__"):
                try:
                    yield name, entry.__get__(value)
                except AttributeError:
                    yield name, NotImplemented
