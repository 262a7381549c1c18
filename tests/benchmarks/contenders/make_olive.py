"""Olive's dynamic quantization: `make_olive.py MODEL OUTPUT TASK` runs its passes by a workflow file.

`olive optimize --precision int8` quantizes statically, with a text data set of the hub and on CUDA; the workflow is the
one that the command writes, with OnnxDynamicQuantization in the place of that pass.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import olive


def main() -> None:
    """Write the workflow and run it."""
    model, output, task = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    output.mkdir(parents=True, exist_ok=True)
    workflow = {
        "input_model": {
            "type": "HfModel",
            "model_path": model,
            "task": task,
            "load_kwargs": {"attn_implementation": "eager"},
        },
        "systems": {
            "local_system": {
                "type": "LocalSystem",
                "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}],
            }
        },
        "target": "local_system",
        "passes": {
            "conversion": {"type": "OnnxConversion", "use_dynamo_exporter": True},
            "peephole": {"type": "OnnxPeepholeOptimizer"},
            "transformers": {"type": "OrtTransformersOptimization"},
            "quantization": {"type": "OnnxDynamicQuantization", "precision": "int8", "per_channel": True},
        },
        "no_artifacts": True,
        "output_dir": str(output),
    }
    path = output / "workflow.json"
    path.write_text(json.dumps(workflow, indent=2) + "\n", "utf-8")
    olive.run(str(path))


if __name__ == "__main__":
    main()
