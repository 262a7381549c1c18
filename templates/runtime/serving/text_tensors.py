"""Texts as tensors of the Open Inference Protocol: BYTES in JSON, in binary and over gRPC, in requests and answers."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from loading.arrays import Arrays
from numpy.typing import NDArray

from serving.bounds import MOST_TEXTS, quoted
from serving.errors import RefusedError, bad
from serving.texts import TextModel

if TYPE_CHECKING:
    from serving.texts import Answered

DATATYPE = "BYTES"
NAMES, FILES = ("text", "text_pair"), ("image", "audio")  # of the inputs
LABEL, TRANSCRIPT, COUNT = "label", "transcript", "token_count"  # outputs beside those of the model
Json = dict[str, Any]
T = TypeVar("T")


def count_of(shape: object, datatype: object, what: str) -> int:
    """The number of texts that an input says to hold.

    Raises:
        RefusedError: 400, it is no tensor [texts] or [texts, 1] of BYTES; 413, there are too many.
    """
    if datatype != DATATYPE:
        raise bad(f"{what}: datatype is not {DATATYPE}")
    fits = isinstance(shape, list) and 1 <= len(shape) <= 2 and all(type(size) is int and size >= 0 for size in shape)
    if not isinstance(shape, list) or not fits or shape[1:] not in ([], [1]):
        raise bad(f"{what}: shape is neither [texts] nor [texts, 1]")
    if shape[0] > MOST_TEXTS:
        raise RefusedError(413, "too-large", f"{what}: at most {MOST_TEXTS} texts are taken at once")
    return int(shape[0])


def from_json(data: object, count: int, what: str) -> list[str]:
    """The strings of `data`, flat or each in a list of its own."""
    if isinstance(data, list) and data and all(isinstance(entry, list) and len(entry) == 1 for entry in data):
        data = [entry[0] for entry in data]
    if not isinstance(data, list) or not all(isinstance(entry, str) for entry in data):
        raise bad(f"{what}: data is not a list of strings")
    return counted(data, count, what)


def from_bytes(content: bytes | bytearray | memoryview, count: int, what: str) -> list[str]:
    """The texts of a tensor in bytes."""
    return decoded(parts_of(content, count, what), count, what)


def parts_of(content: bytes | bytearray | memoryview, count: int, what: str) -> list[bytes]:
    """The parts of a tensor in bytes: each with its length before it, in four bytes, the lowest first."""
    parts, at = [], 0
    view = memoryview(content)
    for _ in range(count):
        if at + 4 > len(view):
            raise bad(f"{what}: its bytes end before its {count} texts do")
        (length,) = struct.unpack_from("<I", view, at)
        if at + 4 + length > len(view):
            raise bad(f"{what}: its bytes end before its {count} texts do")
        parts.append(bytes(view[at + 4 : at + 4 + length]))
        at += 4 + length
    if at != len(view):
        raise bad(f"{what}: {len(view) - at} bytes follow its {count} texts")
    return parts


def decoded(parts: Iterable[bytes], count: int, what: str) -> list[str]:
    """Texts of UTF-8."""
    try:
        return counted([part.decode("utf-8") for part in parts], count, what)
    except UnicodeDecodeError as error:
        raise bad(f"{what}: a text is not UTF-8") from error


def counted(found: list[T], count: int, what: str) -> list[T]:
    """What an input holds, once it is as much as its shape says."""
    if len(found) != count:
        raise bad(f"{what}: its shape says {count} texts, it holds {len(found)}")
    return found


def entries_of(texts: Mapping[str, list[Any]], tensors: Iterable[str]) -> list[object]:
    """The texts, pairs, images or sounds of a request whose other inputs are `tensors`.

    Raises:
        RefusedError: 400, there are tensors beside them, or the texts of pairs are not as many.
    """
    for name in tensors:
        held = next(iter(texts))
        raise bad(f"the request holds {held} and the tensor {quoted(name)}; send one or the other")
    for name in FILES:
        if name in texts:
            return list(texts[name])
    first, second = texts.get(NAMES[0]), texts.get(NAMES[1])
    if first is None:
        raise bad(f"input {NAMES[1]!r} needs input {NAMES[0]!r}")
    if second is None:
        return list(first)
    if len(first) != len(second):
        raise bad(f"input {NAMES[0]!r} has {len(first)} texts, input {NAMES[1]!r} has {len(second)}")
    return [dict(zip(NAMES, pair, strict=True)) for pair in zip(first, second, strict=True)]


# --- answers -------------------------------------------------------------------------------------------------------


def outputs_of(model: TextModel) -> dict[str, Json]:
    """The outputs that a request of texts may ask for: those of the model, and what is made of them."""
    found: dict[str, Json] = {tensor.name: {} for tensor in model.outputs()}
    if model.processing.kind == "labels":
        found[LABEL] = {"name": LABEL, "datatype": DATATYPE, "shape": [-1]}
    if model.processing.kind == "transcript":
        found[TRANSCRIPT] = {"name": TRANSCRIPT, "datatype": DATATYPE, "shape": [-1]}
    if any(model.is_per_token(tensor) for tensor in model.outputs()):
        found[COUNT] = {"name": COUNT, "datatype": "INT64", "shape": [-1]}
    return found


def names_of(model: TextModel, asked: Sequence[str] | None) -> list[str]:
    """The outputs asked for, or all; RefusedError for one that texts do not have."""
    known = outputs_of(model)
    for name in asked or ():
        if name not in known:
            raise RefusedError(400, "input", f"texts have no output {quoted(name)}; there are {', '.join(known)}")
    return list(asked or known)


def needed(model: TextModel, names: Sequence[str]) -> list[str]:
    """The outputs of the model that these are made of."""
    own = [tensor.name for tensor in model.outputs()]
    per_token = [tensor.name for tensor in model.outputs() if model.is_per_token(tensor)]
    found = [name for name in names if name in own]
    found += [model.processing.output] if LABEL in names or TRANSCRIPT in names else []
    found += per_token[:1] if COUNT in names else []
    return list(dict.fromkeys(found))


def stacked(model: TextModel, answered: Answered, names: Sequence[str]) -> Arrays:
    """The outputs of all texts as arrays; of tokens, shorter texts are filled with zeros after their last one."""
    made = Arrays()
    per_token = {tensor.name for tensor in model.outputs() if model.is_per_token(tensor)}
    for name in names:
        if name == LABEL:
            places = [int(np.argmax(row[model.processing.output])) for row in answered.values]
            made[name] = np.array([model.processing.labels[place] for place in places], dtype=object)
        elif name == TRANSCRIPT:
            form: Any = model.processing.form
            spelled = [form.text(row[model.processing.output].argmax(axis=-1)) for row in answered.values]
            made[name] = np.array(spelled, dtype=object)
        elif name == COUNT:
            rows = [row[next(known for known in row if known in per_token)] for row in answered.values]
            made[name] = np.array([len(row) for row in rows], dtype=np.int64)
        elif name in per_token:
            made[name] = _padded([row[name] for row in answered.values])
        else:
            made[name] = np.stack([row[name] for row in answered.values])
    return made


def size_of(answered: Answered) -> int:
    """Bytes of the arrays that `stacked` makes, at most."""
    longest = dict[str, int]()
    for row in answered.values:
        for name, values in row.items():
            longest[name] = max(longest.get(name, 0), values.nbytes)
    return sum(longest.values()) * len(answered.values)


def _padded(rows: Sequence[NDArray[Any]]) -> NDArray[Any]:
    longest = max(len(row) for row in rows)
    made = np.zeros((len(rows), longest, *rows[0].shape[1:]), rows[0].dtype)
    for index, row in enumerate(rows):
        made[index, : len(row)] = row
    return made


def to_bytes(array: NDArray[Any]) -> bytes:
    """The texts of an array, each with its length before it."""
    parts = [str(text).encode() for text in array.ravel()]
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def is_text(array: NDArray[Any]) -> bool:
    """Whether an array holds texts."""
    return array.dtype.kind == "O"


def described(model: TextModel) -> tuple[list[Json], list[Json]]:
    """The inputs and outputs that texts add to those of the model."""
    if not model.takes_tensors:
        return [], []
    names = model.inputs if model.processing.pairs else model.inputs[:1]
    return [{"name": name, "datatype": DATATYPE, "shape": [-1]} for name in names], [
        entry for entry in outputs_of(model).values() if entry
    ]
