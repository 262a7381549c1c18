"""What a program of a .pt2 archive reaches beside arithmetic: the operators it calls, the containers of its arguments.

Measured on torch 2.13: the name of an operator is a path of attributes from the module `torch`; the context of a
container may name an enumeration, whose module is imported and which is indexed; some operators read and write files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_OPERATOR = re.compile(r"torch\.ops\.(aten|prims|quantized_decomposed|torchvision)\.(?P<name>\w+)(\.\w+)?", re.ASCII)
_HIGHER = re.compile(
    r"torch\.ops\.higher_order\.(cond|map|map_impl|scan|while_loop|associative_scan|invoke_subgraph"
    r"|wrap_with_set_grad_enabled|wrap_with_autocast|flex_attention|auto_functionalized(_v2)?)"
)
_OF_SIZES = re.compile(
    r"_operator\.(add|sub|mul|floordiv|truediv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem|lshift|rshift)"
    r"|math\.(ceil|floor|trunc|sqrt|pow)"
    r"|torch\.(sym_|_sym_)(int|float|max|min|ite|not|sqrt|sum|constrain_range|constrain_range_for_size)",
    re.ASCII,
)
_ON_FILES = frozenset(("from_file", "save", "load", "warn", "_print", "print"))
"""Operators of ATen, and of TorchScript under its name, that read, write or print."""
_DEPTH = 64


def unsafe(document: Any) -> Iterator[str]:
    """What models/model.json has against it: nothing for what torch.export saves of plain modules.

    Args:
        document: the parsed JSON.
    """
    pending = [document]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending += value
        elif isinstance(value, dict):
            pending += value.values()
            for key in ("target", "as_operator"):
                name = value.get(key)
                if isinstance(name, str) and (key == "as_operator" or "inputs" in value) and not _is_plain(name):
                    yield f"it calls `{name[:80]}`, which is no plain operator"
            for key in ("in_spec", "out_spec"):
                if isinstance(text := value.get(key), str):
                    yield from _containers(text)


def _is_plain(name: str) -> bool:
    if (found := _OPERATOR.fullmatch(name)) is not None:
        return found["name"] not in _ON_FILES
    return _HIGHER.fullmatch(name) is not None or _OF_SIZES.fullmatch(name) is not None


def _containers(text: str) -> Iterator[str]:
    """What the layout of arguments or results has against it: contexts other than plain keys."""
    if not text:
        return
    try:
        layout = json.loads(text)
    except ValueError:
        yield "the layout of its arguments is no JSON"
        return
    pending = [(layout[1] if isinstance(layout, list) and len(layout) == 2 else None, 0)]
    while pending:
        node, depth = pending.pop()
        children = node.get("children_spec") if isinstance(node, dict) else None
        if not isinstance(node, dict) or not isinstance(children, list) or depth > _DEPTH:
            yield "the layout of its arguments is none that torch writes"
            return
        if not _is_plain_context(node.get("context")):
            yield f"a container of its arguments, {str(node.get('type'))[:80]}, has more than keys of text and numbers"
            return
        pending += [(child, depth + 1) for child in children]


def _is_plain_context(context: Any) -> bool:
    """Whether a context is nothing, a number, or a list of keys; torch makes objects of mappings."""
    if context is None:
        return True
    if not isinstance(context, str):
        return False
    try:
        held = json.loads(context)
    except ValueError:
        return False
    return all(
        key is None or isinstance(key, str | int | float) for key in (held if isinstance(held, list) else [held])
    )
