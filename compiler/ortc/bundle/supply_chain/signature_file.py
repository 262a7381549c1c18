"""The file of one signature, in the format of OpenSSF Model Signing: written in one form, and read strictly."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from pathlib import Path
from typing import Any

from ortc.common.errors import UsageError
from ortc.common.plain_files import MOST_KEY, read_plain, read_plain_text

_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"


def expect_key(key: Path) -> None:
    """Check that a key is a plain file of a key's size; libraries would read anything to its end.

    Raises:
        UsageError: it cannot be read, is a pipe or a device, or is too large.
    """
    try:
        read_plain(key, MOST_KEY)
    except OSError as error:
        raise UsageError(f"the key {key} cannot be read: {error.strerror}", help="give a key as a PEM file") from error


def is_canonical(place: Path, key: Path) -> bool:
    """Whether a signature file is, to the bit, how one with its payload and this key is written.

    What the signature itself does not cover (spaces, media types, the unused bits of base64) could change unseen else.
    """
    from cryptography.hazmat.primitives import serialization

    try:
        text = read_plain_text(place)
        envelope = json.loads(text)["dsseEnvelope"]
        payload, (signature,) = str(envelope["payload"]), (str(entry["sig"]) for entry in envelope["signatures"])
        for value in (payload, signature):
            if base64.b64encode(base64.b64decode(value, validate=True)).decode() != value:
                return False
    except (OSError, ValueError, KeyError, TypeError, RecursionError, binascii.Error):
        return False
    public = serialization.load_pem_public_key(read_plain(key, MOST_KEY)).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return text == _text(payload, signature, hashlib.sha256(public).hexdigest())


def rewritten(written: Path) -> str:
    """A signature of the library's without the fields that say nothing."""
    document = json.loads(read_plain(written))
    envelope = document["dsseEnvelope"]
    hint = document["verificationMaterial"]["publicKey"]["hint"]
    return _text(envelope["payload"], envelope["signatures"][0]["sig"], hint)


def _text(payload: str, signature: str, hint: str) -> str:
    document = {
        "mediaType": _MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": hint}},
        "dsseEnvelope": {"payload": payload, "payloadType": _PAYLOAD_TYPE, "signatures": [{"sig": signature}]},
    }
    return json.dumps(document, indent=1) + "\n"


def stated_digests(content: bytes) -> dict[str, str]:
    """SHA-256 by path as the statement of a signature names them; empty where it is no signature."""
    try:
        envelope = json.loads(content)["dsseEnvelope"]
        statement: Any = json.loads(base64.b64decode(envelope["payload"], validate=True))
        return {str(entry["name"]): str(entry["digest"]) for entry in statement["predicate"]["resources"]}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
