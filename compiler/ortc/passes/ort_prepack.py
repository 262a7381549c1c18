"""Let ONNX Runtime lay out weights for this processor, as a worker.

Executed by the interpreter of the target's own runtime environment, as `ort_optimize.py` is. Needs onnxruntime alone.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from ortc.execution.worker_protocol import Json, serve

LEVELS = {
    "off": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "layout": "ORT_ENABLE_LAYOUT",
    "all": "ORT_ENABLE_ALL",
}


def pack(request: Json) -> Json:
    """{source, output, session} -> nothing; `session` is the text of session.json.

    Writes the graph as a session holds it to `output`/prepacked.onnx, its weights, packed ones too, beside it.
    """
    config = json.loads(request["session"])
    os.environ.update(config["environment"])
    import onnxruntime as ort

    options = ort.SessionOptions()
    level = LEVELS[config["session_options"]["graph_optimization_level"]]
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(Path(request["output"]) / "prepacked.onnx")
    options.intra_op_num_threads = 1
    # That the file is for one kind of machine alone is what it is for.
    options.log_severity_level = 3
    entries = {
        **config["config_entries"],
        "session.optimized_model_external_initializers_file_name": "model.onnx.data",
        "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
        "session.save_external_prepacked_constant_initializers": "1",
    }
    for name, value in entries.items():
        options.add_session_config_entry(name, value)
    ort.InferenceSession(str(Path(request["source"]) / "model.onnx"), options, providers=["CPUExecutionProvider"])
    return {}


if __name__ == "__main__":
    serve({"pack": pack})
