"""Look into a .pt2 archive before torch does: torch.export.load runs code that an archive carries.

Measured on torch 2.13: pickles are read where a member's name says so, whatever its description says; symbolic sizes go
through sympy.sympify(), which is eval(); compiled libraries are loaded. Only what plain programs need is let through.

torch and Python read zip files differently: torch finds the directory of an archive by its offset, Python by its size,
and torch ignores the case of names. So the checked members go into a new archive, and torch reads that one.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
import shutil
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ortc.common.disk import room, temporary
from ortc.common.errors import StageError
from ortc.inspection.pt2_archive import ARCHIVE_ERRORS
from ortc.inspection.pt2_reach import unsafe

# Names inside the archive's one directory. Weights, constants and sample inputs are read with weights_only.
_MEMBERS = re.compile(
    r"archive_format|archive_version|byteorder|version|models/model\.json"
    r"|\.data/\w+|\.format_version|\.storage_alignment"
    r"|data/(weights|constants)/(model_(weights|constants)_config\.json|(weight|tensor)_\d+)"
    r"|data/sample_inputs/model\.pt",
    re.ASCII,
)
_NOTES = re.compile(r"extra/[\w./-]*", re.ASCII)
"""Members that a plain program may have and that nothing reads; the new archive does not have them."""
_MAX_JSON = 256 * 2**20
"""Most bytes of one JSON member: ten times what the largest programs have."""
_TENSOR = re.compile(r"(weight|tensor)_\d+")
_SYMBOLS = re.compile(r"[A-Za-z_]\w*|-?\d{1,40}(\.\d{1,40})?(e[-+]?\d{1,3})?", re.ASCII)
"""Texts in a size: names of symbols, and the digits of `Float('1.5', precision=53)`."""
# What torch prints symbolic sizes with: torch.utils._sympy.functions, and sympy's own of integers.
_FUNCTIONS = frozenset(
    """
    Symbol Integer Float Rational Add Mul Pow Mod Max Min Abs Eq Ne Lt Le Gt Ge And Or Not Piecewise floor ceiling
    FloorDiv CleanDiv CeilDiv ModularIndexing Where PythonMod FloatTrueDiv IntTrueDiv FloatPow PowByNatural FloorToInt
    StrictLessThan StrictGreaterThan LessThan GreaterThan Equality Unequality
    CeilToInt TruncToInt TruncToFloat RoundToInt RoundDecimal ToFloat Identity LShift RShift
    """.split()  # noqa: SIM905
)
_POWERS = frozenset(("Pow", "PowByNatural", "FloatPow", "LShift"))
_MAX_TEXT = 16 * 2**10
"""Most characters of a size; those of vision models with windows have some hundreds."""
_MAX_BITS = 2**20
"""Most bits of a number that evaluating a size may come to."""
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


def checked_copy(path: Path, copy: Path) -> None:
    """Write an archive of the members of a .pt2 archive after the check that reading them runs nothing.

    Args:
        path: the archive.
        copy: the new archive; it is what torch may read.

    Raises:
        StageError: no archive, or something in it would run code.
        DiskFullError: no room for the copy.
    """
    with room(temporary()):
        _check(path, copy)


def refuse_code(path: Path) -> None:
    """Check that reading what `checked_copy` makes of a .pt2 archive runs nothing.

    Raises:
        StageError: no archive, or something in it would run code.
    """
    _check(path, None)


def _check(path: Path, copy: Path | None) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            reason = next(_reasons(archive, path.stat().st_size), None)
            if reason is None:
                reason = _members_reason(archive, copy)
    except ARCHIVE_ERRORS as error:
        raise StageError(f"`{path.name}` is no .pt2 archive: {error}") from error
    if reason is not None:
        if copy is not None:
            copy.unlink(missing_ok=True)
        raise StageError(
            f"refused to read `{path.name}`: {reason}",
            help="reading it would run code that the file carries; save a program of plain tensors and operators with "
            "torch.export.save()",
        )


def _reasons(archive: zipfile.ZipFile, size: int) -> Iterator[str]:
    """What the directory of an archive has against it."""
    members = [member for member in archive.infolist() if not member.is_dir()]
    twice = next((name for name, count in Counter(member.filename for member in members).items() if count > 1), None)
    if twice is not None:
        yield f"it has more than one member `{twice}`"
    if len({member.filename.partition("/")[0] for member in members}) > 1:
        yield "it has more than one directory"
    for member in members:
        inner = member.filename.partition("/")[2]
        if not (_MEMBERS.fullmatch(inner) or _NOTES.fullmatch(inner)):
            yield f"it holds `{inner}`, which is no part of a plain program"
        elif inner.endswith(".json") and member.file_size > _MAX_JSON:
            yield f"its member `{inner}` is larger than {_MAX_JSON // 2**20} MiB"
        elif member.compress_type != zipfile.ZIP_STORED:
            yield f"its member `{inner}` is compressed, which torch.export.save() does not do"
    # Members that share bytes would unfold into more than the file holds.
    if sum(member.file_size for member in members) > size:
        yield "its members are larger than the file"


def _members_reason(archive: zipfile.ZipFile, copy: Path | None) -> str | None:
    """What the JSON members have against them; each is copied as the very bytes that were checked."""
    with zipfile.ZipFile(copy, "w") if copy is not None else contextlib.nullcontext() as fresh:
        for member in archive.infolist():
            inner = member.filename.partition("/")[2]
            if member.is_dir() or not _MEMBERS.fullmatch(inner):
                continue
            if inner.endswith(".json"):
                content = archive.read(member)
                document = json.loads(content, object_pairs_hook=_once)
                kinds = (_payloads,) if inner.endswith("_config.json") else (unsafe, _expressions)
                if (reason := next((found for kind in kinds for found in kind(document)), None)) is not None:
                    return reason
                if fresh is not None:
                    fresh.writestr(f"program/{inner}", content)
            elif fresh is not None:
                with archive.open(member) as source, fresh.open(f"program/{inner}", "w", force_zip64=True) as target:
                    shutil.copyfileobj(source, target, 1 << 20)
    return None


def _payloads(document: Any) -> Iterator[str]:
    config = document.get("config", {}) if isinstance(document, dict) else None
    if not isinstance(config, dict):
        yield "the list of its weights is no mapping"
        return
    for name, payload in config.items():
        if not isinstance(payload, dict) or not _TENSOR.fullmatch(str(payload.get("path_name"))):
            yield f"its constant `{name[:80]}` is a pickled object"


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
    """Whether an expression is made of numbers, symbols and the functions that torch prints, and is soon evaluated."""
    if len(text) > _MAX_TEXT:
        return False
    try:
        tree = ast.parse(text, mode="eval")
        if _bits(tree.body) > _MAX_BITS:
            return False
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


def _bits(node: ast.AST) -> int:
    """The most bits that the value of an expression can take, with 64 for a symbol.

    Raises:
        ValueError: nothing bounds them, as in `2**s0`.
    """
    match node:
        case ast.Constant(value=int() as value):
            return value.bit_length()
        case ast.BinOp(left=left, op=ast.Pow() | ast.LShift() as operator, right=right):
            return _power(left, right, isinstance(operator, ast.LShift))
        case ast.Call(func=ast.Name(id=name), args=[left, right]) if name in _POWERS:
            return _power(left, right, name == "LShift")
        case _:
            return 64 + sum(_bits(child) for child in ast.iter_child_nodes(node))


def _power(base: ast.expr, exponent: ast.expr, shifts: bool) -> int:
    value = exponent.operand if isinstance(exponent, ast.UnaryOp) else exponent
    if isinstance(value, ast.Call) and len(value.args) == 1 and not value.keywords:
        # Integer(2)
        value = value.args[0]
    if not isinstance(value, ast.Constant) or not isinstance(value.value, int | float) or abs(value.value) > 64:
        raise ValueError("an exponent that is no small number")
    times = max(1, int(abs(value.value)))
    return _bits(base) + times if shifts else _bits(base) * times


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is written twice")
    return result
