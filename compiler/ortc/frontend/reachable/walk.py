"""Walk over everything that an object reaches, and digest each part by name."""

from __future__ import annotations

import sys
import types
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from ortc.common.values import digest
from ortc.frontend.reachable.arrays import array_digest, tensor_digest
from ortc.frontend.reachable.instances import describe, extras

MOST_PARTS = 500_000
"""Objects of one walk; what has more is not seen through."""
MOST_DEPTH = 12
"""Containers in containers that are digested in one piece; what is deeper is a part of its own."""
ENTRY_NAMES = ("forward", "__call__")


@dataclass(frozen=True)
class State:
    """All that an object computes with.

    `parts` are digests by name: tensors and arrays by their own, everything else of an object by its name and `()`.
    `numbers` are the names of the tensors and arrays, `opaque` those of objects whose content cannot be seen.
    """

    parts: dict[str, str]
    numbers: tuple[str, ...] = ()
    opaque: tuple[str, ...] = ()


class Walk:
    """One walk; `root` is replaced in texts, so that a project may lie anywhere.

    Args:
        root: the directory of the project.
        hashed: whether tensors and arrays are digested, or only named.
    """

    def __init__(self, root: Path | None = None, *, hashed: bool = True, ranks: bool = False) -> None:
        self.parts: dict[str, str] = {}
        self.numbers: list[str] = []
        self.opaque: list[str] = []
        self.is_ranking = ranks
        self._root = None if root is None else str(root)
        self._hashed = hashed
        self._seen: dict[int, str] = {}
        self._alive: list[Any] = []
        self._tuples: dict[int, Any] = {}
        self._paths: set[str] = set()
        self._queue: deque[Callable[[], None]] = deque()
        self._names: set[str] = set(ENTRY_NAMES)
        self._takes_all = False
        self._pending: dict[str, list[tuple[str, Any]]] = {}

    def of(self, value: Any, path: str = "") -> State:
        """The state of an object, whose parts have names below `path`."""
        self.needed(value, path)
        while self._queue:
            if len(self.parts) > MOST_PARTS:
                self.opaque.append(f"more than {MOST_PARTS} objects")
                break
            self._queue.popleft()()
        return State(self.parts, tuple(self.numbers), tuple(self.opaque))

    # What describes objects calls these.

    def value(self, value: Any, path: str, depth: int = 0) -> Any:
        """A value as JSON; objects as references to parts, which are made later."""
        kind = type(value)
        if value is None or kind in (bool, int):
            return value
        if kind is str:
            return self.text(value)
        if kind in (float, complex, bytes, type(Ellipsis), type(NotImplemented), range):
            return [kind.__name__, repr(value)]
        if isinstance(value, PurePath):
            return ["path", self.text(str(value))]
        if _is_tensor(value) or _is_array(value):
            return self._array(value, path)
        if kind is tuple:
            return self._tuple(value, path, depth)
        if (first := self._seen.get(id(value))) is not None:
            return ["as", first]
        if isinstance(value, list | dict | set | frozenset | tuple | deque):
            return self._container(value, path, depth)
        return self.node(value, path, partial(describe, self, value))

    def node(self, value: Any, path: str, make: Callable[[str], Any]) -> Any:
        """A reference to an object, which becomes a part once `make` is called with its name."""
        if (first := self._seen.get(id(value))) is not None:
            return ["as", first]
        name = self._new(value, path)

        def describe_it() -> None:
            self.parts[f"{name}()"] = digest(make(name))

        self._queue.append(describe_it)
        return ["at", name]

    def text(self, text: str) -> str:
        """A text, without where the project lies."""
        text = text.encode("utf-8", "backslashreplace").decode()
        return text if self._root is None else text.replace(self._root, "{root}")

    def uses(self, names: Iterable[str], *, dynamic: bool = False) -> None:
        """Code reads attributes of these names, or of any name: what waits for them becomes parts."""
        self._names |= set(names)
        self._takes_all = self._takes_all or dynamic
        for name in [name for name in self._pending if self._takes_all or name in self._names]:
            for path, value in self._pending.pop(name):
                self.needed(value, path)

    def needed(self, value: Any, path: str) -> None:
        """A value that counts by itself, and not as a part of another one."""

        def describe_it() -> None:
            encoded = self.value(value, path)
            if not isinstance(encoded, list) or encoded[:1] not in (["at"], ["as"]):
                self.parts[f"{self._free(path)}()"] = digest(encoded)

        self._queue.append(describe_it)

    def when_used(self, name: str, value: Any, path: str) -> None:
        """A value that counts if code reads an attribute of its name."""
        if self._takes_all or name in self._names:
            self.needed(value, path)
        else:
            self._pending.setdefault(name, []).append((path, value))

    def unseen(self, value: Any, path: str) -> Any:
        """An object that has a content which nothing shows."""
        kind = type(value)
        self.opaque.append(f"{path or 'the object'} ({kind.__module__}.{kind.__qualname__})")
        return ["opaque", kind.__module__, kind.__qualname__]

    def array(self, value: Any, path: str, digest_of: Callable[[Any], str]) -> Any:
        """A part that is numbers."""
        name = self._new(value, path)
        self.numbers.append(name)
        self.parts[name] = digest_of(value) if self._hashed else ""
        return ["at", name]

    def _new(self, value: Any, path: str) -> str:
        name = self._free(path)
        self._seen[id(value)] = name
        self._alive.append(value)
        return name

    def _free(self, path: str) -> str:
        while path in self._paths:
            path += "'"
        self._paths.add(path)
        return path

    def _array(self, value: Any, path: str) -> Any:
        import numpy as np

        if isinstance(value, np.generic):
            return [str(value.dtype), value.tobytes().hex()]
        if (first := self._seen.get(id(value))) is not None:
            return ["at", first]
        if isinstance(value, np.ndarray):
            made = self.array(value, path, array_digest)
            return [made, extras(self, value, path)] if type(value) is not np.ndarray else made
        return self._tensor(value, path)

    def _tensor(self, value: Any, path: str) -> Any:
        import torch

        inner = getattr(type(value), "__tensor_flatten__", None)
        if inner is not None:
            self._new(value, path)
            names, context = value.__tensor_flatten__()
            pairs = [(name, self.value(getattr(value, name), f"{path}.{name}")) for name in names]
            return ["tensor", type(value).__qualname__, pairs, self.value(context, f"{path}.context")]
        if torch.nn.parameter.is_lazy(value):
            return ["uninitialized", str(value.dtype)]
        try:
            made = self.array(value, path, tensor_digest)
        except (RuntimeError, TypeError, AttributeError, NotImplementedError):
            self.numbers.append(path)
            return self.unseen(value, path)
        attributes = {key: entry for key, entry in vars(value).items() if not key.startswith("_")}
        return [made, self.value(attributes, path, MOST_DEPTH)] if attributes else made

    def _tuple(self, value: Any, path: str, depth: int) -> Any:
        if id(value) not in self._tuples:
            self._alive.append(value)
            self._tuples[id(value)] = ["within", path]
            self._tuples[id(value)] = self._container(value, path, depth)
        return self._tuples[id(value)]

    def _container(self, value: Any, path: str, depth: int) -> Any:
        if depth >= MOST_DEPTH:
            return self.node(value, path, partial(self._content, value, 0))
        if not isinstance(value, tuple):
            self._seen[id(value)] = path
            self._alive.append(value)
        return self._content(value, depth, path)

    def _content(self, value: Any, depth: int, path: str) -> Any:
        kind = type(value)
        found: list[Any] = [kind.__qualname__]
        if isinstance(value, dict):
            items = list(dict.items(value))
            found += [[self.value(k, path, depth + 1), self._entry(v, path, k, depth)] for k, v in items]
        elif isinstance(value, set | frozenset):
            found += [self.value(entry, f"{path}{{}}", depth + 1) for entry in self._ordered(value)]
        else:
            found += [self._entry(entry, path, index, depth) for index, entry in enumerate(value)]
        if kind not in (dict, list, tuple, set, frozenset, deque):
            found.append(extras(self, value, path))
        return found

    def _entry(self, value: Any, path: str, key: Any, depth: int) -> Any:
        shown = repr(key) if isinstance(key, str | int | bool | float) else f"<{type(key).__name__}>"
        return self.value(value, f"{path}[{shown}]", depth + 1)

    def _ordered(self, values: Iterable[Any]) -> list[Any]:
        """Elements of a set in an order that is the same in every process."""

        def rank(value: Any) -> str:
            if value is None or isinstance(value, str | int | float | bytes):
                return repr(value)
            # A walk inside of a walk inside of another one would have no end where sets hold their owners.
            inner = type(value).__qualname__
            return inner if self.is_ranking else inner + digest(Walk(ranks=True).of(value).parts)

        return sorted(values, key=rank)


def _torch() -> types.ModuleType | None:
    """PyTorch, where it is loaded: a process without it has no tensors."""
    return sys.modules.get("torch")


def _is_tensor(value: Any) -> bool:
    torch = _torch()
    return torch is not None and isinstance(value, torch.Tensor)


def _is_array(value: Any) -> bool:
    import numpy as np

    return isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject


def state_of(value: Any, root: Path | None = None) -> State:
    """Digests of everything that an object computes with."""
    return Walk(root).of(value)
