"""A model with one outlier layer: a channel that is a thousand times as large as its neighbours, and what undoes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

WIDTH, LAYERS, OUTLIER = 64, 12, 6
GAIN = 1e3
SAMPLES = 96


def build(*, outlier: bool = True, width: int = WIDTH) -> onnx.ModelProto:
    """x -> LAYERS times (MatMul, Add, Relu) -> y, with a residual around each.

    With `outlier`, one column of a layer's weight is GAIN times as large, and the row of the next that reads it as many
    times smaller: the same function, but the next layer's input has no range for its other channels.
    """
    random = np.random.default_rng(3)
    nodes, tensors, current = [], {}, "x"
    for layer in range(LAYERS):
        tensors[f"layer{layer}.weight"] = random.standard_normal((width, width)) * np.sqrt(1 / width)
        tensors[f"layer{layer}.bias"] = random.standard_normal(width) * 0.1
    if outlier:
        tensors[f"layer{OUTLIER - 1}.weight"][:, 5] *= GAIN
        tensors[f"layer{OUTLIER - 1}.bias"][5] *= GAIN
        tensors[f"layer{OUTLIER}.weight"][5] /= GAIN
    for layer in range(LAYERS):
        product, value = f"product{layer}", "y" if layer == LAYERS - 1 else f"value{layer}"
        weight, bias = f"layer{layer}.weight", f"layer{layer}.bias"
        nodes.append(helper.make_node("MatMul", [current, weight], [product], name=f"layer{layer}"))
        nodes.append(helper.make_node("Add", [product, bias], [f"sum{layer}"], name=f"add{layer}"))
        nodes.append(helper.make_node("LeakyRelu", [f"sum{layer}"], [value], name=f"relu{layer}", alpha=0.3))
        current = value
    graph = helper.make_graph(
        nodes,
        "outlier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", width])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def samples(count: int = SAMPLES) -> dict[str, NDArray[Any]]:
    """Inputs as an .npz of samples holds them."""
    return {"x": np.random.default_rng(4).standard_normal((count, WIDTH)).astype(np.float32)}


def write(root: Path) -> dict[str, Any]:
    """Write the model and its samples into a project, and give the spec of an edge bundle as a document."""
    onnx.save(build(), root / "outlier.onnx")
    np.savez(root / "outlier.npz", **samples())  # type: ignore[arg-type]
    return {
        "apiVersion": "ortc/v1alpha1",
        "kind": "ModelDeployment",
        "name": "outlier",
        "version": "1.0.0",
        "model": {"source": "onnx", "path": "outlier.onnx"},
        "export": {"opset": 17, "dynamic_axes": {"batch": {"min": 1, "typical": 1, "max": 8}}},
        "accuracy": {"cosine": 0.998, "samples": "outlier.npz"},
        "targets": {"edge": {"latency_budget": {"p99": "60s"}, "unmeasured": "allow"}},
    }
