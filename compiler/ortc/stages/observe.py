"""Run a graph over samples and keep the ranges of tensors: `python observe.py REQUEST`.

Executed by the interpreter of the target's own runtime environment. Needs onnxruntime and numpy alone. REQUEST is a
JSON file: model, folder (of its external weights), samples (.npz files), tensors, method, threads, output. The model
has, for each of the tensors, two outputs NAME/minimum and NAME/maximum with a value for each channel.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def main(request: dict[str, Any]) -> None:
    """Write minima, maxima (all channels of all tensors in one array each) and the number of samples."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Patterns of allocations are kept for every shape that was seen.
    options.enable_mem_pattern = False
    options.intra_op_num_threads = request["threads"]
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", request["folder"])
    model = Path(request["model"]).read_bytes()
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    del model
    names = [f"{name}/{end}" for end in ("minimum", "maximum") for name in request["tensors"]]
    half = len(request["tensors"])
    ends = None
    for count, path in enumerate(request["samples"], start=1):
        with np.load(path, allow_pickle=False) as archive:
            found = session.run(names, dict(archive))
        low, high = np.concatenate(found[:half]), np.concatenate(found[half:])
        if ends is None:
            ends = (low.astype(np.float64), high.astype(np.float64))
        elif request["method"] == "moving-average":
            ends = (ends[0] + (low - ends[0]) / count, ends[1] + (high - ends[1]) / count)
        else:
            ends = (np.minimum(ends[0], low), np.maximum(ends[1], high))
    if ends is None:
        raise SystemExit("no samples")
    np.savez(request["output"], minimum=ends[0].astype(np.float32), maximum=ends[1].astype(np.float32))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_bytes()))
