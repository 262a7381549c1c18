"""Answers to sounds: the features of the model's own feature extractor, and PyTorch's answers to samples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ortc.build.context import Context
from ortc.build.file_answers import fitting, golden_files
from ortc.build.observation import model_key
from ortc.build.runner import Done
from ortc.build.stage_results import Texts
from ortc.build.stages import SOUNDS
from ortc.bundle.answers import Answers
from ortc.common.arrays import write_arrays
from ortc.common.errors import StageError
from ortc.evaluation.answers import TextAnswer
from ortc.frontend.samples.odd_sounds import Lengths, odd_sounds, plain_sounds
from ortc.passes.canonical import Exported
from ortc.plan.audio_processing import AudioProcessing, LogMel
from ortc.plan.plan import AxisPlan, InputPlan
from ortc.plan.processing import AnswerForm, Processing
from ortc.plan.texts import MASK, WAVE

WAY_OUT = "`interface: tensors` in `model` builds a bundle of the model's tensors, without sounds"
DOCUMENT, FEATURES_FILE = "sounds.json", "features.npz"
GOLDEN_ODD = ("pcm-24.wav", "float-32.wav", "channels-2.wav", "rate-8000.wav", "rate-44100.wav")
"""Odd sounds that travel with a bundle: they show forms, channels and resampling, and cost no run."""
FRAME, HOP = 400, 160
"""Samples of a frame of a spectrogram, and between the beginnings of two."""


def build_audio_answers(context: Context, form: AnswerForm, exported: Exported) -> Answers:
    """Read the model's own feature extractor and its answers.

    Raises:
        StageError: what a sound becomes cannot be reproduced.
    """
    _check_inputs(exported.inputs)
    done = _reference_sounds(context, form, exported)
    # A dry run and a comparison may have no files: no key depends on what they hold.
    place = done.files.get(DOCUMENT)
    content: dict[str, Any] = {"odd": [], "samples": []}
    if place is not None and place.is_file():
        content = json.loads(place.read_bytes())
    rows = [{**row, "path": str(done.files[row["file"]])} for row in (*content["samples"], *content["odd"])]
    samples = rows[: len(content["samples"])]
    return Answers(
        processing=done.result.processing,
        tokenizer=None,
        golden=tuple(golden_sounds(rows, form, done.files[FEATURES_FILE])) if rows else (),
        judged=tuple(
            TextAnswer(text=row["path"], name=row["name"], answer=row["answer"], kind=form.kind, unit="sounds")
            for row in samples
        ),
        odd=tuple(rows),
        key=done.key,
        features=done.files.get(FEATURES_FILE),
    )


def golden_sounds(rows: Sequence[dict[str, Any]], form: AnswerForm, file: Path) -> list[dict[str, Any]]:
    """Sounds that travel with a bundle: a few samples with answers, and odd ones with features alone."""
    return golden_files(rows, form, file, ("audio", "features"), GOLDEN_ODD)


def _check_inputs(inputs: Sequence[InputPlan]) -> None:
    """Check that sounds give everything that the model takes.

    Raises:
        StageError: they do not.
    """
    if other := sorted({tensor.name for tensor in inputs} - {WAVE, MASK}):
        raise StageError(f"the model takes `{other[0]}`, which no sound gives", help=WAY_OUT)


def lengths_of(audio: AudioProcessing, inputs: Sequence[InputPlan], axes: Sequence[AxisPlan]) -> Lengths:
    """How many samples of a sound a model takes, at its rate.

    Raises:
        StageError: its input is of another shape than its feature extractor makes.
    """
    shape = next(tensor.shape for tensor in inputs if tensor.name == WAVE)
    made = 3 if isinstance(audio.features, LogMel) else 2
    if len(shape) != made:
        raise StageError(
            f"the model takes `{WAVE}` of the shape {list(shape)}, and its feature extractor makes {made} dimensions",
            help=WAY_OUT,
        )
    if isinstance(audio.features, LogMel):
        return Lengths(audio.rate, FRAME, (audio.features.frames - 1) * HOP + FRAME)
    if isinstance(shape[1], int):
        return Lengths(audio.rate, shape[1], shape[1])
    axis = next(axis for axis in axes if axis.name == shape[1])
    return Lengths(audio.rate, axis.min, axis.max, axis.multiple_of)


def _reference_sounds(context: Context, form: AnswerForm, exported: Exported) -> Done[Texts]:
    """The settings of the model's own feature extractor, with features of sounds, and answers to samples."""
    plan = context.plan
    inputs = {
        "model": model_key(context),
        "interface": plan.export.model_dump(mode="json", include={"axes", "inputs", "outputs"}),
        "inputs": [tensor.model_dump(mode="json") for tensor in exported.inputs],
        "form": form.model_dump(mode="json"),
    }

    def work(output: Path) -> Texts:
        worker = context.reference.worker()
        names = [tensor.name for tensor in exported.inputs]
        processing = Processing.model_validate(worker.call("sounds", form=inputs["form"], inputs=names)["processing"])
        lengths = lengths_of(_audio(processing), exported.inputs, plan.export.axes)
        samples = plain_sounds(lengths)
        files = (*samples, *odd_sounds(lengths))
        rows = [{"name": file.name, "file": f"sound-{index}"} for index, file in enumerate(files)]
        for row, file in zip(rows, files, strict=True):
            (output / row["file"]).write_bytes(file.content)
        placed = [{**row, "path": str(output / row["file"])} for row in rows]
        shape, scratch = next(tensor.shape for tensor in exported.inputs if tensor.name == WAVE), output / FEATURES_FILE
        kept, features = fitting(worker, "features", scratch, placed, len(samples), shape, plan.export.axes, WAY_OUT)
        chosen = [place for place in kept if place < len(samples)]
        if not chosen:
            raise StageError("no sample sound has a length that the model takes", help="raise the bounds of `samples`")
        answers = worker.call("sound_answers", files=[placed[place]["path"] for place in chosen])["answers"]
        write_arrays(output / FEATURES_FILE, {str(index): features[place] for index, place in enumerate(kept)})
        content = {
            "samples": [{**rows[place], "answer": answer} for place, answer in zip(chosen, answers, strict=True)],
            "odd": [rows[place] for place in kept if place >= len(samples)],
        }
        (output / DOCUMENT).write_text(json.dumps(content), "utf-8")
        return Texts(processing=processing)

    return context.run(SOUNDS.action(plan.name, inputs), work)


def _audio(processing: Processing) -> AudioProcessing:
    if processing.audio is None:
        raise AssertionError(processing)
    return processing.audio
