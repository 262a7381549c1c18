"""OpenVINO's own runtime on its IR; `--option precision=f32` or `bf16`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from protocol import Arrays, Prepare, Run, main


def load(artifact: Path, threads: int, options: dict[str, str]) -> Prepare:
    """A compiled model with one request, tuned for latency."""
    import openvino as ov

    # Without the hint the plugin takes bf16 on its own account where the processor has it.
    settings = {
        "INFERENCE_PRECISION_HINT": options["precision"],
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = ov.Core().compile_model(artifact / "model.xml", "CPU", settings)
    request = compiled.create_infer_request()
    names = [entry.get_any_name() for entry in compiled.inputs]

    def prepare(arrays: Arrays) -> Run:
        feeds = {name: arrays[name] for name in names}

        def run() -> np.ndarray[Any, Any]:
            request.infer(feeds, share_inputs=True)
            answer: np.ndarray[Any, Any] = request.get_output_tensor(0).data.copy()
            return answer

        return run

    return prepare


if __name__ == "__main__":
    main(load)
