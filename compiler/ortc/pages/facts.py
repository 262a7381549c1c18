"""Numbers of a page: each is taken from the document that the page embeds, and says from where."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ortc.common.units import format_bytes, format_seconds

Form = Literal["seconds", "milliseconds", "microseconds", "bytes", "times", "count", "accuracy", "error", "rate"]
"""How a number reads, and in which unit the document has it."""

FORMS: Mapping[Form, Callable[[float], str]] = {
    "seconds": format_seconds,
    "milliseconds": lambda value: format_seconds(value / 1000),
    "microseconds": lambda value: format_seconds(value / 1e6),
    "bytes": lambda value: format_bytes(round(value)),
    "times": "{:.2f}x".format,
    "count": "{:,.0f}".format,
    "accuracy": lambda value: _accuracy(value),
    "error": "{:.3g}".format,
    "rate": "{:.1f}/s".format,
}


@dataclass(frozen=True, slots=True)
class Fact:
    """A number of the document: where it is (a JSON pointer, RFC 6901), its JSON text, its form, and for people."""

    at: str
    value: str
    form: Form
    text: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with the bounds of its 95 % interval, where there were samples enough for them."""

    value: Fact
    low: Fact | None
    high: Fact | None
    samples: Fact | None


class Facts:
    """A JSON document, and the numbers in it by JSON pointer."""

    def __init__(self, document: Any) -> None:
        self.document = document

    def value(self, at: str) -> Any:
        """What the document has at a pointer.

        Raises:
            KeyError, IndexError: it has nothing there.
        """
        found = self.document
        for part in at.split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            found = found[int(name)] if isinstance(found, list) else found[name]
        return found

    def number(self, at: str, form: Form) -> Fact | None:
        """The number at a pointer; None where the document has null, for what was not measured."""
        value = self.value(at)
        return None if value is None else Fact(at, json.dumps(value), form, FORMS[form](value))

    def known(self, at: str, form: Form) -> Fact:
        """A number that every document has.

        Raises:
            ValueError: the document has null.
        """
        found = self.number(at, form)
        if found is None:
            raise ValueError(f"{at} is null")
        return found

    def estimate(self, at: str, form: Form) -> Estimate | None:
        """A number with its interval; None where it was not measured."""
        if self.value(at) is None:
            return None
        low, high = (self.number(f"{at}/{name}", form) for name in ("low", "high"))
        return Estimate(self.known(f"{at}/value", form), low, high, self.known(f"{at}/samples", "count"))


def escaped(part: str) -> str:
    """A name as a part of a JSON pointer."""
    return part.replace("~", "~0").replace("/", "~1")


def _accuracy(value: float) -> str:
    """A similarity; one that differs from 1 never reads as 1."""
    text = f"{value:.6g}"
    return f"1 - {1 - value:.2g}" if text == "1" and value != 1 else text
