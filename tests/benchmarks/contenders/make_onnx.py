"""The hand-made exports: `make_onnx.py MODEL OUTPUT [int8]`: dynamo, eager attention, weights beside the graph.

`int8` is onnxruntime's dynamic quantization: QInt8 weights with a scale a channel.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from models import load_model, task_of


class Main(torch.nn.Module):
    """The model with positional inputs and its main output alone."""

    def __init__(self, model: torch.nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.model(**dict(zip(self.names, inputs, strict=True)))[0]


def export(directory: Path, output: Path) -> None:
    """Write OUTPUT with dynamic batch (and sequence)."""
    batch = torch.export.Dim("batch", min=1, max=16)
    if task_of(directory) == "image-classification":
        names = ["pixel_values"]
        examples = (torch.randn(2, 3, 224, 224),)
        shapes = ({0: batch},)
    else:
        names = ["input_ids", "attention_mask"]
        sequence = torch.export.Dim("sequence", min=2, max=512)
        # Distinct tensors of sizes above one: an exporter merges equal inputs and fixes axes of size one.
        examples = (torch.randint(0, 1000, (2, 16)), torch.ones(2, 16, dtype=torch.int64))
        shapes = ({0: batch, 1: sequence},) * 2
    model = Main(load_model(directory, attention="eager"), names).eval()
    program = torch.onnx.export(
        model,
        examples,
        input_names=names,
        output_names=["output"],
        dynamic_shapes=(shapes,),
        opset_version=20,
        dynamo=True,
        verbose=False,
    )
    program.save(output, external_data=True)


def main() -> None:
    """Export, and quantize when asked."""
    directory, output = Path(sys.argv[1]), Path(sys.argv[2])
    output.mkdir(parents=True, exist_ok=True)
    if sys.argv[3:] != ["int8"]:
        export(directory, output / "model.onnx")
        return
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    export(directory, output / "fp32.onnx")
    model = onnx.load(output / "fp32.onnx")
    # Shapes inferred before quantization no longer hold after it.
    del model.graph.value_info[:]
    quantize_dynamic(model, output / "model.onnx", per_channel=True, weight_type=QuantType.QInt8)
    for path in output.glob("fp32.onnx*"):
        path.unlink()


if __name__ == "__main__":
    main()
