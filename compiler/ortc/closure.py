"""Digest the compiler's own code that an action runs: the import closure of its work, for cache keys.

A key must change with every module that can change a result, and with no other. The closure follows imports, in
functions too, as `ast` finds them in the source; nothing is imported. The closure ends at the driver, which decides
when an action runs and where its result is kept. Modules have the names that Python gives them: a name without a module
raises an error, so that a module which moves cannot drop out of a key.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ortc.digests import sha256_file
from ortc.plan import digest
from ortc.resources import templates_dir

PACKAGE = "ortc"
RUNTIME = "runtime/"
"""How the names of scripts that bundles carry begin; they lie in `templates/runtime`."""
LOADER = f"{RUNTIME}loader.py"

_NEVER = re.compile(r"^([ \t]*)if TYPE_CHECKING:\n(?:\1[ \t]+.*\n|[ \t]*\n)+", re.MULTILINE)
_IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+\S+[ \t]+import[ \t]+(?:\([^)]*\)|[^(\n]+)|import[ \t].+)", re.MULTILINE)

DRIVER = frozenset(
    f"{PACKAGE}.{name}"
    for name in (
        *("context", "store", "records", "blobs", "remote", "places", "secrets", "progress", "pipeline", "workplace"),
        *("fetch", "environment", "disk", "lock", "predict", "closure", "digests", "entrypoint", "resources"),
        *("model_build", "variant_build", "target_build", "target_bundle", "finish", "timing", "search", "refine"),
        *("choice", "footprint", "observation", "opened"),
        *("teacher", "task_metric", "cpu_check", "instruction_sets", "sensitivity", "original"),
    )
)
"""Modules that no closure enters. One that defines an action is among the action's roots, and counts by itself."""

DOCUMENTS = frozenset(f"{PACKAGE}.{name}" for name in ("sbom", "provenance", "render", "image", "publish"))
"""Modules that write files which no loader reads: they decide a bundle, but no answer and no time."""

SCRIPTS: Mapping[str, tuple[str, ...]] = {
    f"{PACKAGE}.stages.optimize": (f"{PACKAGE}.stages.offline",),
    f"{PACKAGE}.stages.calibrate": (f"{PACKAGE}.stages.observe",),
    f"{PACKAGE}.stages.prepack": (f"{PACKAGE}.stages.packer",),
    f"{PACKAGE}.stages.quantize": (f"{PACKAGE}.stages.quantize",),
    f"{PACKAGE}.stages.static": (f"{PACKAGE}.stages.static",),
    f"{PACKAGE}.stages.sensitivity": (f"{PACKAGE}.stages.sensitivity",),
    f"{PACKAGE}.stages.measure": (LOADER,),
    f"{PACKAGE}.host": (LOADER,),
    f"{PACKAGE}.machine": (f"{RUNTIME}machine.py",),
    f"{PACKAGE}.measurement": (f"{RUNTIME}measure.py",),
}
"""Modules and the programs that they run in another process, or load by path: no import statement names those."""

WORKERS: Mapping[str, str] = {
    "for_bundle": LOADER,
    "emulated": LOADER,
    "for_reference": f"{PACKAGE}.reference.__main__",
    "for_making": f"{PACKAGE}.making",
    "for_original": f"{PACKAGE}.stages.original",
    "for_images": f"{PACKAGE}.imaging",
}
"""Constructors of `ortc.worker.Worker` and the programs that they start: whoever calls one depends on its program."""


class Action(NamedTuple):
    """The modules that hold an action's work, and modules that the work imports without using them here."""

    roots: tuple[str, ...]
    without: frozenset[str] = DOCUMENTS


def _action(*roots: str, without: frozenset[str] = DOCUMENTS) -> Action:
    return Action(tuple(root if root.startswith(RUNTIME) else f"{PACKAGE}.{root}" for root in roots), without)


_BUNDLE_RUNS = ("stages.verify", "candidate", LOADER)
_SAMPLES = ("sample_sources", "samples")
_ORIGINAL = ("stages.original", "stages.graph", "onnx_header", "versions", "host", "worker")
_SENSITIVITY = ("samples", "machine", "stages.sensitivity", "stages.upcast", "stages.rewrite")

ACTIONS: Mapping[str, Action] = {
    # The process that exports also answers; what only exports does not change the answers.
    "model": _action("reference.__main__", without=DOCUMENTS | {f"{PACKAGE}.stages.export"}),
    "export": _action("model_build", "reference.__main__", "stages.import_onnx"),
    "reference": _action("model_build", "arrays", *_SAMPLES),
    "reference of ONNX": _action("model_build", "original", *_SAMPLES, *_ORIGINAL),
    "shape matrix": _action("model_build", "samples", *_BUNDLE_RUNS),
    "teacher": _action("teacher", "worker", "host", "stages.graph"),
    "metric": _action("task_metric", "teacher", "reference.custom", "worker", "host", "stages.graph"),
    "variant": _action("variant_build", "making", "stages.optimize"),
    "calibrate": _action("variant_build", "stages.calibrate", "stages.rewrite", *_SAMPLES),
    "verify": _action("variant_build", "samples", *_BUNDLE_RUNS),
    "verify on CPU": _action("cpu_check", "samples", "stages.upcast", *_BUNDLE_RUNS),
    "verify on AVX2": _action("instruction_sets", "samples", "emulation", *_BUNDLE_RUNS),
    "measure": _action("timing", "samples", "stages.measure", *_BUNDLE_RUNS),
    "start": _action("timing", "samples", "stages.measure", *_BUNDLE_RUNS),
    "sensitivity": _action("sensitivity", "cpu_check", *_SENSITIVITY, *_BUNDLE_RUNS),
    "prepack": _action("finish", "stages.prepack"),
    "bundle": _action("target_bundle", "candidate", "trade", "intact", LOADER, without=frozenset()),
}
"""What each kind of action runs. A root of the driver stands for the action's own definition."""


