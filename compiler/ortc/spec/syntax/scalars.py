"""The types of plain YAML scalars: YAML 1.2.2, section 10.3.2 (core schema)."""

import math
import re

_MAX_DIGITS = 40
_MAX_FLOAT_DIGITS = 400

_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITY = re.compile(r"[-+]?\.(inf|Inf|INF)")
_CONSTANTS: dict[str, bool | float | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}


def core_value(text: str) -> str | int | float | bool | None:
    """The value of text without quotes.

    Raises:
        OverflowError: a number beyond all reason, or beyond what a float holds.
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    for pattern, base in ((_INT, 10), (_OCTAL, 8), (_HEX, 16)):
        if pattern.fullmatch(text):
            if len(text) > _MAX_DIGITS:
                raise OverflowError(text[:_MAX_DIGITS])
            return int(text, base)
    if _INFINITY.fullmatch(text):
        return float(text.replace(".", ""))
    if _FLOAT.fullmatch(text):
        value = float(text) if len(text) <= _MAX_FLOAT_DIGITS else math.inf
        if math.isinf(value):
            raise OverflowError(text[:_MAX_DIGITS])
        return value
    return text


def is_number(text: str) -> bool:
    """Whether YAML would read text without quotes as a number."""
    try:
        return isinstance(core_value(text), (int, float)) and text not in _CONSTANTS
    except OverflowError:
        return True
