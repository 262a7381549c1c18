"""Load a model of any source in PyTorch."""

from __future__ import annotations

from pathlib import Path

import torch

from ortc.common.errors import StageError
from ortc.frontend.reference.model import Reference
from ortc.plan.plan import ExportPlan, SourcePlan
from ortc.spec.model_sources import ExportedProgramSource, HuggingFaceSource, OnnxSource, PyTorchSource


def load(source: SourcePlan, directory: Path, root: Path, export: ExportPlan) -> Reference:
    """Load a model.

    Args:
        source: the plan's model source.
        directory: where the source's files were put, with the names that the source gives them.
        root: what the spec's relative paths and entry points resolve against.
        export: declared axes, inputs and outputs.

    Raises:
        StageError: the model cannot be loaded as declared.
    """

    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    match source:
        case HuggingFaceSource():
            from ortc.frontend.reference import huggingface

            return huggingface.load(source, directory, export)
        case PyTorchSource():
            from ortc.frontend.reference import custom

            return custom.load_module(source, directory, root, export)
        case ExportedProgramSource():
            from ortc.frontend.reference import custom

            return custom.load_program(source, directory, export)
        case OnnxSource():
            raise StageError("an ONNX source has no PyTorch reference; it is its own")
