"""What a user's own function depends on: its code, the code that it imports, and the data beside it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib.machinery import PathFinder
from pathlib import Path

from ortc.common.digests import sha256_file
from ortc.common.errors import StageError
from ortc.common.plain_files import read_plain
from ortc.common.project import IMPORTED_FROM, find_module, module_file
from ortc.common.values import digest

_NO_DATA = (".md", ".rst", ".lock", ".pyc", ".safetensors", ".bin", ".pt", ".pth", ".pt2", ".onnx", ".data")
"""Beside a module, but not read by it: documents, locks, and weights, which the spec names where they matter."""


def entrypoint_digest(entrypoint: str, root: Path) -> str:
    """sha256 over the files that decide what a function of the user's does: see `entrypoint_files`.

    Raises:
        StageError: the module cannot be found.
    """
    return digest([[name, sha256_file(path)] for name, path in sorted(entrypoint_files(entrypoint, root).items())])


def entrypoint_files(entrypoint: str, root: Path) -> dict[str, Path]:
    """Find the files that decide what a function of the user's does, by name.

    These are the Python files of its directory, the modules of the project that they import, directly or not, and the
    data files beside it. Code of installed packages is known by their versions.

    Args:
        entrypoint: `module:function`.
        root: the project that entry points are imported from.

    Raises:
        StageError: the module cannot be found.
    """
    file = _module_file(entrypoint, root)
    beside = [path for path in file.parent.iterdir() if path.is_file() and not path.name.startswith(".")]
    files = {path.name: path for path in beside if path.suffix == ".py" or not path.name.endswith(_NO_DATA)}
    if file.is_relative_to(root):
        code = [path for path in beside if path.suffix == ".py"]
        files |= {str(path.relative_to(root)): path for path in _imported(code, root)}
    return files


def _module_file(entrypoint: str, root: Path) -> Path:
    name = entrypoint.partition(":")[0]
    file = module_file(name, root)
    if file is None:
        raise StageError(f"cannot find the module `{name}` of the entry point `{entrypoint}`", help=IMPORTED_FROM)
    return file


def installed(package: str) -> bool:
    """Whether a package is installed; what lies in the working directory is not, although `python -m` would find it."""
    places = [place for place in sys.path if place and Path(place) != Path.cwd()]
    return package in sys.builtin_module_names or PathFinder.find_spec(package, places) is not None


def _imported(code: list[Path], root: Path) -> set[Path]:
    """Every file of the project that some code imports, with that code itself."""
    found: set[Path] = set()
    pending = list(code)
    while pending:
        file = pending.pop()
        if file in found:
            continue
        found.add(file)
        for place in _imports(file, root):
            # Importing a.b.c runs a and a.b too.
            for package in (place, *place.parents):
                if package == root or not package.is_relative_to(root):
                    break
                if (module := find_module(package)) is not None:
                    pending.append(module)
    return found


def _imports(file: Path, root: Path) -> Iterator[Path]:
    """Where the modules that a file imports would lie in the project, without suffixes."""
    for level, module, names in _import_statements(read_plain(file)):
        base = root if level == 0 else file.parents[min(level, len(file.parents)) - 1]
        place = base.joinpath(*module.split(".")) if module else base
        yield place
        # `from package import name`: the name may be a module.
        for name in names:
            yield place / name


@lru_cache(maxsize=1024)
def _import_statements(source: bytes) -> tuple[tuple[int, str, tuple[str, ...]], ...]:
    """Level, module and names of every import; one build asks for those of the same files again and again."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        # Whoever imports it will hear of it.
        return ()
    found: list[tuple[int, str, tuple[str, ...]]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(0, alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or "", tuple(alias.name for alias in node.names)))
    return tuple(found)
