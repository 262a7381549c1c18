"""Wrong files made of right ones: bytes, JSON documents, archives and headers of safetensors."""

from __future__ import annotations

import copy
import json
import random
import zipfile
from collections.abc import Callable
from io import BytesIO
from typing import Any

from ortc.common.values import digest

Chance = random.Random
_WORDS = (
    b"\0",
    b"\n",
    b"\xff\xff\xff\xff",
    b"\x7f" * 8,
    b"9" * 40,
    b"-1",
    b"../../x",
    b"\x1b[2J",
    b"${env:HOME}",
    b"PK",
)
_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 2**31, 2**63, 10**40, 0.5, float("nan"), float("inf"), "", "x", "../../x", "a\nb", "\x1b[2J"),
    *("\0", "é\ud800", "x" * 5000, [], {}, [[]], {"x": 1}, [1, 2, 3], "${env:HOME}", "0" * 64),
)


def octets(content: bytes, chance: Chance) -> bytes:
    """Bytes changed, left out, doubled, put in or cut off at the end."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(6):
            case 0 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at : at + chance.randrange(1, 9)] = chance.randbytes(chance.randrange(9))
            case 2:
                data[at:at] = chance.choice(_WORDS)
            case 3:
                data[at : at + 4] = chance.choice((0, 1, 2**16, 2**31, 2**32 - 1)).to_bytes(4, "little")
            case 4:
                length = chance.randrange(1, 64)
                data[at:at] = data[at : at + length]
            case _ if chance.random() < 0.2:
                del data[at:]
    return bytes(data)


def fields(kind: type[Any]) -> Callable[[bytes, Chance], bytes]:
    """How a message of protobuf is changed in its fields: other values, entries left out, doubled, or put elsewhere."""

    def change(content: bytes, chance: Chance) -> bytes:
        message = kind.FromString(content)
        for _ in range(chance.choice((1, 1, 2, 3))):
            _change_field(message, chance)
        return bytes(message.SerializeToString())

    return change


def _change_field(message: Any, chance: Chance) -> None:
    """Change one field of a message, or of one inside of it."""
    held = [field for field, _ in message.ListFields()]
    field = chance.choice(held if held and chance.random() < 0.8 else message.DESCRIPTOR.fields)
    if field.message_type is not None:
        inner = getattr(message, field.name)
        if field.is_repeated:
            if not inner or chance.random() < 0.1:
                inner.add()
            elif chance.random() < 0.15:
                del inner[chance.randrange(len(inner))]
            elif chance.random() < 0.15:
                inner.add().CopyFrom(chance.choice(inner))
            else:
                _change_field(chance.choice(inner), chance)
        elif chance.random() < 0.1:
            message.ClearField(field.name)
        else:
            _change_field(inner, chance)
        return
    if chance.random() < 0.1:
        message.ClearField(field.name)
        return
    value = chance.choice(_OF_FIELDS[field.cpp_type])
    if field.type == field.TYPE_BYTES:
        value = chance.choice((b"", b"\0", b"\xff" * 7, b"\x7f" * 48))
    if field.cpp_type == field.CPPTYPE_ENUM:
        value = chance.choice(field.enum_type.values).number
    if not field.is_repeated:
        setattr(message, field.name, value)
    elif (values := getattr(message, field.name)) and chance.random() < 0.7:
        values[chance.randrange(len(values))] = value
    else:
        values.append(value)


_INTEGERS = (0, 1, -1, 2, 17, 255, 2**20, 2**31 - 1, -(2**31))
_OF_FIELDS: dict[int, tuple[Any, ...]] = {
    1: _INTEGERS,
    2: (*_INTEGERS, 2**40, 2**62, 2**63 - 1, -(2**63)),
    3: (0, 1, 2**32 - 1),
    4: (0, 1, 2**64 - 1),
    5: (0.0, float("nan"), float("inf"), -1e308),
    6: (0.0, float("nan"), float("inf"), -1e38),
    7: (True, False),
    8: (0,),
    9: (
        "",
        "x",
        "y",
        "w",
        "h",
        "F",
        "local",
        "Relu",
        "Identity",
        "If",
        "Loop",
        "../x",
        "a\nb",
        "9" * 30,
        "w.bin",
        "-1",
        "é",
    ),
}
"""Values of the kinds of fields, by protobuf's numbers of them."""


def structure(content: bytes, chance: Chance) -> bytes:
    """A JSON document with values replaced, left out, added, or nested deeply; sometimes bytes of it changed."""
    if chance.random() < 0.15:
        return octets(content, chance)
    document = json.loads(content)
    for _ in range(chance.choice((1, 1, 2, 3))):
        place, key = _place(document, chance)
        if place is None:
            continue
        match chance.randrange(4):
            case 0:
                del place[key]
            case 1 if isinstance(place, dict):
                place[chance.choice(("x", "", "sha256", "kind", "../x", "a\nb"))] = copy.deepcopy(
                    chance.choice(_VALUES)
                )
            case 2 if isinstance(place, list):
                place.append(copy.deepcopy(chance.choice(_VALUES)))
            case _:
                place[key] = copy.deepcopy(chance.choice(_VALUES))
    text = json.dumps(document)
    if chance.random() < 0.02:
        depth = chance.choice((100, 1000, 100_000))
        text = text.replace('"x"', "[" * depth + "]" * depth, 1) if '"x"' in text else "[" * depth + "]" * depth
    return text.encode()


def _place(document: Any, chance: Chance) -> tuple[Any, Any]:
    """A container inside of a document and one of its keys; None where the document is no container."""
    node, key = None, None
    inner = document
    while isinstance(inner, dict | list) and inner and (node is None or chance.random() < 0.75):
        node = inner
        key = chance.choice(list(node)) if isinstance(node, dict) else chance.randrange(len(node))
        inner = node[key]
    return node, key


def sealed(content: bytes, chance: Chance) -> bytes:
    """The same of a document with its own digest, which mostly is made right again."""
    changed = structure(content, chance)
    try:
        document = json.loads(changed)
        if isinstance(document, dict) and chance.random() < 0.8:
            document.pop("sha256", None)
            return json.dumps({**document, "sha256": digest(document)}).encode()
    except (ValueError, RecursionError):
        pass
    return changed


def members(content: bytes, chance: Chance) -> bytes:
    """An archive with a member changed and packed again, or with its own bytes changed."""
    if chance.random() < 0.4:
        return octets(content, chance)
    packed = BytesIO()
    with zipfile.ZipFile(BytesIO(content)) as source, zipfile.ZipFile(packed, "w") as target:
        names = source.namelist()
        chosen = chance.choice(names)
        for name in names:
            inner = source.read(name)
            if name == chosen:
                inner = structure(inner, chance) if name.endswith(".json") else octets(inner, chance)
            how = chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
            target.writestr(zipfile.ZipInfo(name), inner, how)
    return packed.getvalue()


def safetensors(content: bytes, chance: Chance) -> bytes:
    """A header of safetensors with its JSON changed, and its length right or not."""
    length = int.from_bytes(content[:8], "little")
    header = structure(content[8 : 8 + length], chance)
    stated = len(header) if chance.random() < 0.8 else chance.choice((0, 7, 2**31, 2**63))
    return stated.to_bytes(8, "little") + header + content[8 + length :]
