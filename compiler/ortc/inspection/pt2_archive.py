"""What a .pt2 archive says of its program. Only its JSON is read: without torch, and nothing in it can run.

The JSON is that of torch/_export/serde/schema.py in torch 2.8 and later; fields that are not needed are passed over.
"""

from __future__ import annotations

import json
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

MAX_JSON = 32 * 2**20
"""Most bytes of one JSON member; a model of hundreds of layers has a tenth of it."""
ARCHIVE_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError),
    *(ValueError, LookupError, RuntimeError, MemoryError),
)
"""What Python raises of a damaged archive: its directory, its members, a password, a size beyond all memory."""
_SYMBOL = re.compile(r"Symbol\('(\w+)'[^()]*\)")
_DTYPES = {
    1: ("uint8", 1),
    2: ("int8", 1),
    3: ("int16", 2),
    4: ("int32", 4),
    5: ("int64", 8),
    6: ("float16", 2),
    7: ("float32", 4),
    8: ("float64", 8),
    12: ("bool", 1),
    13: ("bfloat16", 2),
    28: ("uint16", 2),
    34: ("uint32", 4),
    35: ("uint64", 8),
}
"""Name and bytes of an element by the number of torch's ScalarType."""


class ProgramError(ValueError):
    """Not an archive of an exported program that can be told anything about."""


