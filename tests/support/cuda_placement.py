"""`python cuda_placement.py MODEL.onnx ...`: where a session with the CUDA provider places each node, as JSON.

Runs in a process of its own, whose LD_LIBRARY_PATH has stand-ins for NVIDIA's libraries (targets/stand_in.py): the
session is made, and nothing is run. Each answer is {"CUDAExecutionProvider": {operator: count}, ...}, or null where
ONNX Runtime refuses the model.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as state

PROVIDERS = ["CUDAExecutionProvider", "CPUExecutionProvider"]


def placed(model: Path) -> dict[str, dict[str, int]] | None:
    """Operators, with their domain where it is not ONNX's, to the number of nodes, by provider."""
    options = ort.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        session = ort.InferenceSession(model, options, providers=PROVIDERS, enable_fallback=0)
    except (state.Fail, state.InvalidGraph, state.NotImplemented):
        return None
    # What lacks its library is left out of the list, and a CPU session would say nothing.
    if session.get_providers() != PROVIDERS:
        raise SystemExit(f"no CUDA provider: {session.get_providers()}")
    found: dict[str, dict[str, int]] = {}
    for part in session.get_provider_graph_assignment_info():
        counts = Counter(f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in part.get_nodes())
        found[part.ep_name] = dict(Counter(found.get(part.ep_name, {})) + counts)
    return found


if __name__ == "__main__":
    ort.set_default_logger_severity(4)
    sys.stdout.write(json.dumps([placed(Path(name)) for name in sys.argv[1:]]) + "\n")
