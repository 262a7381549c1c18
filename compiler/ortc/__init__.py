"""Compile trained PyTorch models into verified ONNX Runtime bundles."""

__version__ = "0.1.0"
