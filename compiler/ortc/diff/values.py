"""Differences of JSON values: which path, what before, what after."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import JsonValue

from ortc.common.values import Frozen

NAMES = ("name", "path", "variant")
"""What an item of a list is known by, so that one more at the front is not a change of all."""


class Change(Frozen):
    """A value that is not the same on both sides; `kind` tells `null` from nothing at all."""

    path: tuple[str, ...]
    kind: Literal["added", "removed", "changed"]
    before: JsonValue = None
    after: JsonValue = None

    @property
    def dotted(self) -> str:
        """The path as `--set` takes it: keys that hold a dot are quoted."""
        return ".".join(step if step and not set(step) & set('."= ') else f'"{step}"' for step in self.path)


def changes(before: Any, after: Any, path: tuple[str, ...] = ()) -> Iterator[Change]:
    """Every difference of two JSON values, at the deepest path that both have.

    Lists whose items all have names, and lists of pairs, are compared name by name, and the order of the names apart;
    other lists are values.
    """
    if isinstance(before, list | tuple) and isinstance(after, list | tuple):
        old, new = _by_name(before), _by_name(after)
        if old is not None and new is not None:
            yield from changes(old, new, path)
            common = [[name for name in side if name in old and name in new] for side in (old, new)]
            if common[0] != common[1]:
                yield Change(path=(*path, "order"), kind="changed", before=[*common[0]], after=[*common[1]])
            return
        before, after = list(before), list(after)
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys((*before, *after)):
            step = (*path, key)
            if key not in after:
                yield Change(path=step, kind="removed", before=before[key])
            elif key not in before:
                yield Change(path=step, kind="added", after=after[key])
            else:
                yield from changes(before[key], after[key], step)
    elif before != after or isinstance(before, bool) != isinstance(after, bool):
        yield Change(path=path, kind="changed", before=before, after=after)


def _by_name(items: list[Any] | tuple[Any, ...]) -> dict[str, Any] | None:
    """The items by their names, or the values of pairs by the first of each; None where they have none."""
    if items and all(isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[0], str) for item in items):
        pairs = {item[0]: item[1] for item in items}
        return pairs if len(pairs) == len(items) else None
    for key in NAMES:
        if all(isinstance(item, dict) and isinstance(item.get(key), str) for item in items):
            named = {item[key]: {name: value for name, value in item.items() if name != key} for item in items}
            return named if len(named) == len(items) else None
    return None
