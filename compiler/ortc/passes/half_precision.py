"""Half precision: weights and compute in float16 or bfloat16, while a graph goes on to take and give float32."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from ortc.common.errors import NotApplicable
from ortc.passes.canonical import node_name, values
from ortc.passes.fusion import FUSED
from ortc.passes.magnitudes import Range, beyond, masks
from ortc.spec.profile import Rewrite

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


MOVES = frozenset({
    "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Reshape", "Slice", "Split", "Squeeze",
    "Transpose", "Unsqueeze",
})  # fmt: skip
"""Of `HALF`, those that give numbers of their first input as they are."""

STATISTICS = {
    "LayerNormalization": (1, 2),
    "SimplifiedLayerNormalization": (1,),
    "SkipLayerNormalization": (1, 2),
    "SkipSimplifiedLayerNormalization": (1, 2),
}
"""Outputs that are mean and deviation, in float32 whatever is normalized."""


@dataclass(frozen=True)
class Format:
    """A type of 16 bits: its name in onnx_ir.DataType, the rewrite that brings it in, what computes in it, and the
    numbers that it holds.

    Numbers of masks beyond the range become half of the largest: masks are made with float32's lowest number, and a
    score added to the format's lowest would be minus infinity, a row of which has no softmax. In bfloat16, too,
    float32's lowest rounds to minus infinity. What reads any other single number beyond the range stays in float32, and
    weights beyond it become infinite: see `ortc.passes.magnitudes.beyond`.
    """

    name: str
    rewrite: Rewrite
    operators: frozenset[str]
    held: Range

    @property
    def largest(self) -> float:
        """The largest number."""
        return self.held.largest

    @property
    def fill(self) -> float:
        """What stands for a mask's numbers beyond the range."""
        return self.largest / 2

    @property
    def dtype(self) -> ir.DataType:
        """The type."""
        import onnx_ir as ir

        return ir.DataType[self.name]


FLOAT16 = Format("FLOAT16", "half", frozenset(HALF), Range(65504.0, 2.0**-20))
BFLOAT16 = Format("BFLOAT16", "bfloat16", frozenset(BRAIN), Range(float.fromhex("0x1.fep127"), 2.0**-129))
FORMATS = (FLOAT16, BFLOAT16)


def format_of(rewrites: Collection[str]) -> Format | None:
    """What a graph computes in after rewrites; None where that is float32."""
    return next((entry for entry in FORMATS if entry.rewrite in rewrites), None)


def half(model: ir.Model) -> int:
    """Compute in float16 where `HALF` says so; see `shorten`."""
    return shorten(model, FLOAT16)


def bfloat16(model: ir.Model) -> int:
    """Compute in bfloat16 where `BRAIN` says so: float32's range with 8 bits of precision; see `shorten`."""
    return shorten(model, BFLOAT16)


def shorten(model: ir.Model, to: Format, keep: Collection[str] = ()) -> int:
    """Compute in a format where it says so, with conversions where that meets what stays in float32.

    Args:
        model: is changed in place.
        to: the format.
        keep: names of nodes (`node_name`) that stay in float32, and with each what only moves its results.

    Returns the number of operators of `COMPUTE` that were converted.

    Raises:
        NotApplicable: the graph has functions, a value of unknown type, or no node of a name in `keep`.
    """
    import onnx_ir as ir

    if unknown := sorted(set(keep) - {node_name(node) for node in model.graph}):
        raise NotApplicable(f"no node is called `{unknown[0]}`, which was to stay in float32")
    nodes = _short(model, to, keep)
    filled = masks(model, to.held)
    converter = _Converter(model, to)
    outputs = list(model.graph.outputs)
    count = 0
    for node in list(model.graph):
        is_half = node in nodes
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype in (ir.DataType.FLOAT, to.dtype):
                node.replace_input_with(index, converter.read(value, node, is_half, (node, index) in filled))
        _widen_captured(node, converter)
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


def _widen_captured(node: ir.Node, converter: _Converter) -> None:
    """Give branches and bodies of a node, which stay in float32, that form of all that they read from outside."""
    import onnx_ir as ir

    for graph in _bodies(node):
        for inner in ir.traversal.RecursiveGraphIterator(graph):
            for index, value in enumerate(inner.inputs):
                if value is not None and value in converter.made:
                    inner.replace_input_with(index, converter.read(value, node, is_half=False, is_mask=False))


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    """The branches and bodies of a node itself."""
    import onnx_ir as ir

    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def rounding(model: ir.Model, to: Format) -> list[ir.Node]:
    """The nodes that a format rounds the results of, in the graph's order: any of them can be kept in float32.

    What only moves numbers follows the node that made them in that format; numbers of an input, or of an operator that
    stays in float32, it rounds itself.

    Raises:
        NotApplicable: as `half`.
    """
    import onnx_ir as ir

    short = _short(model, to)
    found = []
    for node in short:
        source = node.inputs[0] if _moves(node) else None
        follows = source is not None and source.producer() in short
        if not follows and any(value.dtype == ir.DataType.FLOAT for value in node.outputs):
            found.append(node)
    return found


