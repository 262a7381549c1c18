"""The code part of every key: nothing that an action runs is missing, and nothing of the driver is in it."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from ortc.build import stages
from ortc.bundle.render import runtime_files
from ortc.execution import code_closure
from ortc.execution.code_closure import (
    DRIVER,
    LOADER,
    RUNTIME,
    SCRIPTS,
    WORKERS,
    code_modules,
    code_of,
    modules,
)

CODES = {stage.label: stage.code for stage in stages.STAGES if stage.code is not None}
Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(code_closure._file(module).read_bytes())


def imports(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements as a visit of the whole tree finds them."""
    pending = [node]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        is_never = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        pending.extend(node.orelse if is_never else ast.iter_child_nodes(node))


def test_import_statements_are_those_of_the_whole_module() -> None:
    for module in modules():
        found = code_closure.import_statements(code_closure._file(module).read_text("utf-8"))
        assert sorted(map(ast.dump, found)) == sorted(map(ast.dump, imports(tree(module)))), module


def test_import_statements_of_any_form() -> None:
    source = '''"""Text.

    from somewhere else this line begins as an import does
    """
if TYPE_CHECKING:
    from ortc import never

    import ortc.neither
def function():
    from ortc.a import (  # a bracket :)
        b,
        c as d,
    )
    import ortc.e as f
'''
    found = [ast.unparse(node) for node in code_closure.import_statements(source)]
    assert found == ["from ortc.a import b, c as d", "import ortc.e as f"]


def test_relative_imports_and_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "ortc"
    (package / "room" / "inner").mkdir(parents=True)
    for place in ("", "room", "room/inner"):
        (package / place / "__init__.py").write_text("")
    (package / "room" / "inner" / "a.py").write_text("from ..b import x\nfrom . import c\nfrom ortc.room import d\n")
    for name in ("b", "d", "inner/c"):
        (package / "room" / f"{name}.py").write_text("")
    monkeypatch.setattr(code_closure, "__file__", str(package / "execution" / "code_closure.py"))
    monkeypatch.setattr(code_closure, "_file", code_closure._file.__wrapped__)
    assert code_closure.needs.__wrapped__("ortc.room.inner.a") == {
        *("ortc.room", "ortc.room.inner", "ortc.room.b", "ortc.room.inner.c", "ortc.room.d")
    }


def test_every_name_of_an_action_exists() -> None:
    for declared in CODES.values():
        assert len(code_of(declared)) == 64
        assert {*declared.roots, *declared.without} <= {*modules(), LOADER}


def test_every_declared_program_exists() -> None:
    programs = {program for started in SCRIPTS.values() for program in started} | set(WORKERS.values())
    for name in {*SCRIPTS, *programs, *DRIVER}:
        assert code_closure._file(name).is_file()


def test_a_module_that_is_gone_is_an_error_and_no_empty_digest() -> None:
    with pytest.raises(LookupError, match=r"`ortc\.gone` is no module"):
        code_closure.closure("ortc.gone")


def test_a_key_changes_with_its_modules_and_with_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    carried = {path for takes in ("image", "audio") for path in runtime_files(takes=takes)}
    scripts = [f"{RUNTIME}{path}" for path in sorted(carried) if path.endswith(".py")]
    digests = {name: code_closure.module_digest(name) for name in [*modules(), *scripts]}
    monkeypatch.setattr(code_closure, "module_digest", digests.__getitem__)
    before = code_of.__wrapped__(CODES["verify"])
    for name in digests:
        with monkeypatch.context() as touched:
            touched.setitem(digests, name, "0" * 64)
            assert (code_of.__wrapped__(CODES["verify"]) != before) == (name in code_modules(CODES["verify"])), name


def test_the_driver_is_in_no_key() -> None:
    homes = {root for code in CODES.values() for root in code.roots} & DRIVER
    for name in (
        "build.context",
        "execution.action_cache",
        "build.progress",
        "build.pipeline",
        "build.lock",
        "cli.build",
    ):
        assert f"ortc.{name}" not in homes
        assert not [label for label, code in CODES.items() if f"ortc.{name}" in code_modules(code)]


@pytest.mark.parametrize(
    ("action", "module"),
    [
        ("variant", "ortc.passes.quantization.calibration"),
        ("variant", "ortc.passes.ort_optimize"),
        ("calibrate", "ortc.passes.quantization.ort_observe"),
        ("calibrate", "ortc.frontend.samples.image_worker"),
        ("verify", "ortc.frontend.samples.inputs"),
        ("shape matrix", "ortc.frontend.samples.inputs"),
        ("bundle", "ortc.bundle.dockerfile"),
        ("bundle", "ortc.passes.kernel_tables"),
        ("bundle", "ortc.build.target_result"),
        ("measure", "runtime/loading/engine_cache.py"),
        ("export", "ortc.frontend.reference.values"),
        ("prepack", "ortc.passes.ort_prepack"),
    ],
)
def test_what_lists_by_hand_forgot(action: str, module: str) -> None:
    assert module in code_modules(CODES[action])


