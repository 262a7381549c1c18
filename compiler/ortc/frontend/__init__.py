"""The way from a trained model to the canonical ONNX graph and its reference answers."""
