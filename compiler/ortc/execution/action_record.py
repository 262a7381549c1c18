"""Records of finished actions: what went in, what came out, and the files by digest, as JSON.

The same document lies in the local cache and in a remote one. It carries the digest of itself, and its key is the
digest of what went in: a record that was cut, changed or put under another key is not read.
"""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ortc.common.values import Count, Frozen, digest

Json = dict[str, Any]


def _inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise ValueError("leads out of its directory")
    return path


class KeptFile(Frozen):
    """A file that an action wrote; its content is the blob of that sha256."""

    path: Annotated[str, AfterValidator(_inside)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Count
    mode: Annotated[int, Field(ge=0, le=0o777)]


class Record(Frozen):
    """A finished action. Version 1 of the format was a directory an action, without blobs."""

    format_version: Literal[2] = 2
    stage: str
    subject: str
    inputs: Json
    result: Json
    files: tuple[KeptFile, ...]

    @property
    def key(self) -> str:
        """What the action is found by."""
        return action_key(self.stage, self.inputs)

    def content(self) -> bytes:
        """The record as it is kept.

        Raises:
            TypeError: inputs or result are no JSON.
        """
        # Not pydantic's JSON, which has no numbers that are none.
        document = {**dict(self), "files": [file.model_dump() for file in self.files]}
        return json.dumps({**document, "sha256": digest(document)}, indent=1).encode()


def action_key(stage: str, inputs: Json) -> str:
    """The digest of everything that goes into an action."""
    return digest({"stage": stage, "inputs": inputs})


def read_record(content: bytes, key: str) -> Record:
    """The record in a file.

    Raises:
        ValueError: it is damaged, of another format, or of another action than `key`.
    """
    try:
        document = json.loads(content)
        if not isinstance(document, dict) or "sha256" not in document:
            raise ValueError("no record of an action")
        stated = document.pop("sha256")
        if digest(document) != stated:
            raise ValueError("its own digest does not match")
        record = Record.model_validate(document)
        if record.key != key:
            raise ValueError("it belongs to another action")
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return record
