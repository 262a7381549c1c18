"""`ortc init` of ONNX files and exported programs: drafted as they say, or refused."""

import hashlib
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tests.support.drafts import junk, relaxed, written
from tests.support.programs import FLOAT, LONG, archive, document
from tests.support.programs import tensor as sizes_of

from ortc.__main__ import run
from ortc.inspection.draft_spec import render
from ortc.inspection.findings import InspectionError
from ortc.inspection.inspect_model import inspect
from ortc.plan.checks import check_spec
from ortc.spec.diagnostics.source import SourceFile
from ortc.spec.model_sources import ExportedProgramSource, OnnxSource
from ortc.spec.syntax.yaml_parser import parse

pytestmark = pytest.mark.usefixtures("project")


def graph(path: Path, inputs: list[Any], *, opset: int = 18, outputs: tuple[str, ...] = ("y",)) -> Path:
    nodes = [helper.make_node("Constant", [], [name], value_int=1) for name in outputs]
    values = [helper.make_tensor_value_info(name, TensorProto.INT64, []) for name in outputs]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, values), opset_imports=[helper.make_opsetid("", opset)]
    )
    onnx.save(model, str(path))
    return path


def test_onnx(tmp_path: Path) -> None:
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch_size", "seq_len"])
    mask = helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch_size", "seq_len"])
    image = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [None, 3, "s 43", None])
    table = helper.make_tensor("table", TensorProto.FLOAT, [7, 1], [0.0] * 7)
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Gather", ["table", "input_ids"], ["y"])],
            "g",
            [ids, mask, image, helper.make_tensor_value_info("table", TensorProto.FLOAT, [7, 1])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            initializer=[table],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    onnx.save(model, str(tmp_path / "model.onnx"))
    checked = written("model.onnx")
    assert checked.warnings == ()
    spec = checked.loaded.spec
    assert isinstance(spec.model, OnnxSource)
    assert spec.model.sha256 == hashlib.sha256((tmp_path / "model.onnx").read_bytes()).hexdigest()
    assert (spec.export.opset, spec.export.outputs) == (17, ("y",))
    inputs = spec.export.inputs
    assert inputs is not None
    assert {name: tensor.shape for name, tensor in inputs.items()} == {
        "input_ids": ("batch", "sequence"),
        "attention_mask": ("batch", "sequence"),
        "pixels": ("batch_2", 3, "s_43", "width"),
    }
    assert (inputs["input_ids"].range, inputs["attention_mask"].fill) == ((0, 6), 1)
    assert inputs["pixels"].dtype == "float32"
    assert set(spec.export.dynamic_axes) == {"batch", "sequence", "batch_2", "s_43", "width"}


@pytest.mark.parametrize(
    ("shape", "drafted"),
    [
        ((None, 3, None, None), ("batch", 3, "height", "width")),
        (("p2o.DynamicDimension.0", 1, 64, "p2o.DynamicDimension.1"), ("batch", 1, 64, "width")),
        ((-1, -1, "?", 3), ("batch", "height", "width", 3)),
        ((None, 7, None, None), ("batch", 7, "x_dim2", "x_dim3")),
        ((None, 3, None), ("batch", 3, "x_dim2")),
    ],
)
def test_the_sides_of_images_are_known(shape: tuple[Any, ...], drafted: tuple[Any, ...], tmp_path: Path) -> None:
    images = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "other")]
    graph(tmp_path / "m.onnx", images)
    spec = written("m.onnx").loaded.spec
    assert spec.export.inputs is not None
    assert spec.export.inputs["x"].shape == drafted
    for name in {"height", "width"}.intersection(drafted):
        assert (spec.export.dynamic_axes[name].min, spec.export.dynamic_axes[name].max) == (32, 512)
        # Two images need not be of one size.
        assert name not in spec.export.inputs["other"].shape
    assert spec.export.inputs["other"].shape[0] == "batch"


