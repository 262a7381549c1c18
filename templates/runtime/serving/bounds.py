"""What a request may hold, before anything is made of it: values, lists, names and fields."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from loading.interface import Axis, Tensor

from serving.json_bounds import Structure, count, structure

SLACK = 4096  # values and lists beyond the model's own: a small mistake gets the message that names it
VALUE_BYTES = 64  # of JSON for one value, with white space
LONGEST_NAME = 1024  # characters
MOST_TEXTS = 2048  # of one request
LONGEST_STRING = 65536  # characters of a value of a string tensor: tokens of a batch take the place of the longest
MOST_FILES = 64  # images or sounds of one request
SHOWN = 64  # characters of a client's text that an answer repeats
LONGEST_MESSAGE = 1000  # characters


def quoted(text: str) -> str:
    """The client's text in quotes, short enough to be sent back."""
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")


def clipped(message: str) -> str:
    """The message, short enough for an answer and for the metadata of a call."""
    return message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]}..."


@dataclass(frozen=True)
class Capacity:
    """The most that inputs of a model can hold: values by input, and lists of lists in JSON."""

    values: dict[str, int]
    lists: int
    strings: bool = False  # whether an input holds strings, of any length
    texts: tuple[str, ...] = ()  # names of the inputs for texts, images or sounds that the model takes, too

    @classmethod
    def of(cls, tensors: Sequence[Tensor], axes: Sequence[Axis], *, texts: tuple[str, ...] = ()) -> Capacity:
        """The capacity of inputs whose dynamic axes are bounded."""
        most = {axis.name: axis.max for axis in axes}
        values, lists = dict[str, int](), 0
        for tensor in tensors:
            shape = [most[size] if isinstance(size, str) else int(size or 0) for size in tensor.shape]
            values[tensor.name] = math.prod(shape)
            lists += 1 + sum(math.prod(shape[:depth]) for depth in range(1, len(shape)))
        return cls(values, lists, any(tensor.is_text for tensor in tensors), texts)

    def refuse_size(self, end: int) -> str:
        """Why a JSON text of so many bytes cannot be a request to the model; empty where it can."""
        if self.texts or self.strings:
            return ""
        most = 65536 + VALUE_BYTES * (sum(self.values.values()) + SLACK)
        return f"the JSON part has {end} bytes, the model needs at most {most}" if end > most else ""

    def refuse_json(self, body: bytes | bytearray, end: int) -> str:
        """Why this text cannot be a request to the model, seen without parsing it; empty where it can.

        Objects are made only of text that passes: one byte of JSON can become a hundred bytes of them.
        """
        if end <= SLACK or (problem := self.refuse_size(end)):
            return "" if end <= SLACK else problem
        texts = MOST_TEXTS if self.texts else 0
        most = Structure(
            values=sum(self.values.values()) + SLACK + 2 * texts, lists=self.lists + SLACK + 2 * texts, objects=SLACK
        )
        found = count(body, end)
        if (self.texts or self.strings) and found.beyond(most):
            found = structure(body, end)  # signs within texts are no values
        what = found.beyond(most)
        if not what:
            return ""
        return f"the JSON part holds more {what} than the model takes: more than {getattr(most, what)}"

    def refuse_values(self, name: str, count: int) -> str:
        """Why an input cannot hold so many values, with some slack for small mistakes; empty where it can."""
        most = self.values.get(name, 0)
        return f"it holds {count} values, the model takes at most {most}" if count > most + SLACK else ""


def refuse_fields(content: bytes, most: int = SLACK) -> str:
    """Why a ModelInferRequest has too many fields to be parsed; empty where it has not.

    Reads only lengths: a message of two bytes becomes a hundred bytes of object. What is malformed is left to the
    parser. The numbers of fields are those of serving/messages.py: 5 `inputs`, 6 `outputs`; 5 of an input `contents`.
    """
    counts = [0]
    try:
        for number, start, end in _fields(content, 0, len(content), counts, most):
            if number == 6:
                _fields(content, start, end, counts, most)
            for inner, inner_start, inner_end in _fields(content, start, end, counts, most) if number == 5 else ():
                if inner == 5:
                    _fields(content, inner_start, inner_end, counts, most)
    except OverflowError:
        return f"the message has more than {most} fields; send values packed, or as raw_input_contents"
    except IndexError:
        return ""
    return ""


def _fields(content: bytes, at: int, end: int, counts: list[int], most: int) -> list[tuple[int, int, int]]:
    """The fields with a length between two places: number, start and end. Counts every field."""
    found = []
    while at < end:
        tag, at = _varint(content, at)
        counts[0] += 1
        if counts[0] > most:
            raise OverflowError
        kind = tag & 7
        if kind == 0:
            _, at = _varint(content, at)
        elif kind == 2:
            length, at = _varint(content, at)
            if at + length > end:
                raise IndexError
            found.append((tag >> 3, at, at + length))
            at += length
        else:
            at += {1: 8, 5: 4}.get(kind, 0)
    return found


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError


def json_bytes(body: bytes | bytearray, end: int) -> int:
    """Bytes of memory that the objects of a JSON text take, at most about."""
    return count(body, end).bytes
