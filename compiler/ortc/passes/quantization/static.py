"""INT8 with calibration: QuantizeLinear and DequantizeLinear around the nodes that are to run on integers (QDQ).

Run as `python -m ortc.passes.quantization.static REQUEST`, in a process of its own, so that its memory is its own.
Activations are
unsigned with one scale a tensor, weights signed with one a channel. Only what is quantized reads a rounded activation:
others, such as the residual connection of a transformer, go on reading the original.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ortc.common.errors import NotApplicable, StageError
from ortc.execution.processes import own_environment, own_module
from ortc.passes.canonical import MODEL_FILE, write
from ortc.passes.quantization import weight_only as in_blocks
from ortc.passes.quantization.calibration import Ranges
from ortc.passes.quantization.qdq import emit
from ortc.spec.quantization import Alpha

_NOT_APPLICABLE = 3


def quantize_static(
    source: Path,
    output: Path,
    ranges: Ranges,
    *,
    operators: tuple[str, ...],
    smooth: Alpha | None = None,
    exclude: tuple[str, ...] = (),
    blocks: tuple[str, ...] = (),
    symmetric: bool = False,
) -> None:
    """Write the quantized form of `source`/model.onnx to `output`/model.onnx.

    Args:
        source: directory with a graph in 32-bit floating point.
        output: an existing, other directory.
        ranges: of the activations, from ortc.passes.quantization.calibration; a node whose activation has none stays
        as it is. operators: types of nodes to quantize: those of sites.QUANTIZABLE, and `Gather` for embedding tables.
        smooth: how much of a channel's spread goes from activations into weights, 0 to 1, or `auto`: see
            ortc.passes.quantization.smoothquant. None leaves activations as they are.
        exclude: names of nodes to leave in floating point.
        blocks: names of MatMuls of which the weights alone become integers, of 8 bits.
        symmetric: whether activations are signed, around zero.

    Raises:
        NotApplicable: there is nothing to quantize.
        StageError: the graph cannot be quantized.
    """
    with tempfile.TemporaryDirectory(prefix="ortc-static-") as scratch:
        ranges.save(Path(scratch) / "ranges.npz")
        request = {
            "source": str(source),
            "output": str(output),
            "ranges": str(Path(scratch) / "ranges.npz"),
            "operators": list(operators),
            "smooth": smooth,
            "exclude": list(exclude),
            "blocks": list(blocks),
            "symmetric": symmetric,
        }
        result = subprocess.run(
            own_module("ortc.passes.quantization.static", json.dumps(request)),
            capture_output=True,
            text=True,
            env={**os.environ, **own_environment()},
            check=False,
        )
    if result.returncode == _NOT_APPLICABLE:
        raise NotApplicable(result.stderr.strip())
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"exit code {result.returncode}"
        raise StageError(f"static quantization fails: {reason}", details=tuple(lines[-8:]))


def _main(request: dict[str, Any]) -> None:
    import onnx_ir as ir

    model = ir.load(Path(request["source"]) / MODEL_FILE)
    operators = tuple(request["operators"])
    ranges, exclude = Ranges.load(Path(request["ranges"])), tuple(request["exclude"])
    count = in_blocks.emit(model, dict.fromkeys(request["blocks"], 8))
    count += emit(
        model, ranges, operators=operators, smooth=request["smooth"], exclude=exclude, symmetric=request["symmetric"]
    )
    if count == 0 and not exclude:
        raise NotApplicable(f"nothing to quantize: no {' or '.join(operators)} with constant weights and known ranges")
    write(model, Path(request["output"]))


if __name__ == "__main__":
    try:
        _main(json.loads(sys.argv[1]))
    except NotApplicable as reason:
        sys.stderr.write(reason.message)
        sys.exit(_NOT_APPLICABLE)
