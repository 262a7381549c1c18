"""Digests of files and of the compiler's own code, for cache keys and manifests."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ortc.plan import digest


def sha256_file(path: Path) -> str:
    """sha256, in hex, of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def code_digest(*modules: str) -> str:
    """sha256 over the source of modules or packages of this one, given as paths relative to it (`stages/export.py`)."""
    package = Path(__file__).parent
    files = [
        file
        for name in modules
        for file in (sorted((package / name).rglob("*.py")) if (package / name).is_dir() else [package / name])
    ]
    return digest([[str(file.relative_to(package)), sha256_file(file)] for file in files])


def loader_digest() -> str:
    """sha256 of the loader that bundles carry, and of what it loads: what runs every check and measurement."""
    from ortc.resources import templates_dir

    runtime = templates_dir() / "runtime"
    both = "".join(sha256_file(runtime / name) for name in ("loader.py", "engines.py"))
    return hashlib.sha256(both.encode()).hexdigest()


def templates_digest() -> str:
    """sha256 over everything that is rendered or copied into bundles."""
    from ortc.resources import templates_dir

    root = templates_dir()
    files = sorted(file for file in root.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return digest([[str(file.relative_to(root)), sha256_file(file)] for file in files])