# Programs.


def programs(module: str) -> Iterator[set[str]]:
    """Programs that a module names, as `-m ortc.x` or `x.py`: for each, the modules and scripts that it may be."""
    for node in ast.walk(tree(module)):
        starts = isinstance(node, ast.Call) and name_of(node) in ("own_module", "module_elsewhere")
        if isinstance(node, ast.Call) and starts and isinstance(named := node.args[-1], ast.Constant):
            name = str(named.value)
            yield {f"{name}.__main__" if f"{name}.__main__" in modules() else name}
        if isinstance(node, ast.List | ast.Tuple):
            texts = [item.value if isinstance(item, ast.Constant) else None for item in node.elts]
            for flag, name in itertools.pairwise(texts):
                if flag == "-m" and str(name).split(".")[0] == "ortc":
                    yield {f"{name}.__main__" if f"{name}.__main__" in modules() else str(name)}
        if isinstance(node, ast.Constant) and re.fullmatch(r"[\w./]+\.py", str(node.value)):
            script = f"{RUNTIME}{node.value.removeprefix(RUNTIME)}"
            beside = {name for name in modules() if name.endswith(f".{Path(node.value).stem}")}
            found = {script} if code_closure._is_script(script) else beside
            if found and node.value != "__init__.py":
                yield found


def test_every_program_that_is_started_is_declared() -> None:
    """Declare it in code_closure.py: no import names a program, so a key would forget it."""
    for module in set(modules()) - {"ortc.execution.code_closure"}:
        declared = set(WORKERS.values()) if module == "ortc.execution.worker" else set(SCRIPTS.get(module, ()))
        for program in programs(module):
            assert program & declared, (module, program)


def test_programs_are_found() -> None:
    assert list(programs("ortc.execution.processes")) == [{"ortc.execution.run_module"}]
    assert list(programs("ortc.evaluation.machine")) == [{f"{RUNTIME}machine.py"}]
    started = [
        {"ortc.passes.ort_optimize"},
        {"ortc.frontend.ort_original"},
        {"ortc.frontend.__main__"},
        {"ortc.passes.__main__"},
        {"ortc.frontend.samples.image_worker"},
        {LOADER},
    ]
    assert [program for program in started if program not in programs("ortc.execution.worker")] == []


# Actions: what the functions given to `context.run` use must be in their keys.


def actions() -> Iterator[tuple[str, str, ast.AST, ast.AST]]:
    """Module, stage, enclosing function and function of every action that a build runs."""
    bundle = next(node for node in tree("ortc.build.target_result").body if getattr(node, "name", "") == "Shipment")
    yield "ortc.build.target_result", "bundle", bundle, bundle
    for module in sorted(DRIVER - {"ortc.build.dry_run", "ortc.build.context"}):
        for outer in ast.walk(tree(module)):
            if not isinstance(outer, ast.FunctionDef):
                continue
            for call in calls_of_run(outer):
                work = call.args[1]
                assert isinstance(work, ast.Name)
                inner = (node for node in ast.walk(outer) if isinstance(node, ast.FunctionDef))
                action = next(node for node in inner if node.name == work.id)
                for label in stages_of(module, outer, call):
                    yield module, label, outer, action


def stages_of(module: str, outer: ast.AST, call: ast.Call) -> list[str]:
    """Labels of the stages that a call of `run` may be about: named by it, by the functions that give actions, or near.

    Two references at calibration samples are run by the function that runs those of the shape matrix.
    """
    functions = [node for node in ast.walk(tree(module)) if isinstance(node, ast.FunctionDef)]
    makers = [node for node in functions if node.name.endswith("_action")]
    for places in ([call.args[0]], makers, [outer]):
        names = {node.id for place in places for node in ast.walk(place) if isinstance(node, ast.Name)}
        if found := [getattr(stages, name).label for name in sorted(names) if is_stage(name)]:
            return found
    raise AssertionError(ast.unparse(call))


def is_stage(name: str) -> bool:
    return isinstance(getattr(stages, name, None), stages.Stage)


