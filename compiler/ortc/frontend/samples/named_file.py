"""A sample or an odd input as a file with a name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NamedFile:
    """An image or a sound as a file; the name is for people."""

    name: str
    content: bytes
