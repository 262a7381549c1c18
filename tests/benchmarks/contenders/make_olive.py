"""Olive by a workflow file, where its command does not do: `make_olive.py MODEL OUTPUT TASK PRECISION`.

The workflow is the one that `olive optimize` writes, but for two things. For int8 the command quantizes statically,
with a text data set of the hub and on CUDA; this quantizes dynamically. For a model without attention heads the
command's transformers pass fails; it is left out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import olive

IMAGES = {
    "input_names": ["pixel_values"],
    "input_shapes": [[2, 3, 224, 224]],
    "input_types": ["float32"],
    "output_names": ["logits"],
    "dynamic_axes": {"pixel_values": {"0": "batch"}},
}
"""Said, since its own guess is a fixed 64 x 64. With these axes its dynamo conversion fails; TorchScript takes them."""


def main() -> None:
    """Write the workflow and run it."""
    model, output, task, precision = sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    output.mkdir(parents=True, exist_ok=True)
    text = task != "image-classification"
    quantization = {"type": "OnnxDynamicQuantization", "precision": "int8", "per_channel": True}
    workflow = {
        "input_model": {
            "type": "HfModel",
            "model_path": model,
            "task": task,
            **({"load_kwargs": {"attn_implementation": "eager"}} if text else {"io_config": IMAGES}),
        },
        "systems": {
            "local_system": {
                "type": "LocalSystem",
                "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}],
            }
        },
        "target": "local_system",
        "passes": {
            "conversion": {"type": "OnnxConversion", "use_dynamo_exporter": text},
            "peephole": {"type": "OnnxPeepholeOptimizer"},
            **({"transformers": {"type": "OrtTransformersOptimization"}} if text else {}),
            **({"quantization": quantization} if precision == "int8" else {}),
        },
        "no_artifacts": True,
        "output_dir": str(output),
    }
    path = output / "workflow.json"
    path.write_text(json.dumps(workflow, indent=2) + "\n", "utf-8")
    olive.run(str(path))


if __name__ == "__main__":
    main()
