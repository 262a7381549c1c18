"""Weights that a graph computes from constants alone: computed once, so that quantization finds them.

PyTorch's exporters leave large weights as the model keeps them: the gates of an LSTM in another order, its directions
in tensors of their own, a weight as direction and length (weight normalization). Every session would compute them anew.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

import numpy as np

from ortc.common.arrays import Array

if TYPE_CHECKING:
    import onnx_ir as ir

_log = logging.getLogger(__name__)
_WEIGHTS = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul"), (1, 2)),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), (1, 2, 3)),
}
"""Places of weights and biases among the inputs of nodes that multiply."""
_ARRANGING = frozenset({"Concat", "Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
_ELEMENTWISE = frozenset({"Add", "Div", "Mul", "Pow", "Sqrt", "Sub"})
_REDUCING = frozenset({"ReduceL2", "ReduceMax", "ReduceMean", "ReduceSum", "ReduceSumSquare"})
_COMPUTED = _ARRANGING | _ELEMENTWISE | _REDUCING
"""Operators whose results are never much larger than what they read. DequantizeLinear and Cast are none: weights that
are stored small stay small."""
_MOST_NODES = 256
"""Of the computation of one weight."""


def fold_computed_weights(model: ir.Model) -> int:
    """Replace weights that are computed from constants by initializers, in place.

    A weight stays computed where that would make the model larger: what it is computed from has other readers.

    Returns:
        How many weights were replaced.
    """
    folded = 0
    for node in list(model.graph):
        if node.domain not in ("", "ai.onnx"):
            continue
        for place in _WEIGHTS.get(node.op_type, ()):
            value = node.inputs[place] if place < len(node.inputs) else None
            if value is not None and value.producer() is not None and _fold(model, value):
                folded += 1
    return folded


def _fold(model: ir.Model, value: ir.Value) -> bool:
    import onnx_ir as ir

    computation = _computation(model, value)
    if computation is None:
        return False
    constants = {
        source for node in computation for source in node.inputs if source is not None and _is_constant(source)
    }
    dropped = sum(_size(source) for source in constants if set(source.consumers()) <= computation.keys())
    array = _computed(model, computation, value, most=max(dropped, 1024))
    if array is None:
        return False
    tensor = ir.tensor(np.ascontiguousarray(array), name=value.name)
    shape, kind = ir.Shape(tensor.shape.numpy()), ir.TensorType(tensor.dtype)
    weight = ir.Value(name=value.name, shape=shape, type=kind, const_value=tensor)
    value.name = f"{value.name}_computed"
    value.replace_all_uses_with(weight)
    model.graph.register_initializer(weight)
    model.graph.remove(reversed(computation), safe=True)
    for source in constants:
        if not source.uses() and source.name is not None:
            model.graph.initializers.pop(source.name)
    return True


def _computation(model: ir.Model, value: ir.Value) -> dict[ir.Node, None] | None:
    """The nodes that compute a value from constants, in the order in which they can run, whatever the graph's is.

    None where others take part, or read their results, and where nodes wait for each other.
    """
    found: dict[ir.Node, None] = {}
    pending = [value]
    while pending:
        current = pending.pop()
        node = current.producer()
        if node is None or node in found:
            if node is None and not _is_constant(current):
                return None
            continue
        if not _can_be_computed(model, node, current) or len(found) == _MOST_NODES:
            return None
        found[node] = None
        pending += [source for source in node.inputs if source is not None]
    if any(set(node.outputs[0].consumers()) - found.keys() for node in found if node.outputs[0] is not value):
        return None
    sources = {node: [source.producer() for source in node.inputs if source is not None] for node in found}
    try:
        return dict.fromkeys(
            TopologicalSorter({node: filter(None, read) for node, read in sources.items()}).static_order()
        )
    except CycleError:
        return None


def _can_be_computed(model: ir.Model, node: ir.Node, value: ir.Value) -> bool:
    return (
        node.op_type in _COMPUTED
        and node.domain in ("", "ai.onnx")
        and node.graph is model.graph
        and len(node.outputs) == 1
        and not value.is_graph_output()
    )


def _is_constant(value: ir.Value) -> bool:
    """Whether a value is an initializer, of float32 or of whole numbers, that no caller and no reader sees."""
    import onnx_ir as ir

    known = value.const_value
    return (
        value.is_initializer()
        and not value.is_graph_input()
        and not value.is_graph_output()
        and known is not None
        and known.dtype in (ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.INT32)
    )


def _size(value: ir.Value) -> int:
    return 0 if value.const_value is None else value.const_value.nbytes


def _computed(model: ir.Model, computation: Iterable[ir.Node], value: ir.Value, most: int) -> Array | None:
    """The numbers of a value; None where it, or anything on the way to it, takes more than `most` bytes.

    None also where ONNX's reference and ONNX Runtime may differ: about empty tensors, which the reference also gives
    for slices that begin outside of a tensor, and about numbers that are not finite.
    """
    known: dict[str, Array] = {}
    for node in computation:
        inputs = [_numbers(source, known) for source in node.inputs if source is not None]
        if not all(_is_plain(array) for array in inputs) or _most_bytes(node, inputs) > most:
            return None
        answer = _answer(model, node, inputs)
        if answer is None or not _is_plain(answer):
            return None
        known[str(node.outputs[0].name)] = answer
    array = known[str(value.name)]
    return array if array.nbytes <= most else None


def _answer(model: ir.Model, node: ir.Node, inputs: list[Array]) -> Array | None:
    """What a node gives; None where ONNX's reference cannot tell, so that the check of the written file does."""
    import onnx_ir as ir
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    opsets = [helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    names = [str(source.name) for source in node.inputs if source is not None]
    feeds, name = dict(zip(names, inputs, strict=True)), str(node.outputs[0].name)
    function = helper.make_function("", "weight", list(feeds), [name], [ir.to_proto(node)], opsets)
    try:
        with np.errstate(all="ignore"):
            answers = ReferenceEvaluator(function).run([name], feeds, attributes={})
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # noqa: BLE001  # the reference raises errors of every kind; the node stays
        _log.debug("%s `%s` stays: %s", node.op_type, name, error)
        return None
    return np.asarray(next(iter(answers)))


def _is_plain(array: Array) -> bool:
    return array.size > 0 and bool(np.isfinite(array).all())


def _numbers(source: ir.Value, known: dict[str, Array]) -> Array:
    if source.const_value is not None and source.is_initializer():
        return np.asarray(source.const_value.numpy())
    return known[str(source.name)]


def _most_bytes(node: ir.Node, inputs: list[Array]) -> float:
    """Bytes that the result of a node takes at most; infinite for shapes that do not fit each other."""
    if node.op_type in _ELEMENTWISE:
        try:
            shape = np.broadcast_shapes(*(array.shape for array in inputs))
        except ValueError:
            return math.inf
        return math.prod(shape) * max(array.itemsize for array in inputs)
    return sum(array.nbytes for array in inputs) if node.op_type == "Concat" else inputs[0].nbytes
