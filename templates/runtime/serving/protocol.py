"""The Open Inference Protocol v2: requests to arrays, answers to bytes, in JSON and binary tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from loading.arrays import Arrays
from loading.interface import Tensor
from loading.model import Model
from numpy.typing import NDArray

from serving import text_tensors
from serving.bounds import LONGEST_NAME, SLACK, Capacity, quoted
from serving.errors import RefusedError, bad
from serving.json_tensors import MOST_AXES, from_json, strings
from serving.media import from_base64
from serving.texts import TextModel

DATATYPES = {
    "BOOL": "bool",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    **{f"{sign.upper()}INT{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
DTYPES = {name: np.dtype(dtype) for name, dtype in DATATYPES.items()} | {text_tensors.DATATYPE: np.dtype(str)}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
JSON_TYPE = b"application/json"
BINARY_TYPE = b"application/octet-stream"
HEAD_LENGTH = b"inference-header-content-length"
MOST_OUTPUTS = 1024  # that a request may name
LONGEST_ID = 1024  # characters; it is sent back


@dataclass(frozen=True)
class Request:
    """An inference request. `outputs` are the names asked for or None for all; `binary` those to answer in binary."""

    inputs: Arrays
    outputs: list[str] | None
    binary: frozenset[str] | None  # None: all of them
    id: str | None
    texts: list[object] | None = None  # what a model that takes texts is sent instead of inputs


# --- requests ------------------------------------------------------------------------------------------------------


def decode(
    body: bytes | bytearray, head_length: str | None, tensors: Sequence[Tensor], capacity: Capacity | None = None
) -> Request:
    """An inference request; `head_length` is the header Inference-Header-Content-Length, where there is one.

    Binary tensors are views of `body`. `capacity` is the most that the model's inputs hold: of a text that has more
    nothing is made.

    Raises:
        RefusedError: 400, with what to send instead.
    """
    end = len(body)
    if head_length is not None:
        if not re.fullmatch("[0-9]{1,18}", head_length) or int(head_length) > len(body):
            raise bad("Inference-Header-Content-Length is not a number of bytes within the body")
        end = int(head_length)
    if capacity is not None and (problem := capacity.refuse_json(body, end)):
        raise bad(problem)
    try:
        request = orjson.loads(memoryview(body)[:end])
    except orjson.JSONDecodeError as error:
        raise bad(f"the {'body' if head_length is None else 'JSON part of the body'} is not JSON: {error}") from error
    if not isinstance(request, dict) or not isinstance(request.get("inputs"), list):
        raise bad('expected a JSON object with "inputs": [{"name", "shape", "datatype", "data"}, ...]')
    identifier = request.get("id")
    if identifier is not None and (not isinstance(identifier, str) or len(identifier) > LONGEST_ID):
        raise bad(f"id is not a string of at most {LONGEST_ID} characters")
    dtypes = {tensor.name: tensor.dtype for tensor in tensors}
    if len(request["inputs"]) > len(tensors) + SLACK:
        raise bad(f"inputs has {len(request['inputs'])} entries, the model takes {len(tensors)}")
    arrays: Arrays = {}
    texts: dict[str, list[Any]] = {}
    given = () if capacity is None else capacity.texts
    for entry in request["inputs"]:
        if not isinstance(entry, dict) or not is_name(entry.get("name")):
            raise bad(f"every input needs a name of at most {LONGEST_NAME} characters")
        name = entry["name"]
        what = f"input {quoted(name)}"
        if name in arrays or name in texts:
            raise bad(f"{what} is given twice")
        if name in given:
            texts[name], end = _texts(entry, body, end, what, is_file=name in text_tensors.FILES)
            continue
        dtype, shape = interface(entry.get("datatype"), entry.get("shape"), what, dtypes.get(name))
        check_capacity(capacity, name, shape, what)
        size = _parameters(entry, what).get("binary_data_size")
        if size is None:
            arrays[name] = from_json(entry.get("data"), shape, dtype, NAMES[dtype], what)
        elif dtype.kind == "U":
            arrays[name] = _strings(body, end, size, shape, what)
            end += size
        else:
            _check_size(size, shape, dtype, what)
            arrays[name] = from_bytes(body, end, shape, dtype, what)
            end += size
    if end != len(body):
        raise bad(f"the body has {len(body) - end} bytes more than its JSON part and its binary tensors")
    names, binary = _outputs(request)
    entries = text_tensors.entries_of(texts, arrays) if texts else None
    return Request(arrays, names, binary, identifier, entries)


def _strings(body: bytes | bytearray, start: int, size: object, shape: list[int], what: str) -> NDArray[Any]:
    """A tensor of strings whose bytes begin at `start`."""
    if type(size) is not int or not 0 <= size <= len(body) - start:
        raise bad(f"{what}: binary_data_size is not a number of bytes within the body")
    found = text_tensors.from_bytes(memoryview(body)[start : start + size], math.prod(shape), what)
    return strings(found, shape, what)


def _texts(
    entry: Mapping[str, Any], body: bytes | bytearray, start: int, what: str, *, is_file: bool
) -> tuple[list[Any], int]:
    """The texts or files of an input, and where the next binary tensor begins."""
    count = text_tensors.count_of(entry.get("shape"), entry.get("datatype"), what)
    size = _parameters(entry, what).get("binary_data_size")
    if size is None:
        found = text_tensors.from_json(entry.get("data"), count, what)
        return [from_base64(text, what) for text in found] if is_file else found, start
    if type(size) is not int or not 0 <= size <= len(body) - start:
        raise bad(f"{what}: binary_data_size is not a number of bytes within the body")
    read = text_tensors.parts_of if is_file else text_tensors.from_bytes
    return [*read(memoryview(body)[start : start + size], count, what)], start + size


def is_name(name: object) -> bool:
    """Whether it is a string that can be a name."""
    return isinstance(name, str) and len(name) <= LONGEST_NAME


def check_capacity(capacity: Capacity | None, name: str, shape: Sequence[int], what: str) -> None:
    """Raise RefusedError where an input says that it holds far more values than the model takes."""
    if capacity is not None and (problem := capacity.refuse_values(name, math.prod(shape))):
        raise bad(f"{what}: {problem}")


def _parameters(entry: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    parameters = entry.get("parameters", {})
    if not isinstance(parameters, dict):
        raise bad(f"{what}: parameters is not an object")
    refuse_unsupported(parameters, what)
    return parameters


def refuse_unsupported(parameters: Container[str], what: str) -> None:
    """Raise RefusedError for parameters of extensions that are not there, and that must not be ignored."""
    for unsupported in ("shared_memory_region", "classification"):
        if unsupported in parameters:
            raise bad(f"{what}: the extension of the parameter {unsupported} is not supported")


def interface(
    datatype: object, shape: object, what: str, dtype: np.dtype[Any] | None
) -> tuple[np.dtype[Any], list[int]]:
    """The dtype and the shape of an input; `dtype` is the model's, None where it has no such input.

    Raises:
        RefusedError: 400, they are none, or the model takes another dtype.
    """
    if not isinstance(datatype, str) or datatype not in DTYPES:
        raise bad(f"{what}: datatype is not one of {', '.join(DTYPES)}")
    found = DTYPES[datatype]
    if dtype is not None and found != dtype:
        raise bad(f"{what}: datatype is {datatype}, the model takes {NAMES[dtype]}")
    if (
        not isinstance(shape, list)
        or len(shape) > MOST_AXES
        or not all(type(size) is int and 0 <= size < 2**31 for size in shape)
    ):
        raise bad(f"{what}: shape is not a list of sizes")
    return found, shape


def _check_size(size: object, shape: list[int], dtype: np.dtype[Any], what: str) -> None:
    expected = math.prod(shape) * dtype.itemsize
    if type(size) is not int or size != expected:
        raise bad(f"{what}: binary_data_size is not {expected}, the bytes of shape {shape}")


def from_bytes(body: bytes | bytearray, start: int, shape: list[int], dtype: np.dtype[Any], what: str) -> NDArray[Any]:
    """The tensor whose bytes begin at `start`; a view wherever it can be one.

    Raises:
        RefusedError: 400, the bytes end before it does, or are not of its dtype.
    """
    count = math.prod(shape)
    if start + count * dtype.itemsize > len(body):
        raise bad(f"{what}: the body ends before its {count * dtype.itemsize} bytes of binary data")
    if dtype.kind == "b":
        flags = np.frombuffer(body, np.uint8, count, start)
        if count and flags.max() > 1:
            raise bad(f"{what}: a BOOL in binary is a byte of 0 or 1")
        return flags.view(dtype).reshape(shape)
    array = np.frombuffer(body, dtype, count, start).reshape(shape)
    # Kernels load whole vectors from where numpy's own arrays begin: at a multiple of their item.
    return array if array.flags.aligned else array.copy()


def check_outputs(names: list[str]) -> list[str]:
    """The same names; raises RefusedError when one is there twice."""
    if len(set(names)) < len(names):
        raise bad("outputs names one twice")
    return names


def _outputs(request: Mapping[str, Any]) -> tuple[list[str] | None, frozenset[str] | None]:
    every = _flag(_parameters(request, "the request"), "binary_data_output", "the request")
    asked = request.get("outputs")
    if asked is None or asked == []:
        return None, None if every else frozenset()
    if (
        not isinstance(asked, list)
        or len(asked) > MOST_OUTPUTS
        or not all(isinstance(o, dict) and is_name(o.get("name")) for o in asked)
    ):
        raise bad('outputs is not a list of {"name"}; leave it out for all outputs')
    names = check_outputs([output["name"] for output in asked])
    binary = set()
    for output in asked:
        what = f"output {quoted(output['name'])}"
        if _flag(_parameters(output, what), "binary_data", what, every):
            binary.add(output["name"])
    return names, frozenset(binary)


def _flag(parameters: Mapping[str, Any], name: str, what: str, default: bool = False) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise bad(f"{what}: {name} is neither true nor false")
    return value


# --- answers -------------------------------------------------------------------------------------------------------


def encode(model: Model, answer: Arrays, request: Request) -> tuple[bytes, int | None]:
    """The body of an answer, and the bytes of its JSON part where binary tensors follow.

    Raises:
        RefusedError: 422, an infinity or NaN that JSON cannot say.
    """
    outputs: list[dict[str, Any]] = []
    tail: list[memoryview] = []
    named = {tensor.name: tensor for tensor in model.outputs if tensor.labels is not None}
    for name, array in answer.items():
        entry: dict[str, Any] = {"name": name, "datatype": datatype_of(array), "shape": list(array.shape)}
        if request.binary is None or name in request.binary:
            content = bytes_of(array)
            entry["parameters"] = {"binary_data_size": len(content)}
            tail.append(content)
        elif text_tensors.is_text(array):
            entry["data"] = array.ravel().tolist()
        elif array.dtype.kind == "f" and not np.isfinite(array).all():
            raise RefusedError(
                422, "numerics", f"output {name!r} holds NaN or infinity, which JSON cannot say; ask for binary data"
            )
        else:
            entry["data"] = np.ascontiguousarray(array).ravel()
        if name in named and (labels := named[name].named(array)) is not None:
            entry["parameters"] = {**entry.get("parameters", {}), "labels": labels}
        outputs.append(entry)
    document: dict[str, Any] = {"model_name": model.name, "model_version": model.version, "outputs": outputs}
    if request.id is not None:
        document["id"] = request.id
    # Numbers of float32 are written as short as float32 reads them: half the bytes of what double precision would take.
    head = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join([head, *tail]), len(head)) if tail else (head, None)


def datatype_of(array: NDArray[Any]) -> str:
    """The protocol's name for what an array of an answer holds."""
    return text_tensors.DATATYPE if text_tensors.is_text(array) else NAMES[array.dtype]


def bytes_of(array: NDArray[Any]) -> memoryview:
    """The bytes of a tensor of an answer."""
    if text_tensors.is_text(array):
        return memoryview(text_tensors.to_bytes(array))
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def metadata(model: Model, versions: Sequence[str], texts: TextModel | None = None) -> dict[str, Any]:
    """The interface of the model; a dynamic axis is -1. `texts` is how it takes texts."""
    inputs, outputs = ([], []) if texts is None else text_tensors.described(texts)

    def described(tensors: Sequence[Tensor]) -> list[dict[str, Any]]:
        return [
            {
                "name": tensor.name,
                "datatype": NAMES[tensor.dtype],
                "shape": [size if isinstance(size, int) else -1 for size in tensor.shape],
                **({} if tensor.labels is None else {"parameters": {"labels": list(tensor.labels)}}),
            }
            for tensor in tensors
        ]

    return {
        "name": model.name,
        "versions": list(versions),
        "platform": "onnxruntime_onnx",
        "inputs": [*described(model.inputs), *inputs],
        "outputs": [*described(model.outputs), *outputs],
    }
