"""Fuse: attention, normalization with its residual, and activation with its bias, as one operator of ONNX Runtime each.

For CUDA, whose kernels for these operators read and write memory once where the plain ones do so several times. Other
execution providers (TensorRT, CoreML, QNN, OpenVINO) take no operators of `com.microsoft`, and fuse by themselves.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from ortc.common.errors import NotApplicable, StageError

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

FUSED = frozenset(
    {
        "Attention",
        "BiasGelu",
        "FastGelu",
        "FusedMatMul",
        "Gelu",
        "MultiHeadAttention",
        "QuickGelu",
        "SimplifiedLayerNormalization",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
    }
)
"""What a fused graph may contain: what has CUDA kernels in fp32, fp16 and bf16, and CPU kernels to check with."""


def fuse(model: ir.Model) -> int:
    """Replace what a transformer's layers consist of with fused operators; the patterns are onnxscript's.

    Normalizations by the root of the mean square alone are `SimplifiedLayerNormalization` to ONNX Runtime, in ONNX's
    domain, of which ONNX knows nothing. Masks stay what they are: an Attention adds the graph's own bias to the scores.

    Returns the number of fused operators.

    Raises:
        NotApplicable: a pattern gave an operator that CUDA does not run in every precision.
        StageError: inputs or outputs are not the same as before.
    """
    from onnxscript.rewriter.ort_fusions import optimize_for_ort

    before, already = _interface(model), _extensions(model)
    fused, _ = optimize_for_ort(model)
    if fused is not model or _interface(model) != before:
        raise StageError("onnxscript's fusions changed the graph's inputs or outputs")
    _join_constants(model)
    _give_types(model)
    added = _extensions(model) - already
    if strange := sorted(added.keys() - FUSED):
        raise NotApplicable(f"the fusion gives `{strange[0]}`, which CUDA does not run in every precision")
    return added.total()


def _give_types(model: ir.Model) -> None:
    """Say the type of what fused operators give where onnxscript leaves it open: that of what they read first."""
    import onnx_ir as ir

    for node in model.graph:
        if node.op_type in FUSED and node.inputs[0] is not None and node.outputs[0].dtype is None:
            dtype = node.inputs[0].dtype
            if dtype is not None:
                node.outputs[0].type = ir.TensorType(dtype)


def _extensions(model: ir.Model) -> Counter[str]:
    """Operators that are ONNX Runtime's own, to the number of nodes; it has some in ONNX's domain."""
    import onnx

    return Counter(
        node.op_type for node in model.graph if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type)
    )


def _interface(model: ir.Model) -> list[tuple[str | None, str, str]]:
    """Names, types and shapes of inputs and outputs."""
    return [
        (value.name, str(value.type), str(value.shape))
        for part in (model.graph.inputs, model.graph.outputs)
        for value in part
    ]


def _join_constants(model: ir.Model) -> None:
    """Compute Concat and Transpose of weights: onnxscript folds none that are as large as a real model's.

    What they give is made when it is written, so that no more than one of them is in memory.
    """
    import onnx_ir as ir

    for node in list(model.graph):
        if node.op_type not in ("Concat", "Transpose") or node.domain not in ("", "ai.onnx"):
            continue
        tensors = [_constant(value) for value in node.inputs]
        found = [tensor for tensor in tensors if tensor is not None]
        old = node.outputs[0]
        if len(found) != len(tensors) or old.is_graph_output():
            continue
        shape, compute = _folded(node, found)
        dtype, name = found[0].dtype, str(old.name)
        if dtype.bitwidth < 8:
            continue
        value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))
        value.const_value = ir.LazyTensor(
            partial(_tensor, compute, dtype, name), dtype=dtype, shape=ir.Shape(shape), name=name
        )
        ir.convenience.replace_all_uses_with(old, value)
        inputs = {entry for entry in node.inputs if entry is not None}
        model.graph.remove(node, safe=True)
        model.graph.register_initializer(value)
        for entry in inputs:
            if entry.is_initializer() and not entry.uses() and entry.name is not None:
                del model.graph.initializers[entry.name]


def _constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of an initializer that no caller can replace."""
    if value is None or not value.is_initializer() or value.is_graph_input() or value.is_graph_output():
        return None
    return value.const_value


def _folded(node: ir.Node, tensors: list[ir.TensorProtocol]) -> tuple[list[int], partial[np.ndarray]]:
    """Shape of what a Concat or Transpose of constants gives, and what computes it."""
    shapes = [list(tensor.shape.numpy()) for tensor in tensors]
    rank = len(shapes[0])
    if node.op_type == "Transpose":
        order = node.attributes["perm"].as_ints() if "perm" in node.attributes else tuple(reversed(range(rank)))
        return [shapes[0][axis] for axis in order], partial(_transpose, tensors[0], tuple(order))
    axis = node.attributes["axis"].as_int() % rank
    joined = list(shapes[0])
    joined[axis] = sum(shape[axis] for shape in shapes)
    return joined, partial(_concatenate, tensors, axis)


def _transpose(tensor: ir.TensorProtocol, order: tuple[int, ...]) -> np.ndarray:
    import numpy as np

    return np.ascontiguousarray(tensor.numpy().transpose(order))


def _concatenate(tensors: list[ir.TensorProtocol], axis: int) -> np.ndarray:
    import numpy as np

    return np.concatenate([tensor.numpy() for tensor in tensors], axis=axis)


def _tensor(compute: partial[np.ndarray], dtype: ir.DataType, name: str) -> ir.TensorProtocol:
    import onnx_ir as ir

    return ir.tensor(compute(), dtype=dtype, name=name)