@cache
def code_of(action: str) -> str:
    """sha256 over the code that an action of `ACTIONS` runs, by module.

    Raises:
        KeyError: there is no such action.
        LookupError: a module or script that is named or imported does not exist.
    """
    return digest([[name, module_digest(name)] for name in sorted(action_modules(action))])


def whole_code() -> str:
    """sha256 over every module of the compiler, the same in a checkout and in an installed wheel."""
    return digest([[name, module_digest(name)] for name in modules()])


def action_modules(action: str) -> frozenset[str]:
    """Names of all modules and scripts that an action runs."""
    return closure(*ACTIONS[action].roots, without=ACTIONS[action].without)


def closure(*roots: str, without: frozenset[str] = frozenset()) -> frozenset[str]:
    """The roots, and all modules and scripts that they import or start, directly or not, but the driver's."""
    found: set[str] = set()
    pending = list(roots)
    while pending:
        name = pending.pop()
        if name in found:
            continue
        found.add(name)
        if name not in DRIVER:
            pending += needs(name) - DRIVER - without
    return frozenset(found)


@cache
def needs(name: str) -> frozenset[str]:
    """The modules and scripts of ortc that one names: its imports, the scripts and workers that it starts.

    Raises:
        LookupError: one of them does not exist.
    """
    source = _file(name).read_text("utf-8")
    imports = import_statements(source)
    if name.startswith(RUNTIME):
        return frozenset(script for node in imports for script in _beside(node))
    found = {module for node in imports for module in _named(node, name)}
    if name != f"{PACKAGE}.worker":
        found |= {program for constructor, program in WORKERS.items() if f".{constructor}(" in source}
    packages = {module.rpartition(".")[0] for module in (*found, name) if "/" not in module} - {PACKAGE, ""}
    return frozenset(found | packages | set(SCRIPTS.get(name, ())))


def module_digest(name: str) -> str:
    """sha256 of the source of a module or script.

    Raises:
        LookupError: there is none of that name.
    """
    return _file_digest(_file(name))


def modules() -> tuple[str, ...]:
    """Names of all modules of the compiler; not of the data that an installed one carries."""
    root = Path(__file__).parent
    names = []
    for file in root.rglob("*.py"):
        parts = file.relative_to(root).with_suffix("").parts
        if parts[0] != "_data":
            names.append(".".join((PACKAGE, *(part for part in parts if part != "__init__"))))
    return tuple(sorted(names))


@cache
def _file_digest(file: Path) -> str:
    return sha256_file(file)


@cache
def _file(name: str) -> Path:
    file = templates_dir() / name if name.startswith(RUNTIME) else _module_file(name) or Path()
    if not file.is_file():
        raise LookupError(f"`{name}` is no module of {PACKAGE} and no script of its templates; see ortc/closure.py")
    return file


def _module_file(name: str) -> Path | None:
    place = Path(__file__).parent.joinpath(*name.split(".")[1:])
    return next((file for file in (place / "__init__.py", place.with_suffix(".py")) if file.is_file()), None)


def import_statements(source: str) -> list[ast.Import | ast.ImportFrom]:
    """All import statements of a module's source, in functions too, but those under `if TYPE_CHECKING:`.

    Only their lines are parsed: a whole module takes ten times as long, and every build asks for a hundred.
    """
    source = _NEVER.sub("", source)
    lines = [found[0].strip() for found in _IMPORT.finditer(source)]
    try:
        tree = ast.parse("\n".join(lines))
    except SyntaxError:
        # A line of a text begins as an import does, or a statement has a bracket in a comment.
        tree = ast.parse(source)
    return [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def _named(node: ast.Import | ast.ImportFrom, name: str) -> Iterator[str]:
    """The modules of ortc that an import statement of a module runs."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name.split(".")[0] == PACKAGE)
        return
    base = node.module or ""
    if node.level:
        parents = name.split(".") if _file(name).name == "__init__.py" else name.split(".")[:-1]
        base = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [node.module])])
    if base.split(".")[0] != PACKAGE:
        return
    # `from package import name`: the name may be a module.
    members = [f"{base}.{alias.name}" for alias in node.names]
    inside = [member for member in members if _module_file(member) is not None]
    yield from inside
    if len(inside) < len(members):
        yield base


def _beside(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """The scripts of a bundle that an import statement of one of them runs from beside it."""
    if isinstance(node, ast.Import):
        imported = [alias.name for alias in node.names]
    else:
        imported = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    for module in imported:
        script = f"{RUNTIME}{module.replace('.', '/')}.py"
        if _is_script(script):
            yield script


def _is_script(name: str) -> bool:
    return (templates_dir() / name).is_file()