def name_of(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def calls_of_run(outer: ast.AST) -> list[ast.Call]:
    """Calls of `context.run(action, work)`."""
    found = [node for node in ast.walk(outer) if isinstance(node, ast.Call)]
    return [
        call
        for call in found
        if name_of(call) in ("run", "run_with_files") and len(call.args) == 2 and "context" in ast.unparse(call.func)
    ]


def used(module: str, outer: ast.AST, start: ast.AST) -> set[str]:
    """Modules of ortc that a function uses, directly or in functions and methods of modules that define actions."""
    found: set[str] = set()
    seen: set[int] = set()
    pending = [(module, start)]
    local = {node.name: node for node in ast.walk(outer) if isinstance(node, ast.FunctionDef)}
    while pending:
        where, node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        methods = {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
        bound = bindings(tree(where)) | bindings(node)
        for name in names:
            if name in bound:
                target, member = bound[name]
                if target not in DRIVER:
                    found.add(target)
                elif target in HOMES and member in definitions(target):
                    pending.append((target, definitions(target)[str(member)]))
            elif name in definitions(where):
                pending.append((where, definitions(where)[name]))
            elif where == module and name in local:
                pending.append((module, local[name]))
        for method in methods & METHODS.keys():
            home, definition = METHODS[method]
            pending.append((home, definition))
    return found


@cache
def definitions(module: str) -> dict[str, ast.AST]:
    """Functions and classes of a module that start no action of their own."""
    kinds = ast.FunctionDef | ast.ClassDef
    return {node.name: node for node in tree(module).body if isinstance(node, kinds) and not calls_of_run(node)}


@cache
def bindings(node: ast.AST) -> dict[str, tuple[str, str | None]]:
    """Names that import statements bind, to modules of ortc, and to members of them."""
    bound: dict[str, tuple[str, str | None]] = {}
    body = node.body if isinstance(node, ast.Module) else [node]
    for part in body:
        for statement in imports(part):
            if not isinstance(statement, ast.ImportFrom) or not str(statement.module).startswith("ortc"):
                continue
            for alias in statement.names:
                member = f"{statement.module}.{alias.name}"
                is_module = member in modules()
                bound[alias.asname or alias.name] = (member, None) if is_module else (str(statement.module), alias.name)
    return bound


def _methods() -> dict[str, tuple[str, ast.AST]]:
    """Methods of the driver's classes that actions call, which start no action of their own."""
    found: dict[str, tuple[str, ast.AST]] = {}
    for module in ("ortc.build.variant", "ortc.build.variant_graph", "ortc.build.sensitivity"):
        for owner in tree(module).body:
            if isinstance(owner, ast.ClassDef):
                for node in owner.body:
                    if isinstance(node, ast.FunctionDef) and not calls_of_run(node) and not node.name.startswith("__"):
                        found[node.name] = (module, node)
    return found


METHODS = _methods()
HOMES = {root for code in CODES.values() for root in code.roots} & DRIVER


def test_every_module_that_an_action_uses_is_in_its_key() -> None:
    kinds, forgotten = set(), []
    for module, kind, outer, action in actions():
        kinds.add(kind)
        assert module in CODES[kind].roots, f"{kind} is defined in {module}"
        known = code_modules(CODES[kind])
        if kind == "reference":
            known |= code_modules(CODES["reference of ONNX"])
        missing = used(module, outer, action) - known - CODES[kind].without - DRIVER
        if missing:
            forgotten.append((kind, module, sorted(missing)))
    assert not forgotten
    # What an entry point builds is part of other keys.
    beside = {label for label in CODES if label.startswith("entrypoint") or "calibration samples" in label}
    assert kinds == CODES.keys() - beside


def test_what_an_action_uses_is_found() -> None:
    found = {kind: used(module, outer, action) for module, kind, outer, action in actions()}
    assert {"ortc.bundle.assemble", "ortc.evaluation.accuracy"} <= found["verify"]
    assert {"ortc.bundle.assemble", "ortc.evaluation.latency", "ortc.common.arrays"} <= found["measure"]
    assert {"ortc.passes.quantization.calibration", "ortc.passes.rewrite"} <= found["calibrate"]
    assert {"ortc.passes.quantization.mixed_graphs", "ortc.passes.upcast", "ortc.execution.worker"} <= found[
        "sensitivity"
    ]


def test_the_whole_code_is_the_same_in_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel carries targets and templates inside the package, Python files among them."""
    before = modules()
    package = Path(code_closure.__file__).parents[1]
    installed = tmp_path / "site" / "ortc"
    for file in package.rglob("*.py"):
        place = installed / file.relative_to(package)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.read_bytes())
    (installed / "_data" / "templates" / "runtime").mkdir(parents=True)
    (installed / "_data" / "templates" / "runtime" / "loader.py").write_text("")
    monkeypatch.setattr(code_closure, "__file__", str(installed / "execution" / "code_closure.py"))
    assert modules() == before