@dataclass(frozen=True, slots=True)
class Input:
    """A tensor that the program takes; a size is a number, or an expression of symbols like `s23` and `2*s23`."""

    name: str
    dtype: str | None
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Weight:
    """A stored tensor by the name that the graph has for it; `itemsize` is 0 for a type that is not known."""

    name: str
    storage: str
    shape: tuple[int, ...]
    itemsize: int

    @property
    def elements(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Call:
    """One node: the operator, and the tensors that it takes by argument and gives."""

    target: str
    inputs: dict[str, tuple[str, ...]]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """An exported program."""

    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    output_names: tuple[str, ...]
    """Keys of the mapping that the program gives; none when it gives no mapping."""
    constants: tuple[str, ...]
    """Inputs that are no tensors; the program has their values."""
    others: tuple[str, ...]
    """Inputs that are neither tensors nor constants: numbers that vary, objects."""
    ranges: dict[str, tuple[int | None, int | None]]
    """Least and greatest value of each symbol."""
    weights: tuple[Weight, ...]
    calls: tuple[Call, ...]


def read_program(path: Path) -> Program:
    """The program of an archive.

    Raises:
        ProgramError: unreadable, no such archive, or larger than any program's JSON.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2]: name for name in archive.namelist()}
            stored: _Stored = {}
            for kind in ("weights", "constants"):
                member = f"data/{kind}/model_{kind}_config.json"
                if member in names:
                    config = _Config.model_validate(_json(archive, names[member])).config
                    stored |= {name: (f"{kind}/{entry.path_name}", entry.tensor_meta) for name, entry in config.items()}
            if "models/model.json" not in names:
                raise ProgramError(f"`{path.name}` holds no models/model.json")
            model = _Model.model_validate(_json(archive, names["models/model.json"]))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        raise ProgramError(f"`{path.name}` is not of a form that is known: {place}: {first['msg']}") from error
    except (OSError, *ARCHIVE_ERRORS) as error:
        if isinstance(error, ProgramError):
            raise
        raise ProgramError(f"`{path.name}` cannot be read as a .pt2 archive: {error}") from error
    return _program(model, stored)


class _Expression(BaseModel):
    expr_str: str


class _Size(BaseModel):
    as_int: int | None = None
    as_expr: _Expression | None = None


class _Tensor(BaseModel):
    dtype: int
    sizes: tuple[_Size, ...]


class _Payload(BaseModel):
    path_name: str
    tensor_meta: _Tensor | None = None


class _Config(BaseModel):
    config: dict[str, _Payload]


class _Argument(BaseModel):
    name: str
    arg: Any


class _Node(BaseModel):
    target: str
    inputs: tuple[_Argument, ...]
    outputs: tuple[Any, ...]


class _Graph(BaseModel):
    nodes: tuple[_Node, ...]
    tensor_values: dict[str, _Tensor]


class _Signature(BaseModel):
    input_specs: tuple[dict[str, Any], ...]
    output_specs: tuple[dict[str, Any], ...]


class _CallSignature(BaseModel):
    in_spec: str = ""
    out_spec: str = ""


class _ModuleCall(BaseModel):
    fqn: str
    signature: _CallSignature | None = None


class _GraphModule(BaseModel):
    graph: _Graph
    signature: _Signature
    module_call_graph: tuple[_ModuleCall, ...] = ()


class _Range(BaseModel):
    min_val: int | None = None
    max_val: int | None = None


class _Model(BaseModel):
    graph_module: _GraphModule
    range_constraints: dict[str, _Range] = Field(default_factory=dict)


_Stored = dict[str, tuple[str, _Tensor | None]]


def _json(archive: zipfile.ZipFile, name: str) -> Any:
    if archive.getinfo(name).file_size > MAX_JSON:
        raise ProgramError(f"its member `{name}` is larger than {MAX_JSON // 2**20} MiB")
    return json.loads(archive.read(name))


def _program(model: _Model, stored: _Stored) -> Program:
    module = model.graph_module
    values = module.graph.tensor_values
    inputs: list[Input] = []
    weights: list[Weight] = []
    constants: list[str] = []
    others: list[str] = []
    for spec in module.signature.input_specs:
        for kind, entry in spec.items():
            names = tuple(_tensors(entry))
            if kind == "user_input":
                inputs += [_input(name, values.get(name)) for name in names]
                others += () if names else (_name(entry),)
            elif kind == "constant_input":
                constants.append(_name(entry))
            elif isinstance(entry, dict):
                known = str(entry.get(f"{kind}_name"))
                # Parameters and buffers are `{arg: {name}}`, without a tag.
                arg = entry.get("arg")
                value = arg.get("name") if isinstance(arg, dict) else None
                if isinstance(value, str) and known in stored:
                    weights.append(_weight(value, *stored[known]))
    call = next((entry.signature for entry in module.module_call_graph if not entry.fqn), None)
    return Program(
        inputs=tuple(inputs),
        outputs=tuple(name for spec in module.signature.output_specs for name in _tensors(spec)),
        output_names=_keys(call.out_spec if call else ""),
        constants=tuple(constants),
        others=tuple(others),
        ranges={symbol: (entry.min_val, entry.max_val) for symbol, entry in model.range_constraints.items()},
        weights=tuple(weights),
        calls=tuple(
            Call(
                node.target,
                {argument.name: tuple(_tensors(argument.arg)) for argument in node.inputs},
                tuple(name for output in node.outputs for name in _tensors(output)),
            )
            for node in module.graph.nodes
        ),
    )


def _input(name: str, tensor: _Tensor | None) -> Input:
    if tensor is None:
        raise ProgramError(f"the graph says nothing of its input `{name}`")
    shape: list[int | str] = []
    for size in tensor.sizes:
        if size.as_int is not None:
            shape.append(size.as_int)
        elif size.as_expr is not None:
            shape.append(_SYMBOL.sub(r"\1", size.as_expr.expr_str))
        else:
            raise ProgramError(f"the graph does not say the sizes of its input `{name}`")
    return Input(name, _DTYPES.get(tensor.dtype, (None, 0))[0], tuple(shape))


def _weight(name: str, storage: str, tensor: _Tensor | None) -> Weight:
    sizes = [size.as_int for size in tensor.sizes] if tensor is not None else [None]
    known = [size for size in sizes if size is not None and size >= 0]
    itemsize = _DTYPES.get(tensor.dtype, (None, 0))[1] if tensor is not None and len(known) == len(sizes) else 0
    return Weight(name, storage, tuple(known), itemsize)


def _tensors(value: Any) -> Iterator[str]:
    """Names of the tensors in an argument: `as_tensor` alone, or in lists and optional ones."""
    if isinstance(value, dict):
        for key, item in value.items():
            entries = item if isinstance(item, list) else [item]
            for entry in entries:
                name = entry.get("name") if isinstance(entry, dict) else None
                if key in ("as_tensor", "as_tensors") and isinstance(name, str):
                    yield name
                elif isinstance(entry, dict):
                    yield from _tensors(entry)


def _name(value: Any) -> str:
    """The first name in a part of the signature that names no tensor, such as `{"arg": {"as_sym_int": {"as_name"`."""
    pending = [value]
    while pending:
        entry = pending.pop(0)
        if isinstance(entry, dict):
            found = (entry.get("name"), entry.get("as_name"))
            if (name := next((text for text in found if isinstance(text, str)), None)) is not None:
                return name
            pending += entry.values()
    return "an argument"


def _keys(spec: str) -> tuple[str, ...]:
    """Keys of a tree that is a mapping, as torch.utils._pytree writes it; none for anything else."""
    try:
        node = json.loads(spec)[1]
        keys = json.loads(node["context"]) if node["type"] == "builtins.dict" else ()
    except (ValueError, LookupError, TypeError, RecursionError):
        return ()
    return tuple(key for key in keys if isinstance(key, str)) if isinstance(keys, list) else ()
