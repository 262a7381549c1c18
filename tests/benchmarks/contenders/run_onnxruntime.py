"""ONNX Runtime on one ONNX file, by default with its default options.

`--option disable=A,B` names graph optimizers to leave out; `--option file=NAME` names the file in a directory.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from protocol import Arrays, Prepare, Run, main


def load(artifact: Path, threads: int, options: dict[str, str]) -> Prepare:
    """A session on the CPU."""
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    disabled = [name for name in options.get("disable", "").split(",") if name]
    session = ort.InferenceSession(
        artifact / options.get("file", "model.onnx"),
        settings,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=disabled or None,
    )
    wanted = [entry.name for entry in session.get_inputs()]
    output = session.get_outputs()[0].name

    def prepare(arrays: Arrays) -> Run:
        feeds = {name: arrays.get(name) for name in wanted}
        if feeds.get("token_type_ids", 0) is None:
            feeds["token_type_ids"] = np.zeros_like(arrays["input_ids"])
        return lambda: session.run([output], feeds)[0]

    return prepare


if __name__ == "__main__":
    main(load)
