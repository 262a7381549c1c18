"""Python code as it counts: bytecode, constants and names, without places in files."""

from __future__ import annotations

import dis
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import CodeType
from typing import Any

DYNAMIC = frozenset(
    {"getattr", "globals", "locals", "vars", "eval", "exec", "dir", "attrgetter", "methodcaller"}
    | {"__import__", "import_module", "__dict__", "modules"}
)
"""Names in code that reaches for names which it does not spell out."""
_GLOBALS = frozenset({"LOAD_GLOBAL", "LOAD_NAME"})
_ATTRIBUTES = frozenset({"LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "IMPORT_FROM"})


@dataclass(frozen=True)
class Uses:
    """Names that code and the code inside of it read: globals, attributes, and modules with their relative levels."""

    globals: tuple[str, ...]
    attributes: frozenset[str]
    modules: tuple[str, ...]

    @property
    def is_dynamic(self) -> bool:
        """Whether it may read any other name as well."""
        return not DYNAMIC.isdisjoint((*self.globals, *self.attributes))


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


@cache
def uses(code: CodeType) -> Uses:
    """The names that code reads."""
    found: dict[str, dict[str, None]] = {"globals": {}, "attributes": {}, "modules": {}}
    for part in _nested(code):
        for step in dis.get_instructions(part):
            if step.opname in _GLOBALS:
                found["globals"][str(step.argval)] = None
            elif step.opname in _ATTRIBUTES:
                found["attributes"][str(step.argval)] = None
            elif step.opname == "IMPORT_NAME":
                found["modules"][str(step.argval)] = None
    return Uses(tuple(found["globals"]), frozenset(found["attributes"]), tuple(found["modules"]))


@cache
def code_digest(code: CodeType) -> str:
    """sha256 of what code does."""
    content = hashlib.sha256()
    for part in (code.co_code, code.co_exceptiontable):
        content.update(len(part).to_bytes(8, "little") + part)
    numbers = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    content.update(repr((numbers, names, [_constant(value) for value in code.co_consts])).encode("utf-8", "replace"))
    return content.hexdigest()


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return code_digest(value)
    if isinstance(value, tuple):
        return [_constant(entry) for entry in value]
    if isinstance(value, frozenset):
        return ["frozenset", sorted(repr(_constant(entry)) for entry in value)]
    return [type(value).__name__, repr(value)]