@pytest.mark.parametrize(
    ("operator", "target", "noted"), [("Conv", "edge", 1), ("Conv", "cpu", 0), ("Gemm", "edge", 0)]
)
def test_a_draft_says_where_int8_needs_samples(operator: str, target: str, noted: int, tmp_path: Path) -> None:
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3, None, None])
    nodes = [helper.make_node(kind, ["x", "w"], [kind]) for kind in ("Conv", operator)]
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1, 3, 1, 1], [1.0] * 3)
    result = helper.make_tensor_value_info("Conv", TensorProto.FLOAT, None)
    made = helper.make_graph(nodes[: 1 + (operator != "Conv")], "g", [image], [result], [weight])
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "m.onnx")
    written("m.onnx", "-t", target)
    text = Path("specs/out.yaml").read_text("utf-8")
    assert text.count("# INT8 of convolutions needs real inputs") == noted
    assert "`multiple_of: 32`" in text


@pytest.mark.parametrize(("opset", "shipped"), [(7, 9), (17, 17), (28, 26)])
def test_the_opset_is_one_that_the_runtime_loads(opset: int, shipped: int, tmp_path: Path) -> None:
    graph(tmp_path / "m.onnx", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])], opset=opset)
    assert written("m.onnx").loaded.spec.export.opset == shipped


@pytest.mark.parametrize(("opset", "shipped"), [(7, 13), (12, 13), (17, 17)])
def test_a_target_that_quantizes_gets_an_opset_that_can_be_quantized(opset: int, shipped: int, tmp_path: Path) -> None:
    graph(tmp_path / "m.onnx", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])], opset=opset)
    assert written("m.onnx", "-t", "cpu", "-t", "edge").loaded.spec.export.opset == shipped


def test_sums_of_other_dimensions_are_relations(tmp_path: Path) -> None:
    """Names that a file writes for sums say how sizes belong together; of others nothing is known."""
    shapes = {
        "ids": ["batch_size", "seq_len"],
        "mask": ["batch_size", "past + seq_len"],
        "cache": ["batch_size", "past"],
        "twice": ["2*past + 1"],
        "other": ["past + unknown", "past // 2"],
    }
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    graph(tmp_path / "model.onnx", inputs)
    export = written("model.onnx").loaded.spec.export
    axes = export.dynamic_axes
    assert {name: axis.equals for name, axis in axes.items() if axis.equals} == {
        "past_seq_len": "past + sequence",
        "_2_past_1": "2 * past + 1",
    }
    assert (axes["past_seq_len"].min, axes["past_seq_len"].max) == (2, axes["past"].max + axes["sequence"].max)
    assert export.inputs is not None
    assert export.inputs["mask"].shape == ("batch", "past_seq_len")
    assert len(set(export.inputs["other"].shape) | {"past"}) == 3


def test_string_inputs_have_examples(tmp_path: Path) -> None:
    inputs = [helper.make_tensor_value_info(name, TensorProto.STRING, shape) for name, shape in STRINGS.items()]
    known = helper.make_node("LabelEncoder", ["known"], ["z"], domain="ai.onnx.ml", keys_strings=["on", "yes"])
    model = onnx.load(graph(tmp_path / "model.onnx", inputs))
    model.graph.node.append(known)
    onnx.save(model, tmp_path / "model.onnx")
    found = written("model.onnx").loaded.spec.export.inputs
    assert found is not None
    assert {tensor.dtype for tensor in found.values()} == {"string"}
    assert {name: tensor.examples for name, tensor in found.items()} == {
        "known": ("on", "yes"),
        "other": ("a string",),
        "pairs": (("a string", "a string"),),
    }
    text = (tmp_path / "specs" / "out.yaml").read_text()
    assert "The graph knows no strings: replace `a string` by some that the model was trained on." in text


STRINGS = {"known": ["n"], "other": ["n", 1], "pairs": ["n", 2]}


def test_refuses_graphs_that_a_spec_cannot_describe(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_bytes(b"not a graph")
    graph(tmp_path / "complex.onnx", [helper.make_tensor_value_info("x", TensorProto.COMPLEX64, [1])])
    graph(tmp_path / "rank.onnx", [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)])
    for name in ("text", "complex", "rank"):
        with pytest.raises(InspectionError):
            inspect(f"{name}.onnx", tmp_path)


def symbol(name: str) -> str:
    return f"Symbol('{name}', positive=True, integer=True)"


