"""Record what a user's function reads: files, listings of directories, variables of the environment.

Its own code and the files that the spec names are in cache keys anyway. Anything else that it reads is seen by Python's
audit events while it runs, kept beside the result, and compared before that result is used again.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import Field

from ortc.common.digests import sha256_file
from ortc.common.values import Frozen, digest
from ortc.execution.action_cache import Entry, Store

SEEN = frozenset(
    {
        *("torch", "numpy", "safetensors", "transformers", "sklearn", "scipy", "PIL", "pandas", "regex", "yaml"),
        *("torchvision", "torchaudio", "torchgen", "functorch", "sympy", "pydantic_core", "charset_normalizer"),
    }
)
"""Packages whose compiled modules open files through Python, or whose own way of opening them is recorded."""
_ORTC = Path(__file__).parents[1]
"""The directory of this package, whose reading is no user's."""
_IGNORED = ("PYTHON", "PYTEST_", "LC_")
_OF_ORTC = frozenset(
    {"ORTC_CACHE_DIR", "ORTC_CACHE_URL", "ORTC_JOBS_GATE", "ORTC_TRUST_ENTRYPOINT", "ORTC_MEASURE_LOCK_HELD"}
)
"""Variables that say how ortc works; whoever copies the environment reads them as well."""
_OF_THE_SHELL = frozenset({"_", "PWD", "OLDPWD", "SHLVL", "TERM", "COLUMNS", "LINES", "LANG"})
_LIBRARIES = ("stdlib", "platstdlib", "purelib", "platlib")
_IMPORTING = ("<frozen importlib", f"{Path(importlib.__file__).parent}{os.sep}")
"""Code that looks for modules and for versions of packages: it lists all directories that modules come from."""
_SCRATCH = re.compile(rf"{re.escape(os.path.realpath(tempfile.gettempdir()))}/ortc-[a-z]+-[a-z0-9_]{{8}}/")
"""Directories that `tempfile` makes for processes of ortc."""
_OWN_NAMES = frozenset({"__pycache__", "ortc.lock"})
"""What Python and ortc write beside a user's files."""


class Opened(Frozen):
    """What was read, each with a digest of its content; None where there was nothing of the name.

    Files and directories have absolute paths, or the portable names that `portable` gives them. `blind` names compiled
    packages that may have read more than Python sees.
    """

    files: dict[str, str | None] = Field(default_factory=dict)
    directories: dict[str, str | None] = Field(default_factory=dict)
    variables: dict[str, str | None] = Field(default_factory=dict)
    blind: tuple[str, ...] = ()

    def now(self, root: Path) -> Opened:
        """The same names with what they hold now, in the project at `root`."""
        return Opened(
            files={name: _file(located(name, root)) for name in self.files},
            directories={name: _listing(located(name, root)) for name in self.directories},
            variables={name: _variable(name) for name in self.variables},
            blind=self.blind,
        )

    def portable(self, root: Path) -> Opened:
        """The same by names that hold on other machines, too: of the project's files and of installed packages."""
        return Opened(
            files={portable_name(Path(path), root): sha256 for path, sha256 in self.files.items()},
            directories={portable_name(Path(path), root): listing for path, listing in self.directories.items()},
            variables=self.variables,
            blind=self.blind,
        )

    def data(self) -> dict[str, str]:
        """The files that are no code, with their digests."""
        return {name: sha256 for name, sha256 in self.files.items() if sha256 is not None and not name.endswith(".py")}


