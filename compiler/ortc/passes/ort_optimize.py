"""Run ONNX Runtime's graph optimizer at build time, as a worker.

Executed by the interpreter of the target's own runtime environment, so that the version that optimizes is the version
that serves. Needs onnxruntime alone.
"""

from __future__ import annotations

import os
from pathlib import Path

from ortc.execution.worker_protocol import Json, serve

LEVELS = {"basic": "ORT_ENABLE_BASIC", "extended": "ORT_ENABLE_EXTENDED"}


def optimize(request: Json) -> Json:
    """{source, output, level, disabled} -> nothing; `source`/model.onnx goes, optimized, to `output`/model.onnx.

    Large weights are written beside the graph; `disabled` names optimizers that are left out.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, LEVELS[request["level"]])
    options.optimized_model_filepath = str(Path(request["output"]) / "model.onnx")
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "model.onnx.data")
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    if request["disabled"]:
        options.add_session_config_entry("optimization.disable_specified_optimizers", request["disabled"])
    options.intra_op_num_threads = 1
    model = str(Path(request["source"]) / "model.onnx")
    ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return {}


if __name__ == "__main__":
    serve({"optimize": optimize})