def test_program(tmp_path: Path) -> None:
    batch, length = symbol("s7"), symbol("s27")
    inputs = {
        "ids": sizes_of(LONG, batch, length),
        "token_mask": sizes_of(LONG, batch, length),
        "pixels": sizes_of(FLOAT, batch, 3, symbol("s1"), f"Mul(Integer(14), {symbol('s3')})"),
        "x": sizes_of(FLOAT, symbol("s4"), f"Add(Integer(1), {symbol('s4')})", 8),
    }
    ranges = {"s7": (2, 32), "s27": (4, 200), "s1": (0, None), "s3": (2, 30), "s4": (1, 2**62)}
    archive(tmp_path / "My Encoder.pt2", document(inputs, ranges, keys=("hidden", "late")))
    assert run(["init", "My Encoder.pt2"]) == 0
    checked = check_spec("specs/my-encoder.yaml")
    assert checked.warnings == ()
    spec = checked.loaded.spec
    assert isinstance(spec.model, ExportedProgramSource)
    assert spec.model.sha256 == hashlib.sha256((tmp_path / "My Encoder.pt2").read_bytes()).hexdigest()
    assert (spec.export.opset, spec.export.outputs) == (20, ("hidden", "late"))
    found = spec.export.inputs
    assert found is not None
    assert {name: tensor.shape for name, tensor in found.items()} == {
        "ids": ("batch", "sequence"),
        "token_mask": ("batch", "sequence"),
        "pixels": ("batch", 3, "height", "width"),
        "x": ("batch_2", "x_dim1", 8),
    }
    assert [tensor.dtype for tensor in found.values()] == ["int64", "int64", "float32", "float32"]
    assert (found["ids"].range, found["token_mask"].fill) == ((0, 99), 1)
    axes = {
        name: (axis.min, axis.typical, axis.max, axis.multiple_of) for name, axis in spec.export.dynamic_axes.items()
    }
    assert axes == {
        # 2 is what torch writes where nobody said more.
        "batch": (1, 1, 32, 1),
        "sequence": (4, 128, 200, 1),
        "height": (1, 224, 512, 1),
        "width": (14, 224, 420, 14),
        "batch_2": (1, 16, 64, 1),
        "x_dim1": (1, 16, 64, 1),
    }
    assert "The file sets no end to height, batch_2, x_dim1" in Path("specs/my-encoder.yaml").read_text("utf-8")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (document(varying=("count",)), "`count` is no tensor and has no constant value"),
        (document({"ids": sizes_of(LONG, symbol("a"))}, {"a": (10**400, None)}), "begins beyond 2147483647"),
        (document({}), "takes no tensors"),
        (document({"ids": sizes_of(13, 1)}), "`ids` is no tensor of numbers or booleans"),
        (document({"ids": sizes_of(LONG, 0)}), "`ids` has the size 0"),
        (document({"ids": sizes_of(LONG, *map(symbol, "abcdefghi"))}), "9 dynamic dimensions; a spec has at most 8"),
        (document({"ids": sizes_of(LONG, "__import__('os')")}), "refused to read"),
        ({"graph_module": {}}, "not of a form that is known"),
    ],
)
def test_refuses_programs(model: dict[str, Any], message: str, tmp_path: Path) -> None:
    archive(tmp_path / "m.pt2", model)
    with pytest.raises(InspectionError, match=message):
        inspect("m.pt2", tmp_path)


def test_drafts_programs_that_take_keywords_and_constants(tmp_path: Path) -> None:
    given = {"ids": sizes_of(LONG, symbol("s7")), "scale": sizes_of(FLOAT, symbol("s7"))}
    ranges = {"s7": (1, 10**400)}
    archive(tmp_path / "m.pt2", document(given, ranges, keywords=("scale",), constants=("mode",)))
    assert run(["init", "m.pt2"]) == 0
    spec = check_spec("specs/m.yaml").loaded.spec
    assert spec.export.inputs is not None
    assert {name: tensor.shape for name, tensor in spec.export.inputs.items()} == {
        "ids": ("batch",),
        "scale": ("batch",),
    }
    assert "Other arguments keep the values of the export: mode." in Path("specs/m.yaml").read_text("utf-8")


def test_refuses_programs_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "m.pt2").write_text("no archive")
    with pytest.raises(InspectionError, match=r"cannot be read as a \.pt2 archive"):
        inspect("m.pt2", tmp_path)


