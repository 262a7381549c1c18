"""PyTorch, eager or compiled: `--option compile=1`. Attention is sdpa, the library's default and fastest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from protocol import Arrays, Prepare, Run, main


def load(artifact: Path, threads: int, options: dict[str, str]) -> Prepare:
    """The model of a directory in Hugging Face's format."""
    import torch
    from models import load_model

    torch.set_num_threads(threads)
    model = load_model(artifact, attention="sdpa")
    if options.get("compile") == "1":
        # Compiled for the exact shape: the best that it can do.
        model = torch.compile(model, dynamic=False)

    def prepare(arrays: Arrays) -> Run:
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}

        def run() -> np.ndarray[Any, Any]:
            with torch.inference_mode():
                answer: np.ndarray[Any, Any] = model(**tensors)[0].numpy()
                return answer

        return run

    return prepare


if __name__ == "__main__":
    main(load)
