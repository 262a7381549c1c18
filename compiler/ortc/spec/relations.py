"""Sizes of axes that follow from those of others: `past + sequence`, as ONNX files write dimensions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from ortc.common.values import Frozen
from ortc.spec.vocabulary import MAX_SIZE, AxisName

_FORM = "expected a sum of other axes and sizes, like `past + sequence`, `past + 1` or `2 * frames`"
_NAME = re.compile(r"[A-Za-z_]\w{0,63}", re.ASCII)
_WHOLE = re.compile(r"[0-9]{1,10}", re.ASCII)
MOST_TEXT = 1000
"""Most characters of a sum."""
Factor = Annotated[int, Field(ge=1, le=MAX_SIZE)]


class Relation(Frozen):
    """A sum of multiples of axes, each named once, and of a constant."""

    terms: tuple[tuple[AxisName, Factor], ...]
    constant: Annotated[int, Field(ge=0, le=MAX_SIZE)] = 0

    def __str__(self) -> str:
        parts = [name if factor == 1 else f"{factor} * {name}" for name, factor in self.terms]
        return " + ".join([*parts, *([str(self.constant)] if self.constant else [])])

    @property
    def names(self) -> tuple[str, ...]:
        """The axes that the size follows from."""
        return tuple(name for name, _ in self.terms)

    def size(self, sizes: Mapping[str, int]) -> int:
        """The size that follows from those of the axes."""
        return self.constant + sum(factor * sizes[name] for name, factor in self.terms)


def split_sum(text: str) -> tuple[list[tuple[str, int]], int]:
    """Names with their factors and the constant of a sum; names are of any letters, as files have them.

    Raises:
        ValueError: it is no sum of names and whole numbers, or has no name.
    """
    if len(text) > MOST_TEXT:
        raise ValueError(_FORM)
    terms: dict[str, int] = {}
    constant = 0
    for part in text.split("+"):
        names, factor = [], 1
        for piece in part.split("*"):
            plain = piece.strip()
            if _WHOLE.fullmatch(plain):
                factor *= int(plain)
            elif plain and not re.search(r"[-/%()^,\s]", plain):
                names.append(plain)
            else:
                raise ValueError(_FORM)
        if len(names) > 1 or factor > MAX_SIZE:
            raise ValueError(_FORM)
        if names:
            terms[names[0]] = terms.get(names[0], 0) + factor
        else:
            constant += factor
    if not terms or not all(0 < factor <= MAX_SIZE for factor in (*terms.values(), constant or 1)):
        raise ValueError(_FORM)
    return list(terms.items()), constant


def parse_relation(text: str) -> Relation:
    """The relation that a text says.

    Raises:
        ValueError: it is no sum of axes and whole numbers.
    """
    terms, constant = split_sum(text)
    if not all(_NAME.fullmatch(name) for name, _ in terms):
        raise ValueError(_FORM)
    return Relation(terms=tuple(terms), constant=constant)


def checked_relation(text: str) -> str:
    """The text, once it says a relation; ValueError where it does not."""
    parse_relation(text)
    return text
