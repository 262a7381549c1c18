"""What the weights of a model need at least: known from real files, never more than what could ship."""

from __future__ import annotations

import json
import math
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from tests.support.programs import archive, document

from ortc.inspection.pt2_archive import ProgramError, read_program
from ortc.inspection.weights import least_bytes
from ortc.inspection.weights.graph import MAX_GRAPH, graph_weights, without_weights
from ortc.inspection.weights.model import Found, Weights
from ortc.inspection.weights.program import program_weights
from ortc.inspection.weights.safetensors import file_weights, index_weights
from ortc.plan.checks import check_spec
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.profile import Variant
from ortc.spec.quantization import DynamicQuantization, Quantization, WeightQuantization

FP32 = Variant(name="fp32", precision="fp32")
FP16 = Variant(name="fp16", precision="fp16")


def int8(quantization: Quantization) -> Variant:
    return Variant(name="int8", precision="int8", quantization=quantization)


INT8 = int8(DynamicQuantization(kind="dynamic", operators=("MatMul", "Gemm")))
EDGE = int8(DynamicQuantization(kind="dynamic", operators=("MatMul", "Gemm", "Gather")))


def test_weights_of_four_bits_are_half_of_eight() -> None:
    found = Found((Weights(elements=100, itemsize=4, readers=(frozenset({"MatMul"}),)),))
    eight = WeightQuantization(kind="weight-only", bits=8, operators=("MatMul",))
    for how, size in ((eight, 100), (eight.model_copy(update={"bits": 4}), 50)):
        assert least_bytes(found, int8(how)) == size


def needs(weights: tuple[Weights, ...] | None) -> list[int]:
    """Bytes in fp32, fp16, and INT8 without and with embeddings."""
    assert weights is not None
    return [least_bytes(Found(weights), variant) for variant in (FP32, FP16, INT8, EDGE)]


# --- safetensors ---


def safetensors(path: Path, tensors: dict[str, tuple[str, list[int]]]) -> Path:
    """A file with the header of these tensors, and no data: nobody may look at that."""
    header = json.dumps({name: {"dtype": dtype, "shape": shape} for name, (dtype, shape) in tensors.items()}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    return path


def test_safetensors(tmp_path: Path) -> None:
    path = safetensors(
        tmp_path / "m.safetensors",
        {"embed": ("F16", [100, 8]), "head": ("F32", [100, 8]), "w": ("BF16", [8, 8]), "positions": ("I64", [1, 512])},
    )
    # Without a configuration nobody knows what is an embedding, and all may be quantized.
    assert needs(file_weights(path, {})) == [6656, 3328, 1664, 1664]
    # With one, the table that is read row by row is known; another of its shape is a head.
    assert needs(file_weights(path, {"vocab_size": 100, "hidden_size": 8})) == [6656, 3328, 3200 + 864, 1664]


def sharded(directory: Path, **metadata: Any) -> Path:
    """A model in two files, by its index."""
    safetensors(directory / "a.safetensors", {"embed": ("F32", [100, 8])})
    safetensors(directory / "b.safetensors", {"head": ("F32", [100, 8]), "w": ("F32", [8, 8])})
    weights = {"embed": "a.safetensors", "head": "b.safetensors", "w": "b.safetensors"}
    path = directory / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": metadata, "weight_map": weights}), "utf-8")
    return path


def test_an_index_with_its_files(tmp_path: Path) -> None:
    path = sharded(tmp_path, total_size=1)
    config = {"vocab_size": 100, "hidden_size": 8}
    assert needs(index_weights(path, {})) == [6656, 3328, 1664, 1664]
    assert needs(index_weights(path, config)) == [6656, 3328, 3200 + 864, 1664]


@pytest.mark.parametrize(
    ("metadata", "config", "elements"),
    [
        ({"total_size": 8000}, {}, 1000),
        ({"total_size": 8000}, {"torch_dtype": "float32"}, 2000),
        ({"total_size": 8000}, {"dtype": "bfloat16"}, 4000),
        ({"total_size": 8000, "total_parameters": 3999}, {"dtype": "float32"}, 3999),
        ({"total_size": 8000}, {"dtype": ["float32"]}, 1000),
    ],
)
def test_an_index_without_its_files(
    metadata: dict[str, Any], config: dict[str, Any], elements: int, tmp_path: Path
) -> None:
    path = sharded(tmp_path, **metadata)
    (tmp_path / "b.safetensors").unlink()
    weights = index_weights(path, config)
    assert weights is not None
    assert sum(part.elements for part in weights) == elements


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"weight_map": {"a": "x"}}', '{"weight_map": {"a": "x"}, "metadata": {"total_size": "many"}}'],
)
def test_an_index_that_tells_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(text, "utf-8")
    assert index_weights(tmp_path / "index.json", {}) is None
    assert index_weights(tmp_path / "none.json", {}) is None


