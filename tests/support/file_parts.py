"""A tiny model of images or sounds in PyTorch with its own processor, and the processing of its bundle."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from tests.support.answering import answered, runner
from tests.support.bundles import runtime_module
from tests.support.make_audio_models import LENGTHS
from tests.support.plans import accuracy

from ortc.build.answer_proof import check_arrays, check_graph
from ortc.build.audio_answers import SOUND_FILES
from ortc.build.file_answers import golden_files
from ortc.build.image_answers import IMAGE_FILES
from ortc.common.arrays import Array, write_arrays
from ortc.evaluation.answers import TextAnswer, compare_answers
from ortc.frontend.reference import huggingface
from ortc.frontend.reference.audio import ReferenceAudio
from ortc.frontend.reference.images import ReferenceImages
from ortc.frontend.reference.model import Reference
from ortc.frontend.samples.named_file import NamedFile
from ortc.inspection.repository import of_directories
from ortc.plan.plan import AxisPlan, ExportPlan
from ortc.plan.processing import MEDIA, UNITS, Takes
from ortc.plan.texts import answer_form
from ortc.spec.model_sources import HuggingFaceSource

Document = dict[str, Any]
Change = Callable[[Document], object]
Processor_co = TypeVar("Processor_co", bound=ReferenceImages | ReferenceAudio, covariant=True)
BATCH = AxisPlan(name="batch", min=1, typical=1, max=4)
SAMPLES = AxisPlan(name="samples", min=LENGTHS.least, typical=2000, max=LENGTHS.most)


@dataclass(frozen=True)
class Parts(Generic[Processor_co]):
    """A model with its own processor of files."""

    takes: Takes
    reference: Reference
    own: Processor_co
    axes: tuple[AxisPlan, ...]

    def bundle(self, change: Change | None = None) -> Any:
        """The processing of a bundle, whose document may be changed before it is read."""
        document = self.own.processing.model_dump(mode="json", exclude_none=True)
        if change is not None:
            change(document)
        inputs = {tensor.name: (tensor.shape, np.dtype(tensor.dtype)) for tensor in self.reference.inputs}
        bounds = {axis.name: (axis.min, axis.max, axis.multiple_of) for axis in self.axes}
        return runtime_module("processing.answers").Processing(document, None, inputs, bounds, together=True)


def image_parts(place: Path, task: str) -> Parts[ReferenceImages]:
    """A model of images."""
    return _parts(place, task, "image", (BATCH,), ReferenceImages)


def sound_parts(place: Path, task: str) -> Parts[ReferenceAudio]:
    """A model of sounds."""
    return _parts(place, task, "audio", (BATCH, SAMPLES), ReferenceAudio)


def _parts(
    place: Path,
    task: str,
    takes: Takes,
    axes: tuple[AxisPlan, ...],
    processor: type[Processor_co],
) -> Parts[Processor_co]:
    source = HuggingFaceSource.model_validate({"source": "huggingface", "path": "model", "task": task})
    export = ExportPlan(opset=17, ir_version=8, exporter="auto", axes=axes, inputs=None, outputs=None)
    reference = huggingface.load(source, place, export)
    form = answer_form(source, export, of_directories((place,)))
    assert form is not None
    return Parts(takes, reference, processor(source, place, form, [tensor.name for tensor in reference.inputs]), axes)


@contextmanager
def gradients_as_they_are() -> Iterator[None]:
    """Loading a model switches gradients off for the whole process."""
    with torch.inference_mode(False), torch.set_grad_enabled(torch.is_grad_enabled()):
        yield


@dataclass(frozen=True)
class Judged:
    """A model with what the build takes down of it, from which a bundle is made and judged."""

    parts: Parts[ReferenceImages | ReferenceAudio]
    rows: list[dict[str, Any]]
    arrays: dict[str, Array]
    golden: list[dict[str, Any]]
    limits: dict[str, float]

    def build(self, bundle: Any) -> None:
        """What the build proves of a bundle, with PyTorch in the place of the exported graph."""
        found, refused = {}, {}
        for index, row in enumerate(self.rows):
            try:
                found[str(index)] = bundle.media.row(Path(row["path"]).read_bytes()).values
            except runtime_module("loading.errors").InputError as error:
                refused[str(index)] = str(error)
        self.check_arrays(found, refused)
        judged = [
            TextAnswer(
                text=row["path"], name=row["name"], answer=row["answer"], kind=bundle.kind, unit=UNITS[self.parts.takes]
            )
            for row in self.rows
            if "answer" in row
        ]
        files = [Path(str(entry.text)).read_bytes() for entry in judged]
        check_graph(compare_answers(judged, answered(bundle, self.parts.reference, files)), accuracy())

    def check_arrays(self, found: dict[str, Array], refused: dict[str, str]) -> None:
        """What the build proves of pixels or features."""
        check_arrays(MEDIA[self.parts.takes], [row["name"] for row in self.rows], self.arrays, found, refused)

    def self_test(self, bundle: Any, place: Path) -> None:
        """What the loader checks at every start."""
        path = place / "answers.json"
        path.write_text(json.dumps({"format_version": 1, "cases": self.golden}), "utf-8")
        runtime_module("processing.golden").check(bundle, path, self.limits, runner(self.parts.reference))


def judged(
    root: Path, parts: Parts[ReferenceImages | ReferenceAudio], plain: Sequence[NamedFile], odd: Sequence[NamedFile]
) -> Judged:
    """Take down what the processor makes of files, and what the model answers to the plain ones."""
    rows: list[dict[str, Any]] = []
    for index, file in enumerate((*plain, *odd)):
        (path := root / f"file-{index}").write_bytes(file.content)
        rows.append({"name": file.name, "path": str(path)})
    arrays = {str(index): parts.own.array(Path(row["path"])) for index, row in enumerate(rows)}
    write_arrays(root / "arrays.npz", arrays)
    answers = parts.own.answers([Path(row["path"]) for row in rows[: len(plain)]], parts.reference)
    for row, answer in zip(rows, answers, strict=False):
        row["answer"] = answer
    form, takes = parts.own.processing.answer, parts.takes
    names = (IMAGE_FILES if takes == "image" else SOUND_FILES).odd
    limits = {"cosine": 0.99999, "top1": 1.0, "token_errors": 0.0, MEDIA[takes].made: MEDIA[takes].most}
    return Judged(parts, rows, arrays, golden_files(rows, form, root / "arrays.npz", takes, names), limits)
