"""INT8 without calibration: weights become int8 at build time, activations while the model runs.

Run as `python -m ortc.passes.quantization.data_free REQUEST`, in a process of its own, which holds the weights more
than once. REQUEST is JSON: source, output, operators, smooth, weight_only, bits.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ortc.common.errors import NotApplicable, StageError
from ortc.execution.processes import own_environment, own_module
from ortc.plan.plan import VariantPlan
from ortc.spec.quantization import DynamicQuantization, WeightQuantization

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

SMOOTHING = 0.75
"""How much of the spread goes from activations into weights; SmoothQuant's alpha (Xiao et al., 2022, equation 4)."""
NORMAL_REACH = 3.0
"""Standard deviations that a normalized activation is taken to reach, in place of a calibration run."""
_NOT_APPLICABLE = 3


def quantize(source: Path, output: Path, variant: VariantPlan, ranges: Path | None = None) -> None:
    """Write the quantized form of `source`/model.onnx to `output`/model.onnx.

    Args:
        source: directory with the canonical graph.
        output: an existing directory.
        variant: the `operators` of its quantization are the types whose constant weights become int8 (`Gather` means
            embeddings); `blocks` and `exclude` name the nodes that do not follow.
        ranges: of the activations, for calibrated smoothing.

    Raises:
        NotApplicable: there is nothing to quantize, smooth or keep.
        StageError: the quantizer fails.
    """
    how = variant.quantization
    assert isinstance(how, DynamicQuantization | WeightQuantization)  # noqa: S101  # the caller tells kinds apart
    request = {
        "source": str(source / "model.onnx"),
        "output": str(output / "model.onnx"),
        "operators": list(how.operators),
        "smooth": how.smoothing == "layer-norm",
        "weight_only": isinstance(how, DynamicQuantization) and how.narrowing == "weight-only",
        "bits": bits_of(variant),
        "ranges": None if ranges is None else str(ranges),
        "smoothing": how.alpha,
        "blocks": list(variant.blocks),
        "exclude": list(variant.exclude),
    }
    result = subprocess.run(
        own_module("ortc.passes.quantization.data_free", json.dumps(request)),
        capture_output=True,
        text=True,
        env={**os.environ, **own_environment({"ORT_DISABLE_TELEMETRY": "1"})},
        check=False,
    )
    if result.returncode == _NOT_APPLICABLE:
        raise NotApplicable(result.stderr.strip())
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"exit code {result.returncode}"
        raise StageError(f"quantization fails: {reason}", details=tuple(lines[-8:]))


def smooth(model: onnx.ModelProto) -> int:
    """Divide what a LayerNormalization gives by a factor a channel and multiply the next MatMul's rows by it.

    The product stays the same; the activation's channels come closer to one range, which is what dynamic quantization,
    with one scale a tensor, needs. The factor of a channel is reach ** 0.75 / max|row of W| ** 0.25, where reach, the
    activation's expected greatest value, is 3 |gamma| + |beta|: a normalized value rarely exceeds three deviations.
    Only MatMuls that widen (a feed-forward's first) are smoothed.

    Returns the number of MatMuls changed.
    """
    import numpy as np
    import onnx
    from onnx import numpy_helper

    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    normalized = {
        node.output[0]: node
        for node in model.graph.node
        if node.op_type == "LayerNormalization" and all(name in weights for name in node.input[1:])
    }
    uses: dict[str, int] = {}
    for node in model.graph.node:
        for name in node.input:
            uses[name] = uses.get(name, 0) + 1
    changed = 0
    nodes = []
    for node in model.graph.node:
        origin = normalized.get(node.input[0]) if node.op_type == "MatMul" else None
        weight = weights.get(node.input[1]) if origin is not None else None
        if origin is not None and weight is not None and uses[weight.name] == 1 and len(weight.dims) == 2:
            matrix = numpy_helper.to_array(weight)
            reach = NORMAL_REACH * np.abs(numpy_helper.to_array(weights[origin.input[1]]))
            if len(origin.input) > 2:
                reach = reach + np.abs(numpy_helper.to_array(weights[origin.input[2]]))
            rows = np.abs(matrix).max(axis=1)
            if matrix.shape[1] > matrix.shape[0] and reach.shape == rows.shape:
                factors = np.maximum(reach, 1e-5) ** SMOOTHING / np.maximum(rows, 1e-5) ** (1 - SMOOTHING)
                factors = (factors / np.median(factors)).astype(matrix.dtype)
                name = f"{node.name or node.output[0]}_smoothed"
                weight.CopyFrom(numpy_helper.from_array(matrix * factors[:, None], weight.name))
                model.graph.initializer.append(numpy_helper.from_array(1 / factors, f"{name}_factors"))
                nodes.append(onnx.helper.make_node("Mul", [node.input[0], f"{name}_factors"], [name], name=name))
                node.input[0] = name
                changed += 1
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return changed