def test_an_index_opens_nothing_elsewhere(tmp_path: Path) -> None:
    safetensors(tmp_path / "other.safetensors", {"w": ("F32", [1000])})
    (tmp_path / "model").mkdir()
    path = tmp_path / "model" / "index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": {"w": "../other.safetensors"}}), "utf-8")
    assert index_weights(path, {}) is None


@given(content=st.binary(max_size=40) | st.binary(max_size=30).map(lambda data: struct.pack("<Q", len(data)) + data))
def test_any_bytes_are_safetensors_or_not(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(content)
    found = file_weights(path, {})
    assert found is None or needs(found) == [0, 0, 0, 0]


# --- ONNX ---


def tensor(name: str, *shape: int, dtype: int = TensorProto.FLOAT) -> TensorProto:
    return numpy_helper.from_array(np.zeros(shape, helper.tensor_dtype_to_np_dtype(dtype)), name)


def save(
    path: Path, nodes: list[Any], stored: list[TensorProto], outputs: tuple[str, ...] = ("y",), **more: Any
) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch"]),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        stored,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), str(path), **more)
    return path


def node(kind: str, inputs: str, output: str, **more: Any) -> Any:
    return helper.make_node(kind, inputs.split(), [output], **more)


NODES = [
    node("Gather", "table ids", "e"),
    node("Transpose", "w", "wt"),
    node("MatMul", "x wt", "m"),
    node("Add", "m e", "s"),
    node("Add", "s position", "y"),
    node("Gemm", "x dead", "other"),
]
STORED = [tensor("table", 100, 16), tensor("w", 16, 8), tensor("position", 1, 16), tensor("dead", 8, 50)]


def test_a_graph(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", NODES, STORED)
    # The embedding and the product; what is added can be folded, and what leads to no output is dropped.
    assert needs(graph_weights(path, None)) == [6912, 3456, 6528, 1728]
    both = save(tmp_path / "both.onnx", NODES, STORED, outputs=("y", "other"))
    assert needs(graph_weights(both, None))[0] == 6912 + 1600
    assert needs(graph_weights(both, ("other",)))[0] == 1600
    assert graph_weights(both, ("nothing",)) == ()


def test_weights_beside_the_graph_are_not_opened(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", NODES, STORED, save_as_external_data=True, location="m.data", size_threshold=0)
    (tmp_path / "m.data").unlink()
    assert needs(graph_weights(path, None)) == [6912, 3456, 6528, 1728]


@pytest.mark.parametrize(
    ("nodes", "stored", "expected"),
    [
        # Another reader needs the weight as it is.
        ([node("MatMul", "x w", "a"), node("Mul", "a w", "y")], [tensor("w", 8, 8)], [256, 128, 256, 256]),
        # A tied embedding: quantized for the product, kept for the rows, unless rows are quantized too.
        (
            [node("Gather", "w ids", "a"), node("Transpose", "w", "t"), node("MatMul", "a t", "y")],
            [tensor("w", 9, 8)],
            [288, 144, 288, 72],
        ),
        # Computed of constants: it may become a constant of any size.
        ([node("MatMul", "w w", "a"), node("Add", "a x", "y")], [tensor("w", 8, 8)], [0, 0, 0, 0]),
        ([node("Shape", "x", "a"), node("Gather", "w a", "y")], [tensor("w", 9, 8)], [0, 0, 0, 0]),
        # In half precision already, doubles, and what was quantized before.
        ([node("MatMul", "x w", "y")], [tensor("w", 8, 4, dtype=TensorProto.FLOAT16)], [64, 64, 32, 32]),
        ([node("MatMul", "x w", "y")], [tensor("w", 8, 4, dtype=TensorProto.DOUBLE)], [128, 64, 32, 32]),
        (
            [node("DequantizeLinear", "w scale", "f"), node("MatMul", "x f", "y")],
            [tensor("w", 8, 4, dtype=TensorProto.INT8), tensor("scale")],
            [32, 32, 32, 32],
        ),
        # An operator of another domain may do anything.
        ([node("MatMul", "x w", "y", domain="mine")], [tensor("w", 8, 4)], [0, 0, 0, 0]),
    ],
)
def test_what_is_certain(nodes: list[Any], stored: list[TensorProto], expected: list[int], tmp_path: Path) -> None:
    assert needs(graph_weights(save(tmp_path / "m.onnx", nodes, stored), None)) == expected


def test_inputs_that_are_weights_too(tmp_path: Path) -> None:
    """Before IR version 4 initializers were listed as inputs."""
    model = onnx.load(save(tmp_path / "m.onnx", NODES, STORED))
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [16, 8]))
    onnx.save(model, str(tmp_path / "old.onnx"))
    assert needs(graph_weights(tmp_path / "old.onnx", None)) == [6912, 3456, 6528, 1728]


def test_only_the_graph_is_read(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", NODES, [*STORED[1:], tensor("table", 50_000, 16)])
    content = without_weights(path)
    assert len(content) < 1000 < path.stat().st_size // 1000
    slim, whole = onnx.ModelProto.FromString(content), onnx.load(path)
    assert list(slim.graph.node) == list(whole.graph.node)
    assert list(slim.graph.input) == list(whole.graph.input)
    assert [tuple(entry.dims) for entry in slim.graph.initializer] == [
        tuple(entry.dims) for entry in whole.graph.initializer
    ]


def test_a_graph_that_is_too_large_to_look_at(tmp_path: Path) -> None:
    constant = helper.make_node("Constant", [], ["c"], value=tensor("c", MAX_GRAPH // 4))
    path = save(tmp_path / "m.onnx", [*NODES, constant], STORED)
    with pytest.raises(ValueError, match="without weights"):
        without_weights(path)
    assert graph_weights(path, None) is None


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x3a\xff\xff\xff\xff\x0f", b"\xff" * 30, b"\x3a\x00\x3a\x00"])
def test_no_graph(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    assert graph_weights(tmp_path / "m.onnx", None) is None
    assert graph_weights(tmp_path / "none.onnx", None) is None


@given(data=st.data())
def test_damaged_graphs_are_counted_or_not(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.getbasetemp()
    content = bytearray(save(directory / "damaged.onnx", NODES, STORED[1:2] + STORED[3:]).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (directory / "damaged.onnx").write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    found = graph_weights(directory / "damaged.onnx", None)
    assert found is None or all(part.elements >= 0 for part in found)


# --- programs ---


def test_a_program(tmp_path: Path) -> None:
    program = read_program(archive(tmp_path / "m.pt2"))
    # The table ships once, whoever reads it.
    assert needs(program_weights(program, None)) == [4 * 1936, 2 * 1936, 6400 + 336, 1936]
    assert needs(program_weights(program, ("a", "b")))[0] == 4 * 1936
    assert needs(program_weights(program, ("output_0",)))[0] == 4 * 1856
    assert program_weights(program, ("c",)) == ()
    named = read_program(archive(tmp_path / "named.pt2", document(keys=("hidden", "late"))))
    assert needs(program_weights(named, ("hidden",)))[0] == 4 * 1856


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"graph_module": []}, "graph_module"),
        ({"graph_module": {"graph": {"nodes": 3}}}, "nodes"),
        ({"range_constraints": {"s0": {"min_val": "x"}}}, "min_val"),
    ],
)
def test_programs_of_another_form(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=message):
        read_program(archive(tmp_path / "m.pt2", document() | changes))


def test_no_program(tmp_path: Path) -> None:
    (tmp_path / "text.pt2").write_text("no archive")
    with zipfile.ZipFile(tmp_path / "empty.pt2", "w"):
        pass
    with zipfile.ZipFile(tmp_path / "large.pt2", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("m/models/model.json", " " * (33 * 2**20))
    with zipfile.ZipFile(tmp_path / "deep.pt2", "w") as file:
        file.writestr("m/models/model.json", "[" * 100_000)
    for name, message in (
        ("none", "No such file"),
        ("text", "zip"),
        ("empty", "no models"),
        ("large", "larger"),
        ("deep", "recursion"),
    ):
        with pytest.raises(ProgramError, match=message):
            read_program(tmp_path / f"{name}.pt2")


# --- specs ---


def codes(directory: Path, model: dict[str, Any], **targets: dict[str, Any]) -> dict[str, str]:
    """Target to the code of what is found about its size."""
    (directory / "pyproject.toml").touch()
    export: dict[str, Any] = {}
    if model["source"] == "pytorch":
        export = {"inputs": {"x": {"dtype": "float32", "shape": [1, 8]}}}
    document = {
        "apiVersion": "ortc/v1alpha1",
        "kind": "ModelDeployment",
        "name": "a",
        "version": "1.0.0",
        "model": model,
        "export": export,
        "targets": targets,
    }
    (directory / "spec.yaml").write_text(json.dumps(document), "utf-8")
    try:
        found = check_spec(directory / "spec.yaml").warnings
    except SpecError as error:
        found = error.diagnostics
    return {name: item.code for item in found for name in targets if f"`{name}`" in item.message}


def test_budgets_of_every_source(tmp_path: Path) -> None:
    save(tmp_path / "m.onnx", NODES, STORED)
    archive(tmp_path / "m.pt2")
    safetensors(tmp_path / "w.safetensors", {"w": ("F32", [1000])})
    (tmp_path / "code.py").write_text("def build(): ...")
    (tmp_path / "hf").mkdir()
    sharded(tmp_path / "hf", total_size=6656)
    (tmp_path / "hf" / "config.json").write_text('{"vocab_size": 100, "hidden_size": 8}', "utf-8")
    impossible, unlikely = "ORTC230", "ORTC231"
    target = {"profile": "cpu", "precision": "fp32"}
    int8 = {"profile": "edge", "platforms": ["linux/amd64"]}
    for model, fp32, least in (
        ({"source": "onnx", "path": "m.onnx"}, 6912, 1728),
        ({"source": "exported_program", "path": "m.pt2"}, 7744, 1936),
    ):
        found = codes(
            tmp_path,
            model,
            a=target | {"size_budget": f"{fp32 - 1}B"},
            b=target | {"size_budget": f"{fp32}B"},
            c=int8 | {"size_budget": f"{least - 1}B"},
            d=int8 | {"size_budget": f"{least}B"},
            # The smallest of what `auto` may take.
            e=int8 | {"precision": "auto", "size_budget": f"{least}B"},
        )
        assert found == {"a": impossible, "c": impossible}
    for model, fp32 in (
        ({"source": "pytorch", "entrypoint": "code:build", "weights": "w.safetensors"}, 4000),
        ({"source": "huggingface", "path": "hf"}, 6656),
    ):
        found = codes(
            tmp_path,
            model,
            a=target | {"size_budget": f"{math.ceil(fp32 / 4) - 1}B"},
            b=target | {"size_budget": f"{math.ceil(fp32 / 4)}B"},
            c=target | {"size_budget": f"{fp32}B"},
        )
        assert found == {"a": impossible, "b": unlikely}


def test_embeddings_that_the_profile_does_not_quantize(tmp_path: Path) -> None:
    """The same budget holds where embeddings are quantized too."""
    save(tmp_path / "m.onnx", NODES, STORED)
    found = codes(
        tmp_path,
        {"source": "onnx", "path": "m.onnx"},
        a={"profile": "cpu", "precision": "int8", "size_budget": "6000B"},
        b={"profile": "edge", "precision": "int8", "size_budget": "6000B", "platforms": ["linux/amd64"]},
    )
    assert found == {"a": "ORTC230"}
