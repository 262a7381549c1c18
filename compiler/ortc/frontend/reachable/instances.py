"""Describe one object: what it is, its attributes, and the state that its class keeps elsewhere."""

from __future__ import annotations

import enum
import functools
import io
import logging
import random
import sys
import threading
import types
import warnings
import weakref
from typing import TYPE_CHECKING, Any

from ortc.frontend.reachable import functions, modules
from ortc.frontend.reachable.attributes import attributes
from ortc.frontend.reachable.origin import named

if TYPE_CHECKING:
    from ortc.frontend.reachable.walk import Walk

_WORD = 8
"""Bytes of a pointer: an attribute of a slot, the mapping of attributes, the list of weak references."""
_BY_NAME = ("_thread.lock", "_thread.RLock", "_abc._abc_data", "_contextvars.ContextVar", "_contextvars.Token")
"""Types that keep no content which anything is computed with."""
_DICE = ("Generator", "RandomState", "BitGenerator", "SeedSequence")


def describe(walk: Walk, value: Any, path: str) -> Any:
    """An object that is neither a plain value nor a container, as JSON with references to other parts."""
    if (found := functions.describe(walk, value, path)) is not None:
        return found
    if isinstance(value, logging.Logger) or _is_dice(value) or f"{_name(type(value))}" in _BY_NAME:
        # What dice show next is no number of a model.
        return ["by name", *named(type(value))]
    if isinstance(value, enum.Enum):
        return ["enum", *named(type(value)), value.name, walk.value(value.value, f"{path}.value")]
    if isinstance(value, weakref.ref):
        return ["weak", walk.value(value(), path)]
    if isinstance(value, types.MappingProxyType):
        return ["mapping", walk.value(dict(value), path)]
    if isinstance(value, types.CellType):
        return ["cell", functions.cell(walk, value, path)]
    if isinstance(value, functools.partial):
        parts = {"func": value.func, "args": value.args, "keywords": value.keywords, **vars(value)}
        return ["partial", *(walk.value(part, f"{path}.{name}") for name, part in parts.items())]
    if isinstance(value, io.IOBase) and (_is_stream(value) or not _reads(value)):
        return ["by name", *named(type(value))]
    if (found := modules.describe(walk, value, path)) is not None:
        return found
    return _instance(walk, value, path)


def extras(walk: Walk, value: Any, path: str) -> Any:
    """The class and the attributes of an object whose content is known otherwise."""
    return [walk.value(type(value), functions.class_path(type(value))), attributes(walk, value, path)]


def _instance(walk: Walk, value: Any, path: str) -> Any:
    kind = type(value)
    if kind is object:
        return ["object"]
    found = ["instance", walk.value(kind, functions.class_path(kind)), attributes(walk, value, path)]
    if not _hides(kind) or isinstance(value, threading.local):
        return found
    if (content := _buffer(value)) is not None:
        return [*found, walk.array(content, f"{path}.buffer".lstrip("."), modules.array_digest)]
    reduced = _reduced(value)
    if reduced is None:
        return [*found, walk.unseen(value, path)]
    return [*found, walk.value(reduced, path)]


def _hides(kind: type) -> bool:
    """Whether instances have more memory than Python's attributes need."""
    members = sum(
        isinstance(entry, types.MemberDescriptorType) for base in kind.__mro__ for entry in vars(base).values()
    )
    own = members + (kind.__dictoffset__ > 0) + (kind.__weakrefoffset__ > 0)
    return kind.__itemsize__ != 0 or kind.__basicsize__ > object.__basicsize__ + _WORD * own


def _reduced(value: Any) -> Any:
    """What pickle would keep of an object; None where it cannot."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reduced = value.__reduce_ex__(2)
    except Exception:  # noqa: BLE001  # whatever a class raises that cannot be pickled: it stays unseen
        return None
    if not isinstance(reduced, tuple):
        return ("global", str(reduced))
    make, arguments, *more = reduced
    state = more[0] if more else None
    content = [list(part) if part is not None else None for part in more[1:3]]
    return (make, arguments, state, *content)


def _buffer(value: Any) -> Any:
    """The bytes of an object that shows them; None of any other."""
    import numpy as np

    try:
        return np.frombuffer(memoryview(value).cast("B"), np.uint8).copy()
    except (TypeError, ValueError):
        return None


def _is_dice(value: Any) -> bool:
    """Whether it is a generator of random numbers."""
    if isinstance(value, random.Random):
        return True
    owner = type(value).__module__.partition(".")[0]
    return owner in ("numpy", "torch") and any(base.__name__ in _DICE for base in type(value).__mro__)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _is_stream(value: Any) -> bool:
    own = (sys.stdin, sys.stdout, sys.stderr, sys.__stdin__, sys.__stdout__, sys.__stderr__)
    return any(value is stream for stream in own)


def _reads(value: io.IOBase) -> bool:
    try:
        return value.readable()
    except ValueError:
        # It is closed: nothing comes from it any more.
        return False
