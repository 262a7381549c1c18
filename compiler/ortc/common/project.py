"""Modules of the user's project: which they are, and how they are imported.

The project is what its owners review, as source. So functions that a spec names come from there, and modules from there
are compiled from their source: neither bytecode nor a compiled library beside it takes its place.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import BuiltinImporter, FrozenImporter, ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NoReturn

from ortc.common.errors import StageError
from ortc.common.permissions import is_trusted
from ortc.common.plain_files import is_plain

IMPORTED_FROM = "entry points are imported from the project's root, the directory that holds .git or pyproject.toml"
_INSTALLED = ("site-packages", "dist-packages")
_FRAMES = 50
"""Of a traceback that is read, from its beginning."""


def untrusted(module: str, subject: str) -> StageError:
    """The error for a function that is not the project's."""
    package = module.partition(".")[0]
    return StageError(
        f"{subject} is not of this project",
        help="write a function below the project's root that calls it, or, where you trust everything in the package, "
        f"add `--trust-entrypoint {package}`",
    )


def in_project(file: Path, root: Path) -> bool:
    """Whether a file, after links, is below the project's root and not part of an environment there."""
    try:
        file, root = file.resolve(), root.resolve()
    except (OSError, RuntimeError):
        return False
    if not file.is_relative_to(root) or any(step in _INSTALLED for step in file.relative_to(root).parts):
        return False
    within = [parent for parent in file.parents if parent != root and parent.is_relative_to(root)]
    own = Path(__file__).resolve().parents[1]
    prefixes = {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), own}
    return not any((parent / "pyvenv.cfg").exists() or parent in prefixes for parent in within)


@dataclass(frozen=True, slots=True)
class Installed:
    """Where an installed module is: its file, None for a package without one, and the directories of a package."""

    file: Path | None
    directories: tuple[Path, ...]


def find_installed(name: str) -> Installed | None:
    """Where an installed module is, found without importing the packages that it is in."""
    first, *others = name.split(".")
    if not all(part.isidentifier() for part in (first, *others)):
        return None
    try:
        spec = importlib.util.find_spec(first)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    file = Path(spec.origin) if spec.origin is not None and spec.has_location else None
    places = tuple(map(Path, spec.submodule_search_locations or ()))
    for part in others:
        places = tuple(place / part for place in places)
        file = next(filter(None, map(find_module, places)), None)
    return Installed(file, tuple(place for place in places if place.is_dir()))


def find_module(place: Path) -> Path | None:
    """The file of a module, given its path without a suffix."""
    candidates = (place / "__init__.py", place.parent / f"{place.name}.py")
    return next((path for path in candidates if is_plain(path)), None)


def module_file(name: str, root: Path) -> Path | None:
    """The source of a module: below the project's root, else installed; nothing is imported."""
    if (file := find_module(root.joinpath(*name.split(".")))) is not None:
        return file
    found = find_installed(name)
    return found.file if found is not None and found.file is not None and is_plain(found.file) else None


def resolve_entrypoint(entrypoint: str, root: Path) -> Any:
    """The object that `module:attribute` names, with the project's root first on the import path.

    Raises:
        StageError: it is neither the project's nor of a trusted package, cannot be imported, or does not exist.
    """
    name, _, attribute = entrypoint.partition(":")
    trusted = is_trusted(name)
    file = module_file(name, root)
    if file is not None and not trusted and not in_project(file, root):
        raise untrusted(name, f"the module `{name}` of the entry point `{entrypoint}`")
    if file is None and not trusted:
        message = f"cannot import `{name}` of the entry point `{entrypoint}`: there is no such module"
        raise StageError(message, help=IMPORTED_FROM)
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    _import_from_source(root)
    try:
        module = importlib.import_module(name) if file is None or trusted else _import(name, file, root, entrypoint)
        value = getattr(module, attribute)
    except ImportError as error:
        raise StageError(
            f"cannot import `{name}` of the entry point `{entrypoint}`: {error}", help=IMPORTED_FROM
        ) from error
    except AttributeError as error:
        raise StageError(f"the module `{name}` has no `{attribute}`") from error
    if not trusted and not _is_of_project(module, root):
        raise untrusted(name, f"the module `{name}` of the entry point `{entrypoint}`")
    if not callable(value):
        raise StageError(
            f"`{entrypoint}` is a value of the type `{type(value).__name__}`, and not a function",
            help="an entry point names a function of the project, as `module:function`",
        )
    owner = _owner(value)
    if not (trusted or is_trusted(owner) or _is_of_project(sys.modules.get(owner), root)):
        raise untrusted(owner, f"`{entrypoint}` is a function of `{owner}`, which")
    return value


