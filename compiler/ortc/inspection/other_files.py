"""Files that are no model that ortc builds, by their suffix, and what to do with each."""

from __future__ import annotations

from pathlib import Path

from ortc.inspection.torch_script import is_torchscript

_PICKLE = (
    "is a pickle, which runs code when it is read: convert a model of scikit-learn with `skl2onnx.to_onnx(model, X)`, "
    "or save a PyTorch model's state dict with safetensors, and inspect what you get"
)
_WEIGHTS = (
    "holds weights without the module that they belong to: write a function that builds the module, inspect it with "
    "`ortc init module:function`, and name this file in `weights`"
)
_TORCHSCRIPT = "is TorchScript: write a function that returns `torch.jit.load(path)`, and inspect `module:function`"
_TENSORFLOW = "is a model of TensorFlow: convert it with `python -m tf2onnx.convert`, and inspect the .onnx file"
_PADDLE = "is a model of Paddle: convert it with paddle2onnx, and inspect the .onnx file"
_COMPILED = "was compiled for one runtime already: inspect the model that it was made from"
_WAYS_OUT = {
    **dict.fromkeys((".pkl", ".pickle", ".joblib", ".dill"), _PICKLE),
    **dict.fromkeys((".safetensors", ".pt", ".pth", ".bin", ".ckpt"), _WEIGHTS),
    **dict.fromkeys((".jit", ".torchscript", ".ts"), _TORCHSCRIPT),
    **dict.fromkeys((".h5", ".keras", ".pb", ".tflite"), _TENSORFLOW),
    **dict.fromkeys((".pdmodel", ".pdiparams"), _PADDLE),
    **dict.fromkeys((".gguf", ".engine", ".plan", ".ort", ".xml", ".mlmodel"), _COMPILED),
}


def way_out(path: Path) -> str:
    """What a file is, by its suffix and whether it is TorchScript, and what to do with it."""
    if is_torchscript(path):
        return _TORCHSCRIPT
    return _WAYS_OUT.get(path.suffix.lower(), "is neither a directory nor an .onnx or .pt2 file")
