"""Archives of exported programs made by hand: the JSON that torch.export.save writes, as far as it is read."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LONG, FLOAT = 5, 7
WEIGHTS = {"table": (100, 16), "head": (100, 16), "w": (16, 16), "late": (5, 16)}
Json = dict[str, Any]


def size(value: int | str) -> Json:
    return {"as_int": value} if isinstance(value, int) else {"as_expr": {"expr_str": value, "hint": {"as_int": 3}}}


def tensor(dtype: int, *sizes: int | str) -> Json:
    return {"dtype": dtype, "sizes": [size(value) for value in sizes]}


def document(
    inputs: dict[str, Json] | None = None,
    ranges: dict[str, tuple[int | None, int | None]] | None = None,
    keywords: Sequence[str] = (),
    keys: Sequence[str] = (),
    constants: Sequence[str] = (),
    varying: Sequence[str] = (),
) -> Json:
    """models/model.json: an embedding tied to a head, a linear layer, and one on the way to another output.

    Args:
        inputs: Tensors that are given; `ids` choose the rows of the embedding.
        ranges: Bounds of symbols.
        keywords: Inputs that are given by name.
        keys: What the two outputs are called.
        constants: Arguments that are no tensors and have a value.
        varying: Numbers that have none.
    """
    taken = {"ids": tensor(LONG, 1)} if inputs is None else inputs

    def call(name: str, output: str, **arguments: str) -> Json:
        given = [{"name": key, "arg": {"as_tensor": {"name": value}}, "kind": 1} for key, value in arguments.items()]
        return {"target": f"torch.ops.aten.{name}", "inputs": given, "outputs": [{"as_tensor": {"name": output}}]}

    specs: list[Json] = [{"parameter": {"arg": {"name": f"p_{name}"}, "parameter_name": name}} for name in WEIGHTS]
    specs += [{"user_input": {"arg": {"as_tensor": {"name": name}}}} for name in taken]
    specs += [{"constant_input": {"name": name, "value": {"as_int": 3}}} for name in constants]
    specs += [{"user_input": {"arg": {"as_sym_int": {"as_name": name}}}} for name in varying]
    leaf: Json = {"type": None, "context": None, "children_spec": []}
    places: Json = {"type": "builtins.tuple", "context": "null", "children_spec": [leaf] * len(taken)}
    names: Json = {"type": "builtins.dict", "context": json.dumps(list(keywords)), "children_spec": []}
    given: Json = {"type": "builtins.tuple", "context": "null", "children_spec": [places, names]}
    kind = "builtins.dict" if keys else "builtins.tuple"
    made: Json = {"type": kind, "context": json.dumps(list(keys) or None), "children_spec": [leaf] * 2}
    return {
        "graph_module": {
            "graph": {
                "nodes": [
                    call("embedding.default", "e", weight="p_table", indices="ids"),
                    call("linear.default", "l", input="e", weight="p_w"),
                    call("linear.default", "y", input="l", weight="p_head"),
                    call("linear.default", "z", input="l", weight="p_late"),
                ],
                "tensor_values": taken,
            },
            "signature": {
                "input_specs": specs,
                "output_specs": [{"user_output": {"arg": {"as_tensor": {"name": name}}}} for name in ("y", "z")],
            },
            "module_call_graph": [
                {"fqn": "", "signature": {"in_spec": json.dumps([1, given]), "out_spec": json.dumps([1, made])}}
            ],
        },
        "range_constraints": {
            symbol: {"min_val": least, "max_val": most} for symbol, (least, most) in (ranges or {}).items()
        },
    }


def archive(path: Path, model: Json | None = None) -> Path:
    """A .pt2 file with a program and the places of its weights, and without their bytes."""
    payload: dict[str, Json] = {
        name: {"path_name": f"weight_{index}", "is_param": True, "tensor_meta": tensor(FLOAT, *shape)}
        for index, (name, shape) in enumerate(WEIGHTS.items())
    }
    payload["head"]["path_name"] = payload["table"]["path_name"]
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("m/data/weights/model_weights_config.json", json.dumps({"config": payload}))
        file.writestr("m/models/model.json", json.dumps(document() if model is None else model))
    return path


def two_faced(path: Path, shown: dict[str, bytes], hidden: dict[str, bytes]) -> Path:
    """An archive with two directories: readers that go by the size of the directory see one, others the other.

    Args:
        path: where it is written.
        shown: members that Python's zipfile finds, just before the end of the file.
        hidden: members of the same names that a reader finds who trusts the offset of the directory, as torch does.
    """
    honest, size, start = _zip(shown, 0)
    # Offsets that zipfile adds to are not negative: the hidden archive begins behind as much as the other one takes.
    hostile, other, offset = _zip(hidden, len(honest))
    assert size == other, "the directories must be of one size: give both the same names"
    entries, at = bytearray(honest[start : start + size]), 0
    while at < size:
        (place,) = struct.unpack_from("<I", entries, at + 42)
        struct.pack_into("<I", entries, at + 42, place + offset - start)
        at += 46 + sum(struct.unpack_from("<HHH", entries, at + 28))
    path.write_bytes(hostile[: offset + size] + honest[:start] + bytes(entries) + hostile[offset + size :])
    return path


def _zip(members: dict[str, bytes], begin: int) -> tuple[bytes, int, int]:
    """An archive behind `begin` null bytes, with the size and the offset of its directory."""
    stream = io.BytesIO(b"\0" * begin)
    stream.seek(begin)
    with zipfile.ZipFile(stream, "w") as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name), content)
    size, offset = struct.unpack("<II", stream.getvalue()[-10:-2])
    return stream.getvalue(), size, offset
