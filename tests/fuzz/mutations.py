"""Wrong files made of right ones: bytes, JSON documents, archives and headers of safetensors."""

from __future__ import annotations

import copy
import json
import random
import zipfile
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
