"""Models with one outlier layer, of two kinds that plain INT8 breaks in different ways, and one that float16 breaks.

`channel`: one column of a layer's weight is GAIN times as large, and the row of the next layer that reads it as many
times smaller. The same function, but the next layer's input has no range left for its other channels.

`layer`: all of a layer's weight is GAIN times as large, and all of the next one's as many times smaller. A scale of a
whole tensor costs integers nothing; what it does is to saturate the activation between the two, so that what rounding
moves across zero there comes out with the other sign.

`overflow`: the same without saturation, and by more: the sum between the two layers is no number of 16 bits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Kind = Literal["channel", "layer", "overflow"]
WIDTH, LAYERS = 64, 12
OUTLIER = {"channel": 6, "layer": 0, "overflow": 4}
"""The layer that cannot be rounded. What lies before a saturating one is as sensitive, so that comes first."""
COSINE = {"channel": 0.998, "layer": 0.99, "overflow": 0.9999}
"""The promise: kept with that layer in higher precision, and far off without."""
GAIN = 1e3
BEYOND = 1e6
"""Times a number around 1, what float16 cannot hold."""
SAMPLES = 96


def build(kind: Kind | None = "channel", *, width: int = WIDTH) -> onnx.ModelProto:
    """x -> LAYERS times (MatMul, Add, activation) -> y; without a kind, no layer is an outlier."""
    random = np.random.default_rng(3)
    nodes, tensors, current = [], {}, "x"
    saturates = kind == "layer"
    for layer in range(LAYERS):
        tensors[f"layer{layer}.weight"] = random.standard_normal((width, width)) * np.sqrt(1 / width)
        tensors[f"layer{layer}.bias"] = random.standard_normal(width) * 0.1
    if kind == "channel":
        outlier = OUTLIER[kind]
        tensors[f"layer{outlier - 1}.weight"][:, 5] *= GAIN
        tensors[f"layer{outlier - 1}.bias"][5] *= GAIN
        tensors[f"layer{outlier}.weight"][5] /= GAIN
    elif kind == "layer":
        outlier = OUTLIER[kind]
        tensors[f"layer{outlier}.weight"] *= GAIN
        tensors[f"layer{outlier}.bias"] *= GAIN
        tensors[f"layer{outlier + 1}.weight"] /= GAIN
        for layer in range(outlier + 1, LAYERS):
            # Beside what is a thousandth from there on, they would be all that is left.
            tensors[f"layer{layer}.bias"] /= GAIN
    elif kind == "overflow":
        outlier = OUTLIER[kind]
        tensors[f"layer{outlier}.weight"] *= BEYOND
        tensors[f"layer{outlier}.bias"] *= BEYOND
        tensors[f"layer{outlier + 1}.weight"] /= BEYOND
    for layer in range(LAYERS):
        product, value = f"product{layer}", "y" if layer == LAYERS - 1 else f"value{layer}"
        weight, bias = f"layer{layer}.weight", f"layer{layer}.bias"
        nodes.append(helper.make_node("MatMul", [current, weight], [product], name=f"layer{layer}"))
        nodes.append(helper.make_node("Add", [product, bias], [f"sum{layer}"], name=f"add{layer}"))
        if saturates:
            nodes.append(helper.make_node("Tanh", [f"sum{layer}"], [value], name=f"tanh{layer}"))
        else:
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


def write(root: Path, kind: Kind = "channel") -> dict[str, Any]:
    """Write the model and its samples into a project, and give the spec of a bundle as a document."""
    name = f"outlier-{kind}"
    onnx.save(build(kind), root / f"{name}.onnx")
    np.savez(root / "outlier.npz", **samples())  # type: ignore[arg-type]
    targets: dict[str, dict[str, Any]] = {
        "edge": {"latency_budget": {"p99": "60s"}, "download_budget": "42MB", "unmeasured": "allow"}
    }
    if kind == "overflow":
        targets = {"server-gpu": {"precision": "fp16", "unmeasured": "allow"}}
    return {
        "apiVersion": "ortc/v1alpha1",
        "kind": "ModelDeployment",
        "name": name,
        "version": "1.0.0",
        "model": {"source": "onnx", "path": f"{name}.onnx"},
        "export": {"opset": 17, "dynamic_axes": {"batch": {"min": 1, "typical": 1, "max": 8}}},
        "accuracy": {"cosine": COSINE[kind], "samples": "outlier.npz"},
        "targets": targets,
    }
