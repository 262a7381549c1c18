"""Quantization of graphs, with and without calibration."""