@contextmanager
def ending_is_an_error(entrypoint: str) -> Iterator[None]:
    """Run a function of the user's, or import its module, where neither may end the process.

    Raises:
        StageError: it exits, with `os._exit` as well, interrupts itself, or calls itself without end.
    """
    try:
        with _no_exit_at_once():
            yield
    except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:
        said = f"{type(error).__name__}({', '.join(map(repr, error.args))})"
        raise StageError(
            f"`{entrypoint}` ended the process in which it runs: {said}",
            help="a function that a spec names returns its result; it neither exits nor interrupts",
            details=_place(error),
        ) from error
    except RecursionError as error:
        raise StageError(
            f"`{entrypoint}` calls itself without end: {error}",
            help="look at the function that the line below is of",
            details=_place(error),
        ) from error


@contextmanager
def _no_exit_at_once() -> Iterator[None]:
    """Let `os._exit` exit as `sys.exit` does: at once, and with code 0, a build would end as if it had succeeded."""
    process, leave = os.getpid(), os._exit

    def instead(status: int) -> NoReturn:
        if os.getpid() == process:
            raise SystemExit(status)
        leave(status)  # a process that the function forked

    setattr(os, "_exit", instead)  # noqa: B010  # type checkers know it as a function that never returns
    try:
        yield
    finally:
        setattr(os, "_exit", leave)  # noqa: B010


def _place(error: BaseException) -> tuple[str, ...]:
    """The innermost line of code that is no library's."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__, limit=_FRAMES)
        if not any(step in _INSTALLED for step in Path(frame.filename).parts) and Path(frame.filename) != Path(__file__)
    ]
    if not frames:
        return ()
    return (f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}, in {frames[-1].name}: {frames[-1].line}",)


def _import(name: str, file: Path, root: Path, entrypoint: str) -> ModuleType:
    """Import a module of the project from the file that was checked, after the packages that it is in.

    Each one is found before its code runs: an installed package goes before a directory of its name that has no
    `__init__.py`, and a package that was imported before goes first in any case.

    Raises:
        ImportError: one of them cannot be imported.
        StageError: the name means another file, or one of the packages is not of the project.
    """
    parts = name.split(".")
    for depth in range(1, len(parts)):
        package = ".".join(parts[:depth])
        spec = _find(package)
        # Without an origin it is a namespace: directories, and no code.
        if spec is None or (spec.origin is not None and not in_project(Path(spec.origin), root)):
            raise untrusted(package, f"the package `{package}` of the entry point `{entrypoint}`")
        importlib.import_module(package)
    spec = _find(name)
    if spec is None or spec.origin is None or Path(spec.origin).resolve() != file.resolve():
        raise untrusted(name, f"the module `{name}` of the entry point `{entrypoint}`")
    return importlib.import_module(name)


def _find(name: str) -> ModuleSpec | None:
    """What an import of a name would take; the packages that it is in are imported already."""
    try:
        return importlib.util.find_spec(name)
    except ValueError:
        # A module that was made by hand.
        return None


def _owner(value: Any) -> str:
    """The name of the module that defines a function, or the class of what can be called; empty where nobody says."""
    while isinstance(value, functools.partial):
        value = value.func
    return str(getattr(value, "__module__", None) or "")


def _is_of_project(module: ModuleType | None, root: Path) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and in_project(Path(file), root)


class _FromSource(SourceFileLoader):
    """Compiles a module from its source, whatever bytecode lies beside it."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


class _ProjectFinder(MetaPathFinder):
    """Finds modules of projects, and lets them be imported from source alone."""

    def __init__(self) -> None:
        self.roots: list[Path] = []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        # Those come first in Python's own order.
        if BuiltinImporter.find_spec(fullname) is not None or FrozenImporter.find_spec(fullname) is not None:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None or not spec.has_location:
            return None
        origin = spec.origin
        if not any(in_project(Path(origin), root) for root in self.roots if origin.startswith(f"{root}/")):
            return None
        if not isinstance(spec.loader, SourceFileLoader):
            raise ImportError(
                f"`{origin}` is no Python source, and modules of a project are imported from source alone",
                name=fullname,
            )
        return importlib.util.spec_from_file_location(
            fullname,
            origin,
            loader=_FromSource(fullname, origin),
            submodule_search_locations=spec.submodule_search_locations,
        )


_FINDER = _ProjectFinder()


def _import_from_source(root: Path) -> None:
    """Compile modules below a root from their source, from now on."""
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    if root not in _FINDER.roots:
        _FINDER.roots.append(root)
