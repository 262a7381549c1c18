"""Run ONNX Runtime's graph optimizer once, at build time: `python offline.py SOURCE OUTPUT LEVEL [DISABLED]`.

Executed by the interpreter of the target's own runtime environment, so that the version that optimizes is the version
that serves. Needs onnxruntime alone.
"""

from __future__ import annotations

import os
import sys

LEVELS = {"basic": "ORT_ENABLE_BASIC", "extended": "ORT_ENABLE_EXTENDED"}


def main(source: str, output: str, level: str, disabled: str = "") -> None:
    """Write the optimized graph of `source`/model.onnx to `output`/model.onnx with its weights beside it."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, LEVELS[level])
    options.optimized_model_filepath = os.path.join(output, "model.onnx")  # noqa: PTH118  # no more imports than needed
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "model.onnx.data")
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    if disabled:
        options.add_session_config_entry("optimization.disable_specified_optimizers", disabled)
    options.intra_op_num_threads = 1
    model = os.path.join(source, "model.onnx")  # noqa: PTH118
    ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    main(*sys.argv[1:5])
