"""Requests of the Open Inference Protocol over gRPC to arrays, and answers to messages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from loading.arrays import Arrays
from loading.interface import Tensor
from loading.model import Model
from numpy.typing import NDArray

from serving import text_tensors
from serving.bounds import LONGEST_NAME, SLACK, Capacity, quoted
from serving.errors import bad
from serving.json_tensors import MOST_AXES, check_range, strings
from serving.protocol import (
    LONGEST_ID,
    MOST_OUTPUTS,
    NAMES,
    Request,
    bytes_of,
    check_capacity,
    check_outputs,
    datatype_of,
    from_bytes,
    interface,
    is_name,
    refuse_unsupported,
)

# Where the values of a datatype are in InferTensorContents; FP16 has no place there.
CONTENTS = {
    "BOOL": "bool_contents",
    **{f"INT{bits}": "int_contents" for bits in (8, 16, 32)},
    "INT64": "int64_contents",
    **{f"UINT{bits}": "uint_contents" for bits in (8, 16, 32)},
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}


TEXTS = "bytes_contents"


def decode(message: Any, tensors: Sequence[Tensor], capacity: Capacity | None = None) -> Request:
    """A ModelInferRequest; `binary` of the request says whether its tensors came as bytes.

    `capacity` is the most that the model's inputs hold: nothing is made of more.

    Raises:
        RefusedError: 400, with what to send instead.
    """
    if len(message.id) > LONGEST_ID:
        raise bad(f"id has more than {LONGEST_ID} characters")
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise bad(f"raw_input_contents has {len(raw)} entries for {len(message.inputs)} inputs; send one for each")
    if len(message.inputs) > len(tensors) + SLACK or len(message.outputs) > MOST_OUTPUTS:
        raise bad(f"there are {len(message.inputs)} inputs and {len(message.outputs)} outputs, more than any model has")
    dtypes = {tensor.name: tensor.dtype for tensor in tensors}
    arrays: Arrays = {}
    texts: dict[str, list[Any]] = {}
    given = () if capacity is None else capacity.texts
    for index, entry in enumerate(message.inputs):
        what = f"input {quoted(entry.name)}"
        if not is_name(entry.name) or len(entry.shape) > MOST_AXES:
            raise bad(
                f"{what}: its name has more than {LONGEST_NAME} characters, or its shape more than {MOST_AXES} axes"
            )
        if entry.name in arrays or entry.name in texts:
            raise bad(f"{what} is given twice")
        refuse_unsupported(entry.parameters, what)
        if raw and entry.HasField("contents"):
            raise bad(f"{what} has contents beside raw_input_contents; send one of them")
        if entry.name in given:
            content = raw[index] if raw else None
            texts[entry.name] = _texts(entry, content, what, is_file=entry.name in text_tensors.FILES)
            continue
        dtype, shape = interface(entry.datatype, list(entry.shape), what, dtypes.get(entry.name))
        check_capacity(capacity, entry.name, shape, what)
        if dtype.kind == "U":
            found = _texts(entry, raw[index] if raw else None, what, count=math.prod(shape))
            arrays[entry.name] = strings(found, shape, what)
        elif raw:
            content, expected = raw[index], math.prod(shape) * dtype.itemsize
            if len(content) != expected:
                raise bad(f"{what}: raw_input_contents has {len(content)} bytes, shape {shape} takes {expected}")
            arrays[entry.name] = from_bytes(content, 0, shape, dtype, what)
        else:
            arrays[entry.name] = _from_contents(entry, shape, dtype, what)
    for output in message.outputs:
        if not is_name(output.name):
            raise bad(f"the name of an output has more than {LONGEST_NAME} characters")
        refuse_unsupported(output.parameters, f"output {quoted(output.name)}")
    names = check_outputs([output.name for output in message.outputs])
    entries = text_tensors.entries_of(texts, arrays) if texts else None
    return Request(arrays, names or None, None if raw else frozenset(), message.id or None, entries)


def _texts(entry: Any, raw: bytes | None, what: str, *, is_file: bool = False, count: int | None = None) -> list[Any]:
    """The texts or files of an input, of its bytes or of its contents; `count` of them, or what its shape says."""
    if count is None:
        count = text_tensors.count_of(list(entry.shape), entry.datatype, what)
    if raw is not None:
        return [*(text_tensors.parts_of if is_file else text_tensors.from_bytes)(raw, count, what)]
    found = [descriptor.name for descriptor, values in entry.contents.ListFields() if values]
    if found not in ([], [TEXTS]):
        raise bad(f"{what}: {entry.datatype} is sent in {TEXTS}, found {', '.join(found)}")
    parts = entry.contents.bytes_contents
    return text_tensors.counted(list(parts), count, what) if is_file else text_tensors.decoded(parts, count, what)


def _from_contents(entry: Any, shape: list[int], dtype: np.dtype[Any], what: str) -> NDArray[Any]:
    field = CONTENTS.get(entry.datatype)
    if field is None:
        raise bad(f"{what}: {entry.datatype} has no typed contents; send raw_input_contents")
    found = [descriptor.name for descriptor, values in entry.contents.ListFields() if values]
    if found not in ([], [field]):
        raise bad(f"{what}: {entry.datatype} is sent in {field}, found {', '.join(found)}")
    values = getattr(entry.contents, field)
    if len(values) != math.prod(shape):
        raise bad(f"{what}: shape is {shape}, {field} has {len(values)} values")
    wide = {"b": np.bool_, "i": np.int64, "u": np.uint64, "f": dtype.type}[dtype.kind]
    array: NDArray[Any] = np.array(values, wide)
    check_range(array, dtype, NAMES[dtype], what)
    return array.astype(dtype, copy=False).reshape(shape)


def encode(response: Any, model: Model, answer: Arrays, request: Request) -> Any:
    """The answer as a ModelInferResponse: in bytes where the request was, or where a datatype has no typed contents."""
    response.model_name, response.model_version, response.id = model.name, model.version, request.id or ""
    raw = request.binary is None or any(array.dtype == np.float16 for array in answer.values())
    for name, array in answer.items():
        entry = response.outputs.add(name=name, datatype=datatype_of(array), shape=array.shape)
        if raw:
            response.raw_output_contents.append(bytes(bytes_of(array)))
        elif text_tensors.is_text(array):
            entry.contents.bytes_contents.extend(text.encode() for text in array.ravel())
        else:
            getattr(entry.contents, CONTENTS[entry.datatype]).extend(array.ravel().tolist())
    return response


def describe(response: Any, document: Mapping[str, Any]) -> Any:
    """Fill a message from a document of the same names: strings, lists of them, and lists of objects."""
    for name, value in document.items():
        if not isinstance(value, list):
            setattr(response, name, value)
        elif value and isinstance(value[0], dict):
            fill(getattr(response, name), value)
        else:
            getattr(response, name).extend(value)
    return response


def fill(entries: Any, documents: Iterable[Mapping[str, Any]]) -> None:
    """Add a message for each document."""
    for document in documents:
        describe(entries.add(), document)