def name_nodes(model: onnx.ModelProto) -> None:
    """Give every node a name of its own: the quantizer leaves nodes out by name."""
    taken: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_ortc_{index}"
        taken.add(node.name)


def bits_of(variant: VariantPlan) -> int:
    """Bits of a variant that rounds weights alone; 0 of any other."""
    return variant.quantization.bits if isinstance(variant.quantization, WeightQuantization) else 0


def narrowing(model: onnx.ModelProto) -> list[str]:
    """Names of the MatMuls with a constant weight of more rows than columns: a feed-forward's second."""
    return [name for name, rows, columns in _in_blocks(model) if rows > columns]


def _in_blocks(model: onnx.ModelProto) -> Iterator[tuple[str, int, int]]:
    """MatMuls whose constant weight has whole blocks in each column: name, rows, columns."""
    from ortc.passes.quantization.weight_only import BLOCK

    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "MatMul" and len(shape := shapes.get(node.input[1], ())) == 2 and shape[0] % BLOCK == 0:
            yield node.name, shape[0], shape[1]


def emit_integers(
    model: ir.Model, operators: Collection[str], bits: int, blocks: Collection[str], exclude: Collection[str]
) -> int:
    """Quantize a model in place, without ranges.

    Args:
        model: in 32-bit floating point, every node with a name of its own.
        operators: types whose constant weights become integers.
        bits: of the weights where these alone are rounded, 4 or 8; 0 rounds activations to 8 bits, too.
        blocks: names of MatMuls of which the weights alone are rounded, to 8 bits.
        exclude: names of nodes that stay in floating point.

    Returns:
        How many nodes were replaced.
    """
    from ortc.passes.quantization import weight_only as in_blocks
    from ortc.passes.quantization.dynamic import emit
    from ortc.passes.quantization.quantizable import find_sites

    widths = dict.fromkeys(blocks, 8)
    if bits and "MatMul" in operators:
        names = [site.name for site in find_sites(model, ("MatMul",)) if in_blocks.fits(site)]
        widths = {name: widths.get(name, bits) for name in names if name not in exclude}
    # Weights alone: tables are read and not multiplied, so that those of any variant become integers alike.
    rounded = tuple(operator for operator in operators if operator == "Gather" or not bits)
    return in_blocks.emit(model, widths) + emit(model, rounded, exclude)


def prepare(
    source: str, *, smooth_first: bool = False, ranges: str | None = None, smoothing: Any = None
) -> tuple[onnx.ModelProto, ir.Model]:
    """Load a graph, name its nodes and smooth it: what all that is quantized without ranges begins with.

    Returns:
        The graph before calibrated smoothing, and the graph to quantize.

    Raises:
        SystemExit: the graph is too old, or there is nothing to smooth.
    """
    import onnx
    import onnx_ir as ir

    from ortc.passes.quantization.editor import LEAST_OPSET

    model = onnx.load(source)
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < LEAST_OPSET:
        _skip(f"dynamic quantization needs opset {LEAST_OPSET} or higher")
    # Shapes of the intermediate values are no longer true once nodes are replaced.
    del model.graph.value_info[:]
    name_nodes(model)
    if smooth_first and smooth(model) == 0:
        _skip("nothing to smooth: no LayerNormalization feeds a MatMul that widens")
    graph = ir.from_proto(model)
    if ranges is not None and smoothing is not None:
        from ortc.passes.quantization.calibration import Ranges
        from ortc.passes.quantization.smoothquant import smooth_products

        if smooth_products(graph, Ranges.load(Path(ranges)), smoothing) == 0:
            _skip("nothing to smooth: no activation of a product gains by it")
    return model, graph


def _main(request: dict[str, Any]) -> None:
    import onnx_ir as ir

    model, graph = prepare(
        request["source"],
        smooth_first=request["smooth"],
        ranges=request.get("ranges"),
        smoothing=request.get("smoothing"),
    )
    operators, bits = request["operators"], request["bits"]
    blocks = list(request.get("blocks", ()))
    if request["weight_only"]:
        if not (narrow := narrowing(model)):
            _skip("nothing to keep in floating point: no MatMul narrows")
        blocks += narrow
    exclude = request.get("exclude", ())
    if emit_integers(graph, operators, bits, blocks, exclude) == 0 and not exclude:
        _skip(f"nothing to quantize: no {' or '.join(operators)} with constant weights")
    ir.save(graph, request["output"])


def _skip(reason: str) -> NoReturn:
    sys.stderr.write(reason)
    sys.exit(_NOT_APPLICABLE)


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
