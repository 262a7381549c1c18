"""Passes from ONNX to ONNX: rewrites, fusion, half precision, placement."""
