"""Let ONNX Runtime lay out weights for this processor: `python packer.py SOURCE OUTPUT SESSION`.

Executed by the interpreter of the target's own runtime environment, as `offline.py` is; SESSION is session.json's text.
Needs onnxruntime alone.
"""

from __future__ import annotations

import json
import os
import sys

LEVELS = {
    "off": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "layout": "ORT_ENABLE_LAYOUT",
    "all": "ORT_ENABLE_ALL",
}


def main(source: str, output: str, session: str) -> None:
    """Write the graph as a session holds it to OUTPUT/prepacked.onnx, its weights, packed ones too, beside it."""
    config = json.loads(session)
    os.environ.update(config["environment"])
    import onnxruntime as ort

    options = ort.SessionOptions()
    level = LEVELS[config["session_options"]["graph_optimization_level"]]
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.optimized_model_filepath = os.path.join(output, "prepacked.onnx")  # noqa: PTH118  # no more imports than needed
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
    ort.InferenceSession(os.path.join(source, "model.onnx"), options, providers=["CPUExecutionProvider"])  # noqa: PTH118


if __name__ == "__main__":
    main(*sys.argv[1:4])
