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

from ortc.common.digests import sha256_file
from ortc.common.resources import templates_dir
from ortc.common.values import digest

PACKAGE = "ortc"
RUNTIME = "runtime/"
"""How the names of scripts that bundles carry begin; they lie in `templates/runtime`."""
LOADER = f"{RUNTIME}loader.py"

_NEVER = re.compile(r"^([ \t]*)if TYPE_CHECKING:\n(?:\1[ \t]+.*\n|[ \t]*\n)+", re.MULTILINE)
_LOADED = re.compile(r"\bruntime_module\(\"([\w.]+)\"\)")
_IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+\S+[ \t]+import[ \t]+(?:\([^)]*\)|[^(\n]+)|import[ \t].+)", re.MULTILINE)

DRIVER = frozenset(
    f"{PACKAGE}.{name}"
    for name in (
        *(
            "build.context",
            "build.executor",
            "build.runner",
            "build.stage",
            "build.stages",
            "build.workspace",
            "build.reference_process",
            "build.ingredients",
            "execution.action_cache",
            "execution.action_record",
            "execution.record_store",
            "execution.blob_store",
            "execution.cache_users",
            "execution.remote_cache",
            "common.remote_files",
            "common.redaction",
            "build.progress",
            "build.pipeline",
            "execution.work_directory",
        ),
        *(
            "frontend.fetch",
            "execution.runtime_environment",
            "common.disk",
            "common.atomic_files",
            "build.lock",
            "build.dry_run",
            "execution.code_closure",
            "common.digests",
            "inspection.entrypoint",
            "common.resources",
        ),
        *(
            "build.model",
            "build.references",
            "build.answers",
            "build.image_answers",
            "build.audio_answers",
            "build.environments",
            "build.variant",
            "build.variant_graph",
            "build.target",
            "build.search.target_search",
            "build.search.workbench",
            "build.search.outcome",
            "build.target_report",
            "build.target_result",
            "build.tried",
            "build.packing",
            "build.dependencies",
            "build.search.other_shapes",
            "build.search.session_tuning",
            "build.races",
            "build.search.ranking",
            "build.search.mixed_precision",
        ),
        *("build.search.choice", "evaluation.footprint", "build.observation", "execution.files_opened"),
        *(
            "build.distillation",
            "build.task_metric",
            "build.cpu_check",
            "build.instruction_sets",
            "build.sensitivity",
            "build.original",
        ),
    )
)
"""Modules that no closure enters. One that defines an action is among the action's roots, and counts by itself."""

DOCUMENTS = frozenset(
    f"{PACKAGE}.{name}"
    for name in (
        "bundle.supply_chain.sbom",
        "bundle.supply_chain.provenance",
        "bundle.render",
        "bundle.dockerfile",
        "bundle.publish",
    )
)
"""Modules that write files which no loader reads: they decide a bundle, but no answer and no time."""

SCRIPTS: Mapping[str, tuple[str, ...]] = {
    f"{PACKAGE}.execution.processes": (f"{PACKAGE}.execution.run_module",),
    f"{PACKAGE}.evaluation.latency": (LOADER,),
    f"{PACKAGE}.evaluation.machine": (f"{RUNTIME}machine.py",),
    f"{PACKAGE}.bundle.measurement": (f"{RUNTIME}measure.py",),
}
"""Modules and the programs that they run in another process, or load by path: no import statement names those."""

WORKERS: Mapping[str, str] = {
    "for_bundle": LOADER,
    "emulated": LOADER,
    "for_reference": f"{PACKAGE}.frontend.__main__",
    "for_making": f"{PACKAGE}.passes.__main__",
    "for_original": f"{PACKAGE}.frontend.ort_original",
    "for_optimizing": f"{PACKAGE}.passes.ort_optimize",
    "for_packing": f"{PACKAGE}.passes.ort_prepack",
    "for_observing": f"{PACKAGE}.passes.quantization.ort_observe",
    "for_images": f"{PACKAGE}.frontend.samples.image_worker",
    "for_runtime_facts": f"{PACKAGE}.passes.ort_facts",
}
"""Whoever calls one depends on its program.

Constructors of `ortc.execution.worker.Worker` and the programs that they start.
"""


class Code(NamedTuple):
    """The modules that hold an action's work, and modules that the work imports without using them here."""

    roots: tuple[str, ...]
    without: frozenset[str] = DOCUMENTS


@cache
def code_of(code: Code) -> str:
    """sha256 over the code that an action runs, by module.

    Raises:
        LookupError: a module or script that is named or imported does not exist.
    """
    return digest([[name, module_digest(name)] for name in sorted(code_modules(code))])


def whole_code() -> str:
    """sha256 over every module of the compiler, the same in a checkout and in an installed wheel."""
    return digest([[name, module_digest(name)] for name in modules()])


def code_modules(code: Code) -> frozenset[str]:
    """Names of all modules and scripts that an action runs."""
    return closure(*code.roots, without=code.without)


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
        return frozenset(script for node in imports for script in _beside(node, name)) | _loaded(source)
    found = {module for node in imports for module in _named(node, name)}
    if name != f"{PACKAGE}.execution.worker":
        found |= {program for constructor, program in WORKERS.items() if f".{constructor}(" in source}
    found |= _loaded(source)
    packages = {module.rpartition(".")[0] for module in (*found, name) if "/" not in module} - {PACKAGE, ""}
    return frozenset(found | packages | set(SCRIPTS.get(name, ())))


def module_digest(name: str) -> str:
    """sha256 of the source of a module or script.

    Raises:
        LookupError: there is none of that name.
    """
    return _file_digest(_file(name))


@cache
def modules() -> tuple[str, ...]:
    """Names of all modules of the compiler; not of the data that an installed one carries."""
    root = Path(__file__).parents[1]
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
        raise LookupError(f"`{name}` is no module of {PACKAGE} and no script of its templates; see code_closure.py")
    return file


@cache
def _module_file(name: str) -> Path | None:
    place = Path(__file__).parents[1].joinpath(*name.split(".")[1:])
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


def _loaded(source: str) -> frozenset[str]:
    """The scripts of a bundle that a source loads into its own process, see `ortc.common.bundle_runtime`."""
    return frozenset(f"{RUNTIME}{name.replace('.', '/')}.py" for name in _LOADED.findall(source))


def _beside(node: ast.Import | ast.ImportFrom, name: str) -> Iterator[str]:
    """The scripts of a bundle that an import statement of one of them, named so, runs."""
    if isinstance(node, ast.Import):
        imported = [alias.name for alias in node.names]
    else:
        package = name.removeprefix(RUNTIME).split("/")[: -node.level] if node.level else []
        base = ".".join([*package, *filter(None, [node.module])])
        imported = [base, *(f"{base}.{alias.name}".lstrip(".") for alias in node.names)]
    for module in imported:
        place = f"{RUNTIME}{module.replace('.', '/')}"
        yield from (script for script in (f"{place}.py", f"{place}/__init__.py") if _is_script(script))


@cache
def _is_script(name: str) -> bool:
    return (templates_dir() / name).is_file()
