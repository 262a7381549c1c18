"""Half precision: weights and compute in float16, while a graph goes on to take and give float32."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ortc.stages.fuse import FUSED
from ortc.stages.graph import MODEL_FILE, values, write
from ortc.stages.quantize import NotApplicable

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

COMPUTE = frozenset({"Attention", "Conv", "ConvTranspose", "FusedMatMul", "Gemm", "MatMul", "MultiHeadAttention"})
"""What half precision is for; the other operators follow so that nothing is converted between them."""

# fmt: off
HALF = COMPUTE | FUSED | {
        "Add", "AveragePool", "Clip", "Concat", "Div", "Dropout", "Erf", "Expand", "Flatten",
        "Gather", "GatherElements", "GatherND", "Gelu", "GlobalAveragePool", "HardSigmoid",
        "HardSwish", "Identity", "LayerNormalization", "LeakyRelu", "MaxPool", "Mul", "Neg", "Pad",
        "Relu", "Reshape", "Sigmoid", "Slice", "Softmax", "Split", "Squeeze", "Sub", "Tanh",
        "Transpose", "Unsqueeze", "Where",
}
# fmt: on
"""Operators that compute in float16. All others keep float32: sums, powers, exponentials and norms over many elements
leave float16's range of 65504 or its 11 bits, and nobody has looked at the rest. LayerNormalization and Softmax read
and write float16 and add up in float32, as CUDA's kernels do."""

LARGEST = 65504.0
FILL = LARGEST / 2
"""What stands for numbers beyond the range: masks are made with float32's lowest number, and a score added to
float16's lowest would be minus infinity, a row of which has no softmax."""


def half(model: ir.Model) -> int:
    """Compute in float16 where `HALF` says so, with conversions where it meets what stays in float32.

    Returns the number of operators of `COMPUTE` that were converted.

    Raises:
        NotApplicable: the graph has branches or bodies, or a value of unknown type.
    """
    import onnx_ir as ir
    from onnx_ir.passes.common import LiftConstantsToInitializersPass

    if any(True for _ in model.graph.subgraphs()) or model.functions:
        raise NotApplicable("branches and bodies of loops are not converted to half precision")
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    converter = _Converter(model)
    outputs = list(model.graph.outputs)
    count = 0
    for node in list(model.graph):
        is_half = _is_half(node)
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
                node.replace_input_with(index, converter.read(value, node, is_half))
        for value in node.outputs:
            if value.dtype is None and (value.uses() or value.is_graph_output()):
                raise NotApplicable(f"the type of `{value.name}` is not known")
            if is_half and value.dtype == ir.DataType.FLOAT and _is_main(node, value):
                value.type = ir.TensorType(ir.DataType.FLOAT16)
                converter.made.add(value)
        count += is_half and node.op_type in COMPUTE
    for index, value in enumerate(outputs):
        if value in converter.made:
            model.graph.outputs[index] = converter.restore(value)
    converter.drop_unused()
    return count


def upcast(source: Path, output: Path) -> None:
    """Write a graph that computes in float32 what another computes in float16, and rounds every result as that does.

    The CPU provider has few kernels in float16, and leaves out the rounding between those that it runs in float32
    instead: it would show neither the errors nor the overflows of a graph that CUDA runs.

    Args:
        source: directory with the graph in float16.
        output: an existing, other directory.
    """
    import onnx_ir as ir

    model = ir.load(source / MODEL_FILE)
    names = {value.name for value in values(model)}
    for node in list(model.graph):
        if node.op_type == "Cast" and node.domain in ("", "ai.onnx"):
            continue
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype == ir.DataType.FLOAT16:
                cast = _cast(value, ir.DataType.FLOAT, names)
                model.graph.insert_before(node, cast)
                node.replace_input_with(index, cast.outputs[0])
        for value in list(node.outputs):
            if value.dtype == ir.DataType.FLOAT16:
                cast = _cast(value, ir.DataType.FLOAT16, names)
                ir.convenience.replace_all_uses_with(value, cast.outputs[0])
                cast.replace_input_with(0, value)
                value.type = ir.TensorType(ir.DataType.FLOAT)
                model.graph.insert_after(node, cast)
    write(model, output)


