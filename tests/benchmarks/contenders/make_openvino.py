"""OpenVINO's own route from PyTorch: `make_openvino.py MODEL OUTPUT`; weights stay fp32 in the file."""

from __future__ import annotations

import sys
from pathlib import Path

import openvino as ov
import torch
from models import load_model, task_of


def main() -> None:
    """Convert and save the IR."""
    directory, output = Path(sys.argv[1]), Path(sys.argv[2])
    output.mkdir(parents=True, exist_ok=True)
    model = load_model(directory, attention="sdpa")
    model.config.return_dict = False
    if task_of(directory) == "image-classification":
        examples = {"pixel_values": torch.randn(2, 3, 224, 224)}
        shapes = {"pixel_values": [-1, 3, 224, 224]}
    else:
        examples = {
            "input_ids": torch.randint(0, 1000, (2, 16)),
            "attention_mask": torch.ones(2, 16, dtype=torch.int64),
        }
        shapes = {name: [-1, -1] for name in examples}
    converted = ov.convert_model(model, example_input=examples)
    converted.reshape({name: ov.PartialShape(shape) for name, shape in shapes.items()})
    ov.save_model(converted, output / "model.xml", compress_to_fp16=False)


if __name__ == "__main__":
    main()