def _short(model: ir.Model, to: Format, keep: Collection[str] = ()) -> dict[ir.Node, None]:
    """The nodes that compute in a format, in the graph's order, once its constants are initializers."""
    from onnx_ir.passes.common import LiftConstantsToInitializersPass, ShapeInferencePass

    if model.functions:
        raise NotApplicable("functions are not converted to half precision")
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    if any(value.dtype is None and value.uses() for node in model.graph for value in node.outputs):
        # Exporters write the types down, hand-made graphs often do not.
        ShapeInferencePass()(model)
    opset = model.opset_imports.get("", 0)
    unheld = beyond(model, to.held)
    kept: set[ir.Value | None] = set()
    found: dict[ir.Node, None] = {}
    for node in model.graph:
        if not _is_half(node, to, opset):
            continue
        if node in unheld or node_name(node) in keep or (_moves(node) and node.inputs[0] in kept):
            kept.update(node.outputs)
        else:
            found[node] = None
    return found


def _moves(node: ir.Node) -> bool:
    """Whether a node gives numbers that another has made."""
    source = node.inputs[0] if node.inputs else None
    return node.op_type in MOVES and source is not None and not _is_constant(source)


def _is_constant(value: ir.Value) -> bool:
    return value.is_initializer() and not value.is_graph_input()


class _Converter:
    """The short and float32 forms of a graph's values; each conversion is made once."""

    def __init__(self, model: ir.Model, to: Format) -> None:
        self.model = model
        self.to = to
        self.made: set[ir.Value] = set()
        self._names = {value.name for value in values(model)}
        self._forms: dict[tuple[ir.Value, bool, bool], ir.Value] = {}
        self._weights: list[ir.Value] = []

    def read(self, value: ir.Value, node: ir.Node, is_half: bool, is_mask: bool) -> ir.Value:
        """The form of a value that an operator reads; a constant of a mask is one of its own."""
        if is_half == (value.dtype == self.to.dtype):
            return value
        key = value, is_half, is_half and is_mask
        if key not in self._forms:
            self._forms[key] = self._form(value, node, is_half, is_mask)
        return self._forms[key]

    def _form(self, value: ir.Value, node: ir.Node, is_half: bool, is_mask: bool) -> ir.Value:
        import onnx_ir as ir

        dtype = self.to.dtype if is_half else ir.DataType.FLOAT
        tensor = value.const_value
        if is_half and _is_constant(value) and tensor is not None:
            name = _unused(f"{value.name}_{self.to.name.lower()}", self._names)
            new = ir.Value(name=name, shape=value.shape, type=ir.TensorType(dtype))
            new.const_value = ir.LazyTensor(
                lambda: ir.tensor(_rounded(tensor.numpy(), self.to, is_mask=is_mask), dtype=dtype, name=name),
                dtype=dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=name,
            )
            self.model.graph.register_initializer(new)
            self._weights.append(value)
            return new
        other = cast(value, dtype, self._names)
        self.model.graph.insert_before(node, other)
        return other.outputs[0]

    def restore(self, value: ir.Value) -> ir.Value:
        """An output of the graph in float32, under its name."""
        import onnx_ir as ir

        name = value.name
        value.name = _unused(f"{name}_{self.to.name.lower()}", self._names)
        wide = cast(value, ir.DataType.FLOAT, self._names)
        wide.outputs[0].name = name
        self.model.graph.append(wide)
        return wide.outputs[0]

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


def cast(value: ir.Value, dtype: ir.DataType, names: set[str | None]) -> ir.Node:
    """A new Cast of a value, in no graph yet; its name is none of `names`, and joins them."""
    import onnx_ir as ir

    name = _unused(f"{value.name}_{dtype.name.lower()}", names)
    result = ir.Value(name=name, shape=value.shape, type=ir.TensorType(dtype))
    return ir.node("Cast", [value], {"to": int(dtype)}, outputs=[result], name=name)


def _unused(stem: str, names: set[str | None]) -> str:
    while stem in names:
        stem += "_"
    names.add(stem)
    return stem


def _rounded(array: np.ndarray, to: Format, *, is_mask: bool) -> np.ndarray:
    """Numbers in a format; those of a mask stay finite, and others beyond the range become infinite."""
    import numpy as np

    if is_mask:
        beyond = np.isfinite(array) & (np.abs(array) > to.largest)
        array = np.where(beyond, np.copysign(to.fill, array), array)
    with np.errstate(over="ignore"):
        rounded: np.ndarray = array.astype(to.dtype.numpy())
    return rounded
