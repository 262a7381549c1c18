"""Digests of files, for cache keys and manifests."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ortc.common.plain_files import open_plain
from ortc.common.values import digest


def sha256_file(path: Path) -> str:
    """sha256, in hex, of a file's bytes."""
    with open_plain(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def templates_digest() -> str:
    """sha256 over everything that is rendered or copied into bundles; pages about them are not."""
    from ortc.common.resources import templates_dir

    root = templates_dir()
    left_out = {"__pycache__", "pages"}
    files = sorted(
        file for file in root.rglob("*") if file.is_file() and not left_out & set(file.relative_to(root).parts)
    )
    return digest([[str(file.relative_to(root)), sha256_file(file)] for file in files])
