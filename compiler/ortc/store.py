"""Where builds keep what they can reuse: finished actions, source files by digest, runtime environments."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from platformdirs import user_cache_path

from ortc.plan import digest

Json = dict[str, Any]

RESULT = "result.json"


def cache_root() -> Path:
    """`$ORTC_CACHE_DIR`, or `ortc` in the user's cache directory."""
    configured = os.environ.get("ORTC_CACHE_DIR")
    return Path(configured) if configured else user_cache_path("ortc")


@dataclass(frozen=True)
class Entry:
    """A finished action: the files it wrote, its JSON result, and whether it ran now."""

    key: str
    directory: Path
    result: Json
    cached: bool


class Store:
    """Finished actions by the digest of everything that went into them.

    An entry is written beside its place and renamed into it, under a lock of its own: a kill leaves no half entry, and
    of several builds that need the same action one does it while the others wait.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, stage: str, inputs: Json, action: Callable[[Path], Json]) -> Entry:
        """The entry for these inputs; `action(directory)` makes it when there is none.

        Args:
            stage: name of the stage.
            inputs: everything the result depends on, as JSON.
            action: writes files into the empty directory it gets, returns its JSON result.
        """
        if (found := self.find(stage, inputs)) is not None:
            return found
        key = digest({"stage": stage, "inputs": inputs})
        place = self._place(stage, key)
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{place}.lock"):
            if (found := self._read(key, place)) is not None:
                return found
            work = Path(tempfile.mkdtemp(prefix=f".{key[:12]}-", dir=place.parent))
            try:
                result = action(work)
                (work / RESULT).write_text(json.dumps(result, indent=1), "utf-8")
                work.rename(place)
            finally:
                shutil.rmtree(work, ignore_errors=True)
            return Entry(key, place, result, cached=False)

    def put(self, stage: str, inputs: Json, result: Json) -> Entry:
        """Keep a result that is there already."""
        return self.run(stage, inputs, lambda _: result)

    def find(self, stage: str, inputs: Json) -> Entry | None:
        """The entry for these inputs, if the action has been done."""
        key = digest({"stage": stage, "inputs": inputs})
        return self._read(key, self._place(stage, key))

    def _place(self, stage: str, key: str) -> Path:
        return self.root / "actions" / stage.replace(" ", "-") / key

    def _read(self, key: str, place: Path) -> Entry | None:
        try:
            result = json.loads((place / RESULT).read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError:
            # Torn by a crash of the machine: what cannot be read is made again.
            shutil.rmtree(place, ignore_errors=True)
            return None
        return Entry(key, place, result, cached=True)

    def blob(self, sha256: str) -> Path:
        """Where the file with this digest is kept."""
        return self.root / "blobs" / sha256[:2] / sha256

    def add_blob(self, path: Path, sha256: str) -> Path:
        """Keep a copy of a file whose digest was checked; returns its place."""
        place = self.blob(sha256)
        if not place.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".", dir=place.parent)
            os.close(handle)
            try:
                shutil.copyfile(path, name)
                Path(name).rename(place)
            finally:
                Path(name).unlink(missing_ok=True)
        return place


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
    """sha256 of the loader that bundles carry: what runs every check and measurement."""
    from ortc.resources import templates_dir

    return sha256_file(templates_dir() / "runtime" / "loader.py")


def templates_digest() -> str:
    """sha256 over everything that is rendered or copied into bundles."""
    from ortc.resources import templates_dir

    root = templates_dir()
    files = sorted(file for file in root.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return digest([[str(file.relative_to(root)), sha256_file(file)] for file in files])