words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
dimensions = st.lists(st.none() | st.integers(0, 2**40) | words, max_size=4)
tensors = st.lists(
    st.tuples(words, st.sampled_from(sorted(set(TensorProto.DataType.values()) - {0})), dimensions),
    max_size=4,
    unique_by=lambda tensor: tensor[0],
)


@relaxed
@given(inputs=tensors, opset=st.integers(1, 30), outputs=st.lists(words, max_size=3).map(tuple))
def test_every_spec_of_a_graph_passes(inputs: list[Any], opset: int, outputs: tuple[str, ...], tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, dtype, shape) for name, dtype, shape in inputs]
    graph(tmp_path / "graph.onnx", values, opset=opset, outputs=outputs)
    try:
        draft = inspect("graph.onnx", tmp_path, max_opset=26)
    except InspectionError:
        return
    (tmp_path / "spec.yaml").write_text(render(draft, ("cpu",), "spec.schema.json"), "utf-8")
    checked = check_spec(tmp_path / "spec.yaml")
    assert checked.warnings == ()
    assert len(checked.loaded.spec.export.inputs or ()) == len(inputs)


symbols = st.sampled_from(["s0", "s1", "s2"]).map(symbol)
sizes = st.lists(
    st.integers(-1, 9) | st.integers(2**31, 2**40) | symbols | symbols.map(lambda text: f"Mul(Integer(2), {text})"),
    max_size=4,
)
bounds = st.tuples(st.none() | st.integers(-1, 2**40), st.none() | st.integers(-1, 2**40))


@relaxed
@given(
    inputs=st.dictionaries(words, st.tuples(st.integers(0, 36), sizes), max_size=3),
    ranges=st.dictionaries(st.sampled_from(["s0", "s1"]), bounds),
    keys=st.lists(words, min_size=2, max_size=2) | st.just([]),
)
def test_every_spec_of_a_program_passes(
    inputs: dict[str, Any], ranges: dict[str, Any], keys: list[str], tmp_path: Path
) -> None:
    tensors = {name: sizes_of(dtype, *shape) for name, (dtype, shape) in inputs.items()}
    archive(tmp_path / "program.pt2", document(tensors, ranges, keys=keys))
    try:
        draft = inspect("program.pt2", tmp_path)
    except InspectionError:
        return
    (tmp_path / "spec.yaml").write_text(render(draft, ("cpu",), "spec.schema.json"), "utf-8")
    assert check_spec(tmp_path / "spec.yaml").warnings == ()


@relaxed
@given(data=st.data())
def test_programs_of_any_form_are_drafted_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    model = document({"ids": sizes_of(LONG, symbol("s0"), 3)}, {"s0": (1, 4)})
    node: Any = model
    while isinstance(node, (dict, list)) and node:
        keys = sorted(node) if isinstance(node, dict) else range(len(node))
        key = data.draw(st.sampled_from(list(keys)))
        if data.draw(st.integers(0, 3)) == 0 or not isinstance(node[key], (dict, list)):
            node[key] = data.draw(junk | st.just({}))
            break
        node = node[key]
    archive(tmp_path / "any.pt2", model)
    try:
        render(inspect("any.pt2", tmp_path), ("cpu",), "spec.schema.json")
    except InspectionError:
        return


@pytest.mark.parametrize("name", ["x" * 1001, "é" * 1024, "x" * 5000, '"' * 600])
def test_names_that_no_spec_can_hold_are_refused(tmp_path: Path, name: str) -> None:
    """YAML takes no key of more than 1,024 characters, so the draft would not parse."""
    document_ = document({name: sizes_of(LONG, symbol("s0"))}, {"s0": (1, 8)})
    archive(tmp_path / "m.pt2", document_)
    with pytest.raises(InspectionError, match="one printable line of at most 1000 characters"):
        inspect("m.pt2", tmp_path)


def test_long_names_that_a_spec_can_hold(tmp_path: Path) -> None:
    archive(tmp_path / "m.pt2", document({"x" * 900: sizes_of(LONG, symbol("s0"))}, {"s0": (1, 8)}))
    text = render(inspect("m.pt2", tmp_path), ("cpu",), "spec.schema.json")
    assert "x" * 900 in text
    parse(SourceFile("spec.yaml", text))
