"""Look into a .pt2 archive before torch does: torch.export.load runs code that an archive carries.

Measured on torch 2.13: pickles are read where a member's name says so, whatever its description says; symbolic sizes go
through sympy.sympify(), which is eval(); compiled libraries are loaded. Only what plain programs need is let through.
"""

from __future__ import annotations

import ast
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ortc.errors import StageError

# Names inside the archive's one directory. Weights, constants and sample inputs are read with weights_only.
_MEMBERS = re.compile(
    r"archive_format|archive_version|byteorder|version|models/model\.json|extra/[\w./-]*"
    r"|\.data/\w+|\.format_version|\.storage_alignment"
    r"|data/(weights|constants)/(model_(weights|constants)_config\.json|(weight|tensor)_\d+)"
    r"|data/sample_inputs/model\.pt"
)
_MAX_JSON = 256 * 2**20
"""Most bytes of one JSON member: ten times what the largest programs have."""
_TENSOR = re.compile(r"(weight|tensor)_\d+")
_SYMBOLS = re.compile(r"[A-Za-z_]\w*")
# What torch prints symbolic sizes with: torch.utils._sympy.functions, and sympy's own of integers.
_FUNCTIONS = frozenset(
    """
    Symbol Integer Float Rational Add Mul Pow Mod Max Min Abs Eq Ne Lt Le Gt Ge And Or Not Piecewise floor ceiling
    FloorDiv CleanDiv CeilDiv ModularIndexing Where PythonMod FloatTrueDiv IntTrueDiv FloatPow PowByNatural FloorToInt
    CeilToInt TruncToInt TruncToFloat RoundToInt RoundDecimal ToFloat Identity LShift RShift
    """.split()  # noqa: SIM905
)
_NODES = (
    ast.Expression,
    ast.Call,
    ast.keyword,
    ast.Name,
    ast.Constant,
    ast.BinOp,
    ast.UnaryOp,
    ast.Compare,
    ast.Load,
    ast.operator,
    ast.unaryop,
    ast.cmpop,
)


def refuse_code(path: Path) -> None:
    """Check that reading a .pt2 archive runs nothing.

    Raises:
        StageError: no archive, or something in it would run code.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            reason = next(_reasons(archive), None)
    except (zipfile.BadZipFile, ValueError, KeyError, RecursionError, NotImplementedError) as error:
        raise StageError(f"`{path.name}` is no .pt2 archive: {error}") from error
    if reason is not None:
        raise StageError(
            f"refused to read `{path.name}`: {reason}",
            help="reading it would run code that the file carries; save a program of plain tensors and operators with "
            "torch.export.save()",
        )


def _reasons(archive: zipfile.ZipFile) -> Iterator[str]:
    names = [name for name in archive.namelist() if not name.endswith("/")]
    # Of two members with one name, torch may read the other one.
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        yield f"it has more than one member `{twice}`"
    if len({name.partition("/")[0] for name in names}) > 1:
        yield "it has more than one directory"
    for name in names:
        inner = name.partition("/")[2]
        if not _MEMBERS.fullmatch(inner):
            yield f"it holds `{inner}`, which is no part of a plain program"
        elif inner.endswith(".json") and archive.getinfo(name).file_size > _MAX_JSON:
            yield f"its member `{inner}` is larger than {_MAX_JSON // 2**20} MiB"
        elif inner.endswith("_config.json"):
            yield from _payloads(json.loads(archive.read(name), object_pairs_hook=_once))
        elif inner.startswith("models/"):
            yield from _expressions(json.loads(archive.read(name), object_pairs_hook=_once))


def _payloads(document: dict[str, Any]) -> Iterator[str]:
    for name, payload in document.get("config", {}).items():
        if not _TENSOR.fullmatch(str(payload.get("path_name"))):
            yield f"its constant `{name}` is a pickled object"


def _expressions(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "expr_str" and not _is_arithmetic(str(item)):
                yield f"a size is `{str(item)[:80]}`, which is no arithmetic"
            yield from _expressions(item)
    elif isinstance(value, list):
        for item in value:
            yield from _expressions(item)


def _is_arithmetic(text: str) -> bool:
    """Whether an expression is made of numbers, symbols and the functions that torch prints."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for node in ast.walk(tree):
        if not isinstance(node, _NODES):
            return False
        if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS):
            return False
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not _SYMBOLS.fullmatch(node.value):
            return False
        if isinstance(node, ast.Name) and node.id.startswith("__"):
            return False
    return True


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is written twice")
    return result