class Recorder:
    """Records what this process reads inside of a `with` block.

    Args:
        without: directories whose files are known otherwise.
    """

    def __init__(self, *without: Path) -> None:
        own = (_ORTC, *(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")))
        self._own = tuple(f"{os.path.realpath(place)}{os.sep}" for place in own)
        self._without = tuple(
            f"{place}{os.sep}" for given in without for place in {_absolute(given), os.path.realpath(given)}
        )
        packages = [os.path.realpath(sysconfig.get_path(name)) for name in ("purelib", "platlib")]
        self._packages = tuple(f"{place}{os.sep}" for place in packages)
        self._files: set[str] = set()
        self._written: set[str] = set()
        self._directories: set[str] = set()
        self._variables: set[str] = set()
        self._before: frozenset[str] = frozenset()
        self._restore: list[Callable[[], None]] = []

    def __enter__(self) -> Self:
        self._before = frozenset(sys.modules)
        _watch()
        self._restore.extend(_wrap_native())
        _RECORDERS.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _RECORDERS.remove(self)
        while self._restore:
            self._restore.pop()()

    def file(self, path: object, *, written: bool = False) -> None:
        """A file was opened."""
        if isinstance(path, str | bytes | os.PathLike):
            (self._written if written else self._files).add(_absolute(path))

    def directory(self, path: object) -> None:
        """A directory was listed."""
        if path is None or isinstance(path, str | bytes | os.PathLike):
            self._directories.add(_absolute("." if path is None else path))

    def variable(self, name: str) -> None:
        """A variable was read."""
        if not name.startswith(_IGNORED) and name not in _OF_THE_SHELL | _OF_ORTC:
            self._variables.add(name)

    def opened(self) -> Opened:
        """What was read, with what it holds now."""
        files = {source for path in self._files - self._written if (source := self._relevant(path)) is not None}
        directories = {path for path in self._directories if self._relevant(path) is not None}
        new = [name for name in sys.modules if name not in self._before and _is_compiled(name)]
        return Opened(
            files=dict.fromkeys(sorted(files)),
            directories=dict.fromkeys(sorted(directories)),
            variables=dict.fromkeys(sorted(self._variables)),
            blind=tuple(sorted({name.partition(".")[0] for name in new} - SEEN - sys.stdlib_module_names)),
        ).now(Path("/"))

    def _relevant(self, path: str) -> str | None:
        """The path to remember: the source of compiled Python code, nothing of what is known otherwise."""
        if path.endswith(".pyc"):
            try:
                path = importlib.util.source_from_cache(path)
            except ValueError:
                return None
        real, within = os.path.realpath(path), f"{path}{os.sep}"
        # A path among the model's files may be a link that ortc set to a file elsewhere, whose digest is known.
        if within.startswith(self._without) or f"{real}{os.sep}".startswith(self._without):
            return None
        is_device = real.startswith("/dev/") and not real.startswith("/dev/shm/")  # noqa: S108  # weights lie there, too
        if is_device or real.startswith(("/proc/", "/sys/", "/etc/")) or _SCRATCH.match(real):
            return None
        if real.startswith(self._packages):
            return path if self._counts(real) else None
        return None if real.startswith(self._own) else path

    def _counts(self, path: str) -> bool:
        """Whether a file of an installed package is recorded: of the code of known ones, the file with the version."""
        inside = next(path.removeprefix(place) for place in self._packages if path.startswith(place))
        package, _, rest = inside.partition(os.sep)
        if package.endswith(".dist-info"):
            return False
        return package not in SEEN or rest == "__init__.py" or not rest.endswith((".py", ".so"))


_RECORDERS: list[Recorder] = []
_WATCHING: list[bool] = []
_NATIVE = (("safetensors", "safe_open"), ("safetensors.torch", "safe_open"), ("torch.jit", "load"))
"""Functions of compiled code that open files by themselves."""
_TELLING: dict[int, tuple[Any, Callable[..., Any]]] = {}
"""Each such function, and the one that tells of its files, by the identity of either."""


def _wrap_native() -> Iterator[Callable[[], None]]:
    """Tell of files that compiled code opens by itself; gives what undoes it.

    A module that imports the name meanwhile keeps what it got: the same in every process, and without a recorder.
    """
    for module, name in _NATIVE:
        if module != "safetensors" and module not in sys.modules:
            continue
        owner = importlib.import_module(module)
        original = getattr(owner, name)
        if id(original) not in _TELLING:
            telling = _telling(original)
            _TELLING[id(original)] = _TELLING[id(telling)] = (original, telling)
        original, telling = _TELLING[id(original)]
        if getattr(owner, name) is original:
            setattr(owner, name, telling)
            yield partial(setattr, owner, name, original)


def _telling(original: Callable[..., Any]) -> Callable[..., Any]:
    def tell(path: Any, *arguments: Any, _original: Callable[..., Any] = original, **options: Any) -> Any:
        for recorder in _RECORDERS:
            recorder.file(path)
        return _original(path, *arguments, **options)

    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(tell, name, getattr(original, name))
    return tell


def _watch() -> None:
    """Hear of files and variables; once, since a hook of a process cannot be taken back."""
    if not _WATCHING:
        _WATCHING.append(True)
        sys.addaudithook(_hear)
        os.environ.__class__ = _Environment


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if not _RECORDERS:
        return
    if event == "open":
        path, mode, flags = arguments
        written = any(sign in mode for sign in "wax") if isinstance(mode, str) else bool((flags or 0) & os.O_WRONLY)
        for recorder in _RECORDERS:
            recorder.file(path, written=written)
    elif event == "sqlite3.connect":
        for recorder in _RECORDERS:
            recorder.file(arguments[0])
    elif event in ("os.listdir", "os.scandir") and not sys._getframe(1).f_code.co_filename.startswith(_IMPORTING):
        for recorder in _RECORDERS:
            recorder.directory(arguments[0])


class _Environment(os._Environ):  # type: ignore[type-arg]
    """The environment of this process, which tells what code reads that is not of an installed library."""

    def __getitem__(self, name: Any) -> Any:
        if _RECORDERS:
            frame = sys._getframe(1)
            while frame is not None and frame.f_code.co_filename.startswith(_PASSING):
                frame = frame.f_back  # type: ignore[assignment]
            if frame is not None and not frame.f_code.co_filename.startswith(_STANDARD):
                for recorder in _RECORDERS:
                    recorder.variable(name if isinstance(name, str) else os.fsdecode(name))
        return super().__getitem__(name)


_PASSING = (os.__file__, "<frozen os>", "<frozen _collections_abc>", sys.modules["_collections_abc"].__file__ or "<")
_STANDARD = (f"{_ORTC}{os.sep}", "<frozen ", *(sysconfig.get_path(name) for name in _LIBRARIES))


def _absolute(path: str | bytes | os.PathLike[Any]) -> str:
    # Not resolved: a link that is set to another file has changed.
    return os.path.abspath(os.fsdecode(path))  # noqa: PTH100


def _is_compiled(name: str) -> bool:
    file = getattr(sys.modules.get(name), "__file__", None)
    return isinstance(file, str) and file.endswith((".so", ".pyd")) and "lib-dynload" not in file


def _file(path: Path) -> str | None:
    try:
        return sha256_file(path)
    except OSError:
        return None


def _listing(path: Path) -> str | None:
    try:
        return digest(sorted({entry.name for entry in path.iterdir()} - _OWN_NAMES))
    except OSError:
        return None


def _variable(name: str) -> str | None:
    # A digest, for what is in a variable may be a secret.
    value = os.environ.get(name)
    return None if value is None else hashlib.sha256(value.encode()).hexdigest()


def portable_name(path: Path, root: Path) -> str:
    """A path below the project, or below a directory that modules are imported from; as it is for any other place."""
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    places = [Path(place) for place in sys.path if place and path.is_relative_to(place)]
    longest = max(places, key=lambda place: len(place.parts), default=None)
    return f"{INSTALLED}{path.relative_to(longest).as_posix()}" if longest is not None else str(path)


INSTALLED = "installed:"
"""How the portable name of a file begins that lies where modules are imported from."""


def located(name: str, root: Path) -> Path:
    """The file or directory of a portable name on this machine."""
    if not name.startswith(INSTALLED):
        return root / name
    places = [Path(place) / name.removeprefix(INSTALLED) for place in sys.path if place]
    return next((place for place in places if place.exists()), places[0])


def latest(store: Store, stage: str, inputs: dict[str, Any], root: Path) -> tuple[dict[str, Any], Entry | None]:
    """The inputs of an action whose function reads files, with the state of those files, and its entry if that holds.

    The action's result has `opened`: what the function read when it ran, by portable names, so that the record of
    another machine tells as much. As long as all of it is the same the entry stands. Otherwise the digest of what those
    files hold now becomes an input, and the action has other inputs.

    Args:
        store: where the entry may be, or in whose remote cache.
        stage: of the action.
        inputs: of the action, but for the files.
        root: the project's.
    """
    while (entry := store.foresee(stage, inputs)) is not None:
        before = Opened.model_validate(entry.result.get("opened", {}))
        if (now := before.now(root)) == before:
            return inputs, entry
        state = digest(now.model_dump(mode="json"))
        if inputs.get("opened") == state:
            # They changed while the function ran.
            return {**inputs, "opened": digest([state])}, None
        inputs = {**inputs, "opened": state}
    return inputs, None
