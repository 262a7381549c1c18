"""INT8 without calibration: weights become int8 at build time, activations while the model runs.

Run as `python -m ortc.stages.quantize REQUEST`, in a process of its own, which holds the weights more than
once. REQUEST is JSON: source, output, operators, smooth, weight_only, bits.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ortc.errors import StageError
from ortc.plan import VariantPlan

if TYPE_CHECKING:
    import onnx

SMOOTHING = 0.75
"""How much of the spread goes from activations into weights; SmoothQuant's alpha (Xiao et al., 2022, equation 4)."""
NORMAL_REACH = 3.0
"""Standard deviations that a normalized activation is taken to reach, in place of a calibration run."""
BLOCK = 32
"""Weights that share a scale in weight-only quantization."""
_BITS = {"int8-weights": 8, "int4-weights": 4}
_NOT_APPLICABLE = 3


class NotApplicable(StageError):  # noqa: N818  # not an error of anybody: the model has nothing of the kind
    """There is nothing in this model for a variant to change."""


def quantize(source: Path, output: Path, variant: VariantPlan) -> None:
    """Write the quantized form of `source`/model.onnx to `output`/model.onnx.

    Args:
        source: directory with the canonical graph.
        output: an existing directory.
        variant: `operators` are the types whose constant weights become int8 (`Gather` means embeddings).

    Raises:
        NotApplicable: there is nothing to quantize, smooth or keep.
        StageError: the quantizer fails.
    """
    request = {
        "source": str(source / "model.onnx"),
        "output": str(output / "model.onnx"),
        "operators": list(variant.operators),
        "smooth": variant.smooth,
        "weight_only": variant.weight_only,
        "bits": _BITS.get(variant.quantization, 0),
    }
    package_root = str(Path(__file__).parents[2])
    result = subprocess.run(
        [sys.executable, "-m", "ortc.stages.quantize", json.dumps(request)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": package_root, "ORT_DISABLE_TELEMETRY": "1"},
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


def narrowing(model: onnx.ModelProto) -> list[str]:
    """Names of the MatMuls with a constant weight of more rows than columns: a feed-forward's second."""
    return [name for name, rows, columns in _in_blocks(model) if rows > columns]


def _in_blocks(model: onnx.ModelProto) -> Iterator[tuple[str, int, int]]:
    """MatMuls whose constant weight has whole blocks in each column: name, rows, columns."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "MatMul" and len(shape := shapes.get(node.input[1], ())) == 2 and shape[0] % BLOCK == 0:
            yield node.name, shape[0], shape[1]


def _main(source: str, output: str, operators: list[str], smooth_first: bool, weight_only: bool, bits: int = 0) -> None:
    import onnx
    import onnx_ir as ir

    from ortc.stages.dynamic import emit
    from ortc.stages.editor import LEAST_OPSET

    model = onnx.load(source)
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < LEAST_OPSET:
        _skip(f"dynamic quantization needs opset {LEAST_OPSET} or higher")
    # Shapes of the intermediate values are no longer true once nodes are replaced.
    del model.graph.value_info[:]
    name_nodes(model)
    if smooth_first and smooth(model) == 0:
        _skip("nothing to smooth: no LayerNormalization feeds a MatMul that widens")
    kept = narrowing(model) if weight_only else []
    if weight_only and not kept:
        _skip("nothing to keep in floating point: no MatMul narrows")
    if bits and "MatMul" in operators:
        kept = [name for name, *_ in _in_blocks(model)]
    graph = ir.from_proto(model)
    # Weights alone: tables are read and not multiplied, so that those of any variant become integers alike.
    rounded = tuple(operator for operator in operators if operator == "Gather" or not bits)
    if emit(graph, rounded, kept) == 0 and not kept:
        _skip(f"nothing to quantize: no {' or '.join(operators)} with constant weights")
    if kept:
        _quantize_weights(ir.to_proto(graph), output, bits or 8)
    else:
        ir.save(graph, output)


def _skip(reason: str) -> NoReturn:
    sys.stderr.write(reason)
    sys.exit(_NOT_APPLICABLE)


def _quantize_weights(model: onnx.ModelProto, output: str, bits: int) -> None:
    """Put the weights of the MatMuls that are left into blocks of integers."""
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    configuration = DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=True, accuracy_level=4, bits=bits)
    quantizer = MatMulNBitsQuantizer(model, algo_config=configuration)
    quantizer.process()
    quantizer.model.save_model_to_file(output)


if __name__ == "__main__":
    wanted = json.loads(sys.argv[1])
    _main(
        wanted["source"],
        wanted["output"],
        wanted["operators"],
        wanted["smooth"],
        wanted["weight_only"],
        wanted["bits"],
    )
