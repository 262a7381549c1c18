"""A tiny model of sounds in PyTorch with its own feature extractor, and the processing of its bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tests.support.bundles import runtime_module
from tests.support.make_audio_models import LENGTHS

from ortc.frontend.reference import huggingface
from ortc.frontend.reference.audio import ReferenceAudio
from ortc.frontend.reference.model import Reference
from ortc.inspection.repository import of_directories
from ortc.plan.plan import AxisPlan, ExportPlan
from ortc.plan.texts import answer_form
from ortc.spec.model_sources import HuggingFaceSource

Document = dict[str, Any]
Change = Callable[[Document], object]
AXES = (
    AxisPlan(name="batch", min=1, typical=1, max=4),
    AxisPlan(name="samples", min=LENGTHS.least, typical=2000, max=LENGTHS.most),
)


def parts(place: Path, task: str) -> tuple[Reference, ReferenceAudio]:
    """The model in PyTorch with what follows it, and its own feature extractor."""
    source = HuggingFaceSource.model_validate({"source": "huggingface", "path": "model", "task": task})
    export = ExportPlan(opset=17, ir_version=8, exporter="auto", axes=AXES, inputs=None, outputs=None)
    reference = huggingface.load(source, place, export)
    form = answer_form(source, export, of_directories((place,)))
    assert form is not None
    return reference, ReferenceAudio(source, place, form, [tensor.name for tensor in reference.inputs])


def bundle_of(reference: Reference, own: ReferenceAudio, change: Change | None = None) -> Any:
    """The processing of a bundle, whose document may be changed before it is read."""
    document = own.processing.model_dump(mode="json", exclude_none=True)
    if change is not None:
        change(document)
    inputs = {tensor.name: (tensor.shape, np.dtype(tensor.dtype)) for tensor in reference.inputs}
    made = runtime_module("processing.answers").Processing
    bounds = {axis.name: (axis.min, axis.max, axis.multiple_of) for axis in AXES}
    return made(document, None, inputs, bounds, together=True)
