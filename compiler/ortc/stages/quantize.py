"""Dynamic INT8: weights become per-channel int8, activations are quantized while the model runs.

Run as `python -m ortc.stages.quantize SOURCE OUTPUT OPERATOR…`, in a process of its own: the quantizer holds several
copies of the weights.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ortc.errors import StageError


def quantize(source: Path, output: Path, operators: tuple[str, ...]) -> None:
    """Write the dynamically quantized form of `source`/model.onnx to `output`/model.onnx.

    Args:
        source: directory with the canonical graph.
        output: an existing directory.
        operators: operator types whose constant weights become int8; `Gather` means embeddings.

    Raises:
        StageError: the quantizer fails, or there is nothing of these types to quantize.
    """
    package_root = str(Path(__file__).parents[2])
    result = subprocess.run(
        [sys.executable, "-m", "ortc.stages.quantize", str(source), str(output), *operators],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": package_root, "ORT_DISABLE_TELEMETRY": "1"},
        check=False,
    )
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines()
        raise StageError(
            f"dynamic quantization fails: {lines[-1] if lines else result.returncode}", details=tuple(lines[-8:])
        )


def _main(source: Path, output: Path, operators: list[str]) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(str(source / "model.onnx"))
    before = len(model.graph.node)
    # Shapes of the intermediate values are no longer true once nodes are replaced, and the quantizer trusts them.
    del model.graph.value_info[:]
    quantize_dynamic(
        model,
        str(output / "model.onnx"),
        op_types_to_quantize=operators,
        per_channel=True,
        # Signed weights: MLAS has its fastest kernels for them on VNNI and on ARM.
        weight_type=QuantType.QInt8,
        use_external_data_format=False,
        extra_options={"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    after = onnx.load(str(output / "model.onnx"))
    if len(after.graph.node) == before:
        raise SystemExit(f"nothing to quantize: the graph has no {' or '.join(operators)} with constant weights")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
