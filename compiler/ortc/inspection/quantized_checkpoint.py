"""Checkpoints whose weights are quantized already, by what their configuration says."""

from __future__ import annotations

from ortc.inspection.repository import Repository

METHODS = {
    "compressed-tensors": "compressed-tensors",
    "gptq": "GPTQ",
    "awq": "AWQ",
    "bitsandbytes": "bitsandbytes",
    "bitsandbytes_4bit": "bitsandbytes",
    "bitsandbytes_8bit": "bitsandbytes",
    "torchao": "torchao",
}
"""Names of transformers' `quant_method`, with those that people know."""
HELP = (
    "name the float32, float16 or bfloat16 checkpoint that it was made from, and ortc quantizes it for each target. "
    "Without one, save what transformers' `model.dequantize()` gives, which stays as inexact as these weights"
)


def quantization_of(repository: Repository) -> str | None:
    """Name the method that the weights of a repository are quantized with; None where they are not."""
    config = repository.mapping("config.json")
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    for part in parts:
        declared = part.get("quantization_config") or part.get("compression_config")
        if isinstance(declared, dict):
            method = declared.get("quant_method")
            if method is None and {"load_in_4bit", "load_in_8bit"} & declared.keys():
                method = "bitsandbytes"
            # A method without a name is one all the same: nothing here reads its weights.
            return METHODS.get(str(method), "an unnamed method" if method is None else str(method))
    return None
