"""Half precision: weights and compute in float16 or bfloat16, while a graph goes on to take and give float32."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
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

# fmt: off
BRAIN = COMPUTE - {"ConvTranspose"} | FUSED | {
        "Add", "AveragePool", "Concat", "Div", "Erf", "Expand", "Flatten", "Gather", "Gelu",
        "HardSigmoid", "HardSwish", "Identity", "LayerNormalization", "Mul", "Neg", "Relu",
        "Reshape", "Sigmoid", "Slice", "Softmax", "Split", "Squeeze", "Sub", "Tanh", "Transpose",
        "Unsqueeze", "Where",
}
# fmt: on
"""Operators that compute in bfloat16: those of `HALF` for which onnxruntime-gpu 1.31.1 has CUDA kernels in bfloat16
(docs/OperatorKernels.md of ONNX Runtime, and the kernels' classes in libonnxruntime_providers_cuda.so), where the
graph's opset allows the type."""


STATISTICS = {
    "LayerNormalization": (1, 2),
    "SimplifiedLayerNormalization": (1,),
    "SkipLayerNormalization": (1, 2),
    "SkipSimplifiedLayerNormalization": (1, 2),
}
"""Outputs that are mean and deviation, in float32 whatever is normalized."""


@dataclass(frozen=True)
class Format:
    """A type of 16 bits: its name in onnx_ir.DataType, what computes in it, and its largest number.

    Numbers beyond the range become half of the largest: masks are made with float32's lowest number, and a score added
    to the format's lowest would be minus infinity, a row of which has no softmax. In bfloat16, too, float32's lowest
    rounds to minus infinity.
    """

    name: str
    operators: frozenset[str]
    largest: float

    @property
    def fill(self) -> float:
        """What stands for numbers beyond the range."""
        return self.largest / 2

    @property
    def dtype(self) -> ir.DataType:
        """The type."""
        import onnx_ir as ir

        return ir.DataType[self.name]


FLOAT16 = Format("FLOAT16", frozenset(HALF), 65504.0)
BFLOAT16 = Format("BFLOAT16", frozenset(BRAIN), float.fromhex("0x1.fep127"))
FORMATS = (FLOAT16, BFLOAT16)


def half(model: ir.Model) -> int:
    """Compute in float16 where `HALF` says so, with conversions where it meets what stays in float32.

    Returns the number of operators of `COMPUTE` that were converted.

    Raises:
        NotApplicable: the graph has branches or bodies, or a value of unknown type.
    """
    return _convert(model, FLOAT16)


def bfloat16(model: ir.Model) -> int:
    """As `half`, in bfloat16: float32's range with 8 bits of precision, for what overflows in float16."""
    return _convert(model, BFLOAT16)


def _convert(model: ir.Model, to: Format) -> int:
    import onnx_ir as ir
    from onnx_ir.passes.common import LiftConstantsToInitializersPass

    if any(True for _ in model.graph.subgraphs()) or model.functions:
        raise NotApplicable("branches and bodies of loops are not converted to half precision")
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    converter = _Converter(model, to)
    opset = model.opset_imports.get("", 0)
    outputs = list(model.graph.outputs)
    count = 0
    for node in list(model.graph):
        is_half = _is_half(node, to, opset)
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype in (ir.DataType.FLOAT, to.dtype):
                node.replace_input_with(index, converter.read(value, node, is_half))
        for value in node.outputs:
            if value.dtype is None and (value.uses() or value.is_graph_output()):
                raise NotApplicable(f"the type of `{value.name}` is not known")
            if is_half and value.dtype == ir.DataType.FLOAT and _is_main(node, value):
                value.type = ir.TensorType(to.dtype)
                converter.made.add(value)
        count += is_half and node.op_type in COMPUTE
    for index, value in enumerate(outputs):
        if value in converter.made:
            model.graph.outputs[index] = converter.restore(value)
    converter.drop_unused()
    return count


def upcast(source: Path, output: Path) -> None:
    """Write a graph that computes in float32 what another computes in 16 bits, and rounds every result as that does.

    The CPU provider has few kernels in float16 and hardly any in bfloat16, and leaves out the rounding between those
    that it runs in float32 instead: it would show neither the errors nor the overflows of a graph that CUDA runs.

    Args:
        source: directory with the graph in float16 or bfloat16.
        output: an existing, other directory.
    """
    import onnx_ir as ir

    small = {entry.dtype for entry in FORMATS}
    model = ir.load(source / MODEL_FILE)
    names = {value.name for value in values(model)}
    for node in list(model.graph):
        if node.op_type == "Cast" and node.domain in ("", "ai.onnx"):
            continue
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype in small:
                cast = _cast(value, ir.DataType.FLOAT, names)
                model.graph.insert_before(node, cast)
                node.replace_input_with(index, cast.outputs[0])
        for value in list(node.outputs):
            if value.dtype is not None and value.dtype in small:
                cast = _cast(value, value.dtype, names)
                ir.convenience.replace_all_uses_with(value, cast.outputs[0])
                cast.replace_input_with(0, value)
                value.type = ir.TensorType(ir.DataType.FLOAT)
                model.graph.insert_after(node, cast)
    write(model, output)


class _Converter:
    """The short and float32 forms of a graph's values; each conversion is made once."""

    def __init__(self, model: ir.Model, to: Format) -> None:
        self.model = model
        self.to = to
        self.made: set[ir.Value] = set()
        self._names = {value.name for value in values(model)}
        self._forms: dict[tuple[ir.Value, bool], ir.Value] = {}
        self._weights: list[ir.Value] = []

    def read(self, value: ir.Value, node: ir.Node, is_half: bool) -> ir.Value:
        """The form of a value that an operator reads."""
        if is_half == (value.dtype == self.to.dtype):
            return value
        if (value, is_half) not in self._forms:
            self._forms[value, is_half] = self._form(value, node, is_half)
        return self._forms[value, is_half]

    def _form(self, value: ir.Value, node: ir.Node, is_half: bool) -> ir.Value:
        import onnx_ir as ir

        dtype = self.to.dtype if is_half else ir.DataType.FLOAT
        tensor = value.const_value
        if is_half and value.is_initializer() and not value.is_graph_input() and tensor is not None:
            name = _unused(f"{value.name}_{self.to.name.lower()}", self._names)
            new = ir.Value(name=name, shape=value.shape, type=ir.TensorType(dtype))
            new.const_value = ir.LazyTensor(
                lambda: ir.tensor(_rounded(tensor.numpy(), self.to), dtype=dtype, name=name),
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
        value.name = _unused(f"{name}_{self.to.name.lower()}", self._names)
        cast = _cast(value, ir.DataType.FLOAT, self._names)
        cast.outputs[0].name = name
        self.model.graph.append(cast)
        return cast.outputs[0]

    def drop_unused(self) -> None:
        """Remove the float32 weights that nothing reads any more."""
        for value in self._weights:
            if not value.uses() and not value.is_graph_output() and value.is_initializer():
                del self.model.graph.initializers[str(value.name)]


def _is_half(node: ir.Node, to: Format, opset: int) -> bool:
    """Whether an operator computes in a format: it is known to, and gives no statistics, which are float32."""
    if node.op_type not in to.operators or node.domain not in ("", "ai.onnx", "com.microsoft"):
        return False
    if node.domain != "com.microsoft" and not _allows(node.op_type, opset, f"tensor({to.name.lower()})"):
        return False
    extra = [value for value in node.outputs if not _is_main(node, value)]
    return not any(value.uses() or value.is_graph_output() for value in extra)


@cache
def _allows(operator: str, opset: int, dtype: str) -> bool:
    """Whether ONNX defines an operator for a type: bfloat16 came late to some. Of operators that it lacks, yes."""
    import onnx

    if not onnx.defs.has(operator, opset):
        return True
    constraints = onnx.defs.get_schema(operator, opset).type_constraints
    return any(dtype in constraint.allowed_type_strs for constraint in constraints)


def _is_main(node: ir.Node, value: ir.Value) -> bool:
    """Whether an output has the type of the inputs; mean and deviation of normalizations have not."""
    return value.index() not in STATISTICS.get(node.op_type, ())


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


def _rounded(array: np.ndarray, to: Format) -> np.ndarray:
    """Numbers in a format; finite ones stay finite."""
    import numpy as np

    beyond = np.isfinite(array) & (np.abs(array) > to.largest)
    return np.where(beyond, np.copysign(to.fill, array), array).astype(to.dtype.numpy())
