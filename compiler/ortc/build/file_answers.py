"""Answers to images and sounds: what the model's own processor makes of them, and PyTorch's answers to samples."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ortc.build.context import Context
from ortc.build.observation import model_key
from ortc.build.runner import Done
from ortc.build.stage_results import Texts
from ortc.bundle.answers import Answers
from ortc.common.arrays import Array, read_arrays, write_arrays
from ortc.common.errors import StageError
from ortc.evaluation.agreement import certainty, gate_of_kind
from ortc.evaluation.answers import TextAnswer
from ortc.execution.worker import Worker
from ortc.frontend.samples.named_file import NamedFile
from ortc.passes.canonical import Exported
from ortc.plan.plan import AxisPlan
from ortc.plan.processing import MEDIA, UNITS, AnswerForm, Processing, Takes

GOLDEN_ANSWERS = 3
MOST_GOLDEN_BYTES = 2**16
GOLDEN_VALUES = 997
"""About as many values of a golden file are recorded."""
DOCUMENT, ARRAYS_FILE = "files.json", "arrays.npz"
Rows = Sequence[dict[str, Any]]
"""Files with their `name`, their `path`, and of samples the `answer`."""
Files = tuple[Sequence[NamedFile], Sequence[NamedFile]]
"""Samples, and odd files."""


@dataclass(frozen=True)
class FileSource:
    """How files of one kind become answers.

    Attributes:
        takes: what they are.
        tensor: the input that they become.
        odd: names of odd files that travel with a bundle.
        way_out: what to do where no sample fits the model.
    """

    takes: Takes
    tensor: str
    odd: tuple[str, ...]
    way_out: str


def key_of_files(context: Context, form: AnswerForm, exported: Exported) -> dict[str, Any]:
    """Everything that decides what files become and what is answered, besides the files."""
    return {
        "model": model_key(context),
        "interface": context.plan.export.model_dump(mode="json", include={"axes", "inputs", "outputs"}),
        "inputs": [tensor.model_dump(mode="json") for tensor in exported.inputs],
        "form": form.model_dump(mode="json"),
    }


def read_files(
    context: Context,
    form: AnswerForm,
    exported: Exported,
    source: FileSource,
    output: Path,
    files_for: Callable[[Processing], Files],
) -> Texts:
    """Write files with what the model's own processor makes of them, and answers to samples.

    Args:
        context: of the build.
        form: how the bundle answers.
        exported: with the inputs of the graph.
        source: of the files.
        output: the directory that is written to.
        files_for: the files, by what the processor does.

    Raises:
        StageError: what a file becomes cannot be reproduced, or no sample fits the model.
    """
    worker = context.reference.worker()
    names = [tensor.name for tensor in exported.inputs]
    made = worker.call("files", takes=source.takes, form=form.model_dump(mode="json"), inputs=names)
    processing = Processing.model_validate(made["processing"])
    samples, odd = files_for(processing)
    rows = [{"name": file.name, "file": f"{source.takes}-{index}"} for index, file in enumerate((*samples, *odd))]
    for row, file in zip(rows, (*samples, *odd), strict=True):
        (output / row["file"]).write_bytes(file.content)
    placed = [{**row, "path": str(output / row["file"])} for row in rows]
    shape = next(tensor.shape for tensor in exported.inputs if tensor.name == source.tensor)
    axes = context.plan.export.axes
    kept, arrays = _fitting(worker, output / ARRAYS_FILE, placed, len(samples), shape, axes)
    chosen = [place for place in kept if place < len(samples)]
    if not chosen:
        word = MEDIA[source.takes].file
        raise StageError(f"no sample {word} has a size that the model takes", help=source.way_out)
    answers = worker.call("file_answers", files=[placed[place]["path"] for place in chosen])["answers"]
    write_arrays(output / ARRAYS_FILE, {str(index): arrays[place] for index, place in enumerate(kept)})
    content = {
        "samples": [{**rows[place], "answer": answer} for place, answer in zip(chosen, answers, strict=True)],
        "odd": [rows[place] for place in kept if place >= len(samples)],
    }
    (output / DOCUMENT).write_text(json.dumps(content), "utf-8")
    return Texts(processing=processing)


def answers_of_files(done: Done[Texts], form: AnswerForm, source: FileSource) -> Answers:
    """What bundles have around their tensors, by what `read_files` wrote."""
    # A dry run and a comparison may have no files: no key depends on what they hold.
    place = done.files.get(DOCUMENT)
    content: dict[str, Any] = {"odd": [], "samples": []}
    if place is not None and place.is_file():
        content = json.loads(place.read_bytes())
    rows = [{**row, "path": str(done.files[row["file"]])} for row in (*content["samples"], *content["odd"])]
    samples, unit = rows[: len(content["samples"])], UNITS[source.takes]
    return Answers(
        processing=done.result.processing,
        tokenizer=None,
        golden=tuple(golden_files(rows, form, done.files[ARRAYS_FILE], source.takes, source.odd)) if rows else (),
        judged=tuple(
            TextAnswer(text=row["path"], name=row["name"], answer=row["answer"], kind=form.kind, unit=unit)
            for row in samples
        ),
        odd=tuple(rows),
        key=done.key,
        features=done.files.get(ARRAYS_FILE),
    )


def _fitting(
    worker: Worker, scratch: Path, rows: Rows, samples: int, shape: Sequence[str | int], axes: Sequence[AxisPlan]
) -> tuple[list[int], dict[int, Array]]:
    """Places of the files that become arrays which the model takes, and these arrays.

    Args:
        worker: the process of the model.
        scratch: the file that arrays are written to.
        rows: the files; the first `samples` are samples, of which each has to become an array.
        samples: how many samples there are.
        shape: of the model's input, whose first axis is of files.
        axes: the declared axes.

    Raises:
        StageError: the model's own code fails on a sample.
    """
    refused = worker.call("arrays", files=[str(row["path"]) for row in rows], outputs=str(scratch))["refused"]
    for place, reason in refused.items():
        if int(place) < samples:
            name = rows[int(place)]["name"]
            raise StageError(
                f"the model's own processor fails on `{name}`: {reason}",
                help="`interface: tensors` in `model` builds a bundle of the model's tensors alone",
            )
    arrays = {int(place): array for place, array in read_arrays(scratch).items()}
    bounds = {axis.name: axis for axis in axes}

    def fits(size: int, entry: str | int) -> bool:
        if isinstance(entry, int):
            return size == entry
        axis = bounds[entry]
        return axis.min <= size <= axis.max and size % axis.multiple_of == 0

    kept = [
        place
        for place, array in arrays.items()
        if array.ndim == len(shape) - 1
        and all(fits(size, entry) for size, entry in zip(array.shape, shape[1:], strict=True))
    ]
    return kept, arrays


def golden_files(rows: Rows, form: AnswerForm, file: Path, takes: Takes, odd: Sequence[str]) -> list[dict[str, Any]]:
    """Files that travel with a bundle: a few samples with answers, and odd ones with their arrays alone.

    Where answers agree or not, the surest are taken: an answer near another one may change at reduced precision.

    Args:
        rows: the files.
        form: how the bundle answers.
        file: what the files become, by their places.
        takes: what the bundle takes.
        odd: names of odd files that travel.
    """
    arrays = read_arrays(file)
    small = [
        index
        for index, row in enumerate(rows)
        if "answer" in row and Path(row["path"]).stat().st_size <= MOST_GOLDEN_BYTES
    ]
    if gate_of_kind(form.kind) is not None:
        small.sort(key=lambda index: -certainty(form.kind, rows[index]["answer"]))
    strange = [index for index, row in enumerate(rows) if row["name"] in odd]
    return [
        {
            "name": rows[index]["name"],
            takes: base64.b64encode(Path(rows[index]["path"]).read_bytes()).decode("ascii"),
            MEDIA[takes].made: _recorded(arrays[str(index)]),
            "answer": rows[index].get("answer"),
        }
        for index in (*small[:GOLDEN_ANSWERS], *strange)
    ]


def _recorded(values: Array) -> dict[str, Any]:
    """Every so many values, by an odd step, so that all rows and columns have some."""
    step = max(1, values.size // GOLDEN_VALUES) | 1
    chosen = np.asarray(values, np.float32).ravel()[::step]
    return {"shape": list(values.shape), "step": step, "values": [float(value) for value in chosen]}
