"""The size of the project's parts, and the order of its modules, by its own text."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from ortc.common.resources import templates_dir
from ortc.execution import code_closure

ROOT = Path(__file__).parents[3]
MODULE, CLASS, FUNCTION = 400, 200, 60
"""Most lines of each."""


def files() -> list[Path]:
    """Every Python file of the project."""
    places = ("compiler", "templates", "targets", "tests", "examples")
    return sorted(path for place in places for path in (ROOT / place).rglob("*.py") if "__pycache__" not in path.parts)


def too_long(path: str, source: str) -> Iterator[str]:
    """The parts of a module that have more lines than they may."""
    if (lines := source.count("\n")) > MODULE:
        yield f"{path} has {lines} lines"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > (CLASS if isinstance(node, ast.ClassDef) else FUNCTION):
                yield f"{node.name} in {path} has {lines} lines"


def test_no_part_is_too_long_to_read() -> None:
    assert len(files()) > 700
    found = [part for path in files() for part in too_long(str(path.relative_to(ROOT)), path.read_text("utf-8"))]
    assert found == []


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("x = 1\n" * 401, "m.py has 401 lines"),
        ("class A:\n" + "    x = 1\n" * 200, "A in m.py has 201 lines"),
        ("async def f():\n" + "    g()\n" * 60, "f in m.py has 61 lines"),
    ],
)
def test_long_parts_are_found(source: str, part: str) -> None:
    assert list(too_long("m.py", source)) == [part]
    assert list(too_long("m.py", source.removesuffix(f"{source.splitlines()[-1]}\n"))) == []


def imports() -> dict[str, set[str]]:
    """Modules of the compiler and of bundles, and what each imports, in functions too."""
    found = {}
    for name in code_closure.modules():
        nodes = code_closure.import_statements(code_closure._file(name).read_text("utf-8"))
        found[name] = {other for node in nodes for other in code_closure._named(node, name)} - {name}
    runtime = templates_dir() / "runtime"
    for path in runtime.rglob("*.py"):
        name = f"{code_closure.RUNTIME}{path.relative_to(runtime).as_posix()}"
        nodes = code_closure.import_statements(path.read_text("utf-8"))
        found[name] = {other for node in nodes for other in code_closure._beside(node, name)} - {name}
    return found


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle; none where there is no circle."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = imports()
    assert len(graph) > 400
    assert circle(graph) == []


def test_circles_are_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == {"a", "b", "c"}