class _Converter:
    """The float16 and float32 forms of a graph's values; each conversion is made once."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.made: set[ir.Value] = set()
        self._names = {value.name for value in values(model)}
        self._forms: dict[tuple[ir.Value, bool], ir.Value] = {}
        self._weights: list[ir.Value] = []

    def read(self, value: ir.Value, node: ir.Node, is_half: bool) -> ir.Value:
        """The form of a value that an operator reads."""
        import onnx_ir as ir

        if is_half == (value.dtype == ir.DataType.FLOAT16):
            return value
        if (value, is_half) not in self._forms:
            self._forms[value, is_half] = self._form(value, node, is_half)
        return self._forms[value, is_half]

    def _form(self, value: ir.Value, node: ir.Node, is_half: bool) -> ir.Value:
        import onnx_ir as ir

        dtype = ir.DataType.FLOAT16 if is_half else ir.DataType.FLOAT
        tensor = value.const_value
        if is_half and value.is_initializer() and not value.is_graph_input() and tensor is not None:
            name = _unused(f"{value.name}_float16", self._names)
            new = ir.Value(name=name, shape=value.shape, type=ir.TensorType(dtype))
            new.const_value = ir.LazyTensor(
                lambda: ir.tensor(_rounded(tensor.numpy()), name=name),
                dtype=dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=name,
            )
            self.model.graph.register_initializer(new)
            self._weights.append(value)
            return new
        cast = _cast(value, dtype, self._names)
        self.model.graph.insert_before(node, cast)
        return cast.outputs[0]

    def restore(self, value: ir.Value) -> ir.Value:
        """An output of the graph in float32, under its name."""
        import onnx_ir as ir

        name = value.name
        value.name = _unused(f"{name}_float16", self._names)
        cast = _cast(value, ir.DataType.FLOAT, self._names)
        cast.outputs[0].name = name
        self.model.graph.append(cast)
        return cast.outputs[0]

    def drop_unused(self) -> None:
        """Remove the float32 weights that nothing reads any more."""
        for value in self._weights:
            if not value.uses() and not value.is_graph_output() and value.is_initializer():
                del self.model.graph.initializers[str(value.name)]


def _is_half(node: ir.Node) -> bool:
    """Whether an operator computes in float16: it is known to, and gives no statistics, which are float32."""
    if node.op_type not in HALF or node.domain not in ("", "ai.onnx", "com.microsoft"):
        return False
    extra = [value for value in node.outputs if not _is_main(node, value)]
    return not any(value.uses() or value.is_graph_output() for value in extra)


def _is_main(node: ir.Node, value: ir.Value) -> bool:
    """Whether an output has the type of the inputs; mean and deviation of normalizations have not."""
    return value.index() not in {"LayerNormalization": (1, 2), "SkipLayerNormalization": (1, 2)}.get(node.op_type, ())


def _cast(value: ir.Value, dtype: ir.DataType, names: set[str | None]) -> ir.Node:
    import onnx_ir as ir

    name = _unused(f"{value.name}_{dtype.name.lower()}", names)
    result = ir.Value(name=name, shape=value.shape, type=ir.TensorType(dtype))
    return ir.node("Cast", [value], {"to": int(dtype)}, outputs=[result], name=name)


def _unused(stem: str, names: set[str | None]) -> str:
    while stem in names:
        stem += "_"
    names.add(stem)
    return stem


def _rounded(array: np.ndarray) -> np.ndarray:
    """Numbers as float16; finite ones stay finite."""
    import numpy as np

    beyond = np.isfinite(array) & (np.abs(array) > LARGEST)
    return np.where(beyond, np.copysign(FILL, array), array).astype(np.float16)
