"""Names of any kind in ONNX files: `init`, `check` and the import agree, and every refusal is one short line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.support.graphs import model, node

from ortc.common.errors import StageError
from ortc.frontend.import_onnx import import_onnx
from ortc.frontend.reference.outputs import flatten
from ortc.inspection.external_data import load_graph
from ortc.inspection.findings import InspectionError
from ortc.inspection.inspect_model import inspect
from ortc.inspection.onnx_interface import interface_of
from ortc.inspection.onnx_wire import read_interface
from ortc.inspection.tensor_names import check_names
from ortc.plan.checks import check_spec
from ortc.plan.plan import AxisPlan, ExportPlan
from ortc.spec.diagnostics.errors import SpecError

REFUSED = {
    "nul": "a\0b",
    "line break": "a\nb",
    "terminal": "a\x1b[2Jb",
    "workflow": "a\n::error::b",
    "tab": "a\tb",
    "delete": "\x7f",
    "right to left": "a\u202eb",
    "no width": "a\u200bb",
    "private": "a\ue000b",
    "empty": "",
    "100 kB": "L" * 100_000,
    "1,001 characters": "L" * 1001,
    "quotes that are doubled": '"' * 600,
}
TAKEN = {
    "path": "../../x",
    "absolute": "/etc/x",
    "array": "x.npy",
    "variable": "${env:HOME}",
    "yaml": "a: b # c",
    "template": "{{ x }}",
    "command": "::error::x",
    "quote": "a\"b'c`",
    "number": "1",
    "truth": "true",
    "letters": "é𐀀",
    "300 characters": "k" * 300,
}
PLACES = ("input", "output", "inner", "weight", "node", "axis")


def made(place: str, name: str) -> onnx.ModelProto:
    """A graph in which one thing is called so."""
    found = model(
        [node("Relu", "input", "inner"), node("MatMul", "inner weight", "output")],
        {"input": ["batch", 2]},
        {"output": ["batch", 2]},
        {"weight": np.eye(2, dtype=np.float32)},
    )
    graph = found.graph
    for entry in graph.node:
        for names in (entry.input, entry.output):
            for index, old in enumerate(names):
                names[index] = name if old == place else old
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = name if value.name == place else value.name
    if place == "node":
        graph.node[0].name = name
    if place == "axis":
        for value in (*graph.input, *graph.output):
            value.type.tensor_type.shape.dim[0].dim_param = name
    return found


def refusals(content: bytes, place: Path, axis: str = "batch") -> dict[str, str]:
    """What each command has against a file."""
    found = {}
    file = place / "file.onnx"
    file.write_bytes(content)
    (place / "pyproject.toml").touch()
    (place / "out").mkdir(exist_ok=True)
    axes = (AxisPlan(name="batch", min=1, typical=1, max=4),)
    plan = ExportPlan(opset=17, ir_version=8, exporter="auto", axes=axes, inputs=None, outputs=None)
    try:
        import_onnx(file, plan, place / "out")
    except StageError as error:
        found["import"] = f"{error.message}; {error.help}"
    try:
        inspect(str(file), place)
    except InspectionError as error:
        found["init"] = str(error)
    document = {
        "apiVersion": "ortc/v1alpha1",
        "kind": "ModelDeployment",
        "name": "small",
        "version": "1.0.0",
        "model": {"source": "onnx", "path": "file.onnx"},
        "export": {"dynamic_axes": {"batch": {"min": 1, "max": 4}}},
        "targets": {"cpu": {}},
    }
    (place / "spec.yaml").write_text(json.dumps(document), "utf-8")
    try:
        check_spec(place / "spec.yaml")
    except SpecError as error:
        found["check"] = "; ".join(f"[{entry.code}] {entry.message}; {entry.help}" for entry in error.diagnostics)
    return found


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("place", ["input", "output"])
def test_names_that_no_bundle_can_have_are_refused_alike(place: str, name: str, tmp_path: Path) -> None:
    found = refusals(made(place, REFUSED[name]).SerializeToString(), tmp_path)
    if name == "empty" and place == "output":
        # The import reads a graph without the output; the others read what is written.
        found.setdefault("import", "an empty name; rename it in the model")
    assert found.keys() >= {"import", "init", "check"}
    assert "[ORTC333]" in found["check"]
    for message in found.values():
        assert message.isprintable()
        assert len(message) < 600
        assert "rename it in the model" in message


@pytest.mark.parametrize("name", TAKEN)
@pytest.mark.parametrize("place", ["input", "output"])
def test_odd_names_that_a_bundle_can_have_are_taken(place: str, name: str, tmp_path: Path) -> None:
    assert refusals(made(place, TAKEN[name]).SerializeToString(), tmp_path) == {}


@pytest.mark.parametrize("name", {**REFUSED, **TAKEN})
@pytest.mark.parametrize("place", ["inner", "weight", "node"])
def test_names_inside_of_a_graph_may_be_any(place: str, name: str, tmp_path: Path) -> None:
    found = refusals(made(place, {**REFUSED, **TAKEN}[name]).SerializeToString(), tmp_path)
    assert found == {} or (name == "empty" and "is not valid" in found["import"])


@pytest.mark.parametrize("name", REFUSED)
def test_axes_of_any_name_are_named_anew_or_refused_in_short(name: str, tmp_path: Path) -> None:
    found = refusals(made("axis", REFUSED[name]).SerializeToString(), tmp_path)
    assert found.keys() == {"import"}
    assert found["import"].isprintable()
    assert len(found["import"]) < 600


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("octets", [b"\xed\xa0\x80Q", b"\xff\xfe\xfdQ"])
def test_names_that_are_not_utf_8_are_refused(place: str, octets: bytes, tmp_path: Path) -> None:
    content = made(place, "QQQQ").SerializeToString().replace(b"QQQQ", octets)
    with pytest.raises(StageError, match=r"holds a name that is not UTF-8: `\\udc") as refused:
        load_graph(_written(tmp_path, content))
    assert refused.value.help
    found = refusals(content, tmp_path)
    assert found.keys() >= {"import", "init"}
    if place in ("input", "output"):
        assert "[ORTC333]" in found["check"]


def _written(place: Path, content: bytes) -> Path:
    (place / "file.onnx").write_bytes(content)
    return place / "file.onnx"


@pytest.mark.parametrize("side", ["input", "output"])
def test_names_that_are_used_twice_are_refused(side: str, tmp_path: Path) -> None:
    found = made("node", "n")
    values = getattr(found.graph, side)
    values.append(values[0])
    told = refusals(found.SerializeToString(), tmp_path)
    assert told.keys() == {"import", "init", "check"}
    for message in told.values():
        assert f"2 {side}s that are called `{side}`" in message


@pytest.mark.parametrize("place", PLACES)
def test_a_file_that_is_not_parsed_says_the_same(place: str, tmp_path: Path) -> None:
    for name in ("x", "../x", "a\nb"):
        content = made(place, name).SerializeToString()
        assert read_interface(_written(tmp_path, content)) == interface_of(onnx.load_from_string(content))


def test_names_of_pytorch_models_follow_the_same_rules() -> None:
    for names in (["a\nb"], [""], ["x" * 1001], ["\udcff"], ["a", "a"]):
        with pytest.raises(StageError) as refused:
            check_names("output", names)
        assert refused.value.message.isprintable()
        assert refused.value.help
    check_names("input", ["../x", "x.npy", "é"])


def test_outputs_that_collide_are_named_in_one_line() -> None:
    import torch

    with pytest.raises(StageError) as refused:
        flatten({"a": {"b\n": torch.zeros(1)}, "a.b\n": torch.zeros(1)}, None)
    assert "`a.b\\n`" in refused.value.message
