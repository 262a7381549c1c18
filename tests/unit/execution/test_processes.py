"""What workers import, and what libraries are allowed to run, by the text of the compiler."""

from __future__ import annotations

import ast
import os
import re
import sys
from functools import cache
from pathlib import Path

import pytest

from ortc.execution import code_closure
from ortc.execution.processes import module_elsewhere, own_environment, own_module, standard_module, standard_script
from ortc.execution.worker import Worker

OPTION = re.compile(r"-[mcPIEsSBuO]{1,4}|-X\w*")
COMPILER = Path(__file__).parents[3] / "compiler" / "ortc"
STARTERS = {"processes.py", "runtime_environment.py"}
"""Modules that may name this Python: one makes command lines, one makes environments of it."""


@cache
def sources() -> list[tuple[Path, list[ast.AST]]]:
    """Every module of the compiler, and what of its tree says how programs are started."""
    kept = ast.Attribute | ast.Call | ast.List | ast.Tuple
    return [
        (path, [node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, kept)])
        for path in sorted(COMPILER.rglob("*.py"))
    ]


def test_every_python_process_ignores_the_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", "/their/own", ""]))
    assert own_module("ortc.passes", "x") == [sys.executable, "-P", "-m", "ortc.passes", "x"]
    assert standard_module("venv", "x", python="/p")[:4] == ["/p", "-I", "-m", "venv"]
    assert module_elsewhere(Path("/p"), "ortc.x")[:3] == ["/p", "-I", "-B"]
    assert standard_script(Path("/f.py")) == [sys.executable, "-I", "-B", "/f.py"]
    environment = own_environment({"A": "b"})
    assert environment["PYTHONSAFEPATH"] == "1"
    assert environment["PYTHONPATH"].split(os.pathsep) == [str(COMPILER.parent), "/their/own"]


def test_no_other_module_makes_command_lines_of_this_python() -> None:
    named = {
        path.name
        for path, nodes in sources()
        for node in nodes
        if isinstance(node, ast.Attribute) and node.attr == "executable"
    }
    assert named <= STARTERS
    # Options of git have the form `-c NAME=VALUE`.
    assert {
        path.name for path, nodes in sources() if flags(nodes) - ({"-c"} if path.name == "git_process.py" else set())
    } == {"processes.py"}


def flags(nodes: list[ast.AST]) -> set[str]:
    """Options of Python among the words of command lines, bundled like `-Es` or not."""
    words = (
        item.value
        for node in nodes
        if isinstance(node, ast.List | ast.Tuple)
        for item in node.elts
        if isinstance(item, ast.Constant) and isinstance(item.value, str)
    )
    return {word for word in words if OPTION.fullmatch(word)}


@pytest.mark.parametrize("line", ['[str(python), "-E", "-s", file]', '("-IB", file)', 'run(["-c", code], ("-Xdev",))'])
def test_command_lines_of_python_are_found(line: str) -> None:
    assert flags(list(ast.walk(ast.parse(line))))


def test_workers_in_runtime_environments_import_what_is_installed_there() -> None:
    """The process that answers with an ONNX file imports nothing beside ortc; a bundle's loader imports its parts."""
    original, bundle = Worker.for_original("x", Path("/p")), Worker.for_bundle("x", Path("/p"), Path("/b"))
    for worker in (original, bundle):
        worker._scratch.cleanup()
    assert original.arguments == module_elsewhere(Path("/p"), "ortc.frontend.ort_original")
    assert bundle.arguments == ["/p", "-E", "-s", "-B", "/b/runtime/loader.py", "worker"]


@pytest.mark.parametrize("module", sorted(name for name in code_closure.WORKERS.values() if ".ort_" in name))
def test_modules_that_run_elsewhere_need_the_runtime_alone(module: str) -> None:
    """Neither ortc nor what it depends on is installed where these modules run."""
    parts = code_closure.closure(module)
    assert {"ortc.execution.worker_protocol", "ortc.common.errors"} <= parts
    imported = {
        name.split(".")[0]
        for part in parts
        for node in code_closure.import_statements(code_closure._file(part).read_text("utf-8"))
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)])
    }
    assert imported - sys.stdlib_module_names <= {"ortc", "numpy", "onnxruntime"}


def test_code_of_repositories_is_refused_in_words() -> None:
    """Left to its default, transformers asks a terminal whether it may run what a repository carries."""
    calls = [
        (path.name, node)
        for path, nodes in sources()
        for node in nodes
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("from_pretrained", "from_config")
        # PEFT runs no code of a repository; what it would import, test_adapters.py has refused.
        and ast.unparse(node.func.value) != "peft.PeftModel"
    ]
    assert len(calls) >= 4
    for name, call in calls:
        said = [word.value for word in call.keywords if word.arg == "trust_remote_code"]
        assert [isinstance(value, ast.Constant) and value.value is False for value in said] == [True], name
