"""Answers to sounds: which a model of sounds is asked about, and by what it is judged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ortc.build.context import Context
from ortc.build.file_answers import Files, FileSource, answers_of_files, key_of_files, read_files
from ortc.build.stage_results import Texts
from ortc.build.stages import SOUNDS
from ortc.bundle.answers import Answers
from ortc.common.errors import StageError
from ortc.frontend.samples.odd_sounds import Lengths, odd_sounds, plain_sounds
from ortc.passes.canonical import Exported
from ortc.plan.audio_processing import AudioProcessing, LogMel
from ortc.plan.plan import AxisPlan, InputPlan
from ortc.plan.processing import AnswerForm, Processing
from ortc.plan.texts import MASK, WAVE

WAY_OUT = "`interface: tensors` in `model` builds a bundle of the model's tensors, without sounds"
FRAME, HOP = 400, 160
"""Samples of a frame of a spectrogram, and between the beginnings of two."""


SOUND_FILES = FileSource(
    takes="audio",
    tensor=WAVE,
    # They show forms, channels and resampling, and cost no run.
    odd=("pcm-24.wav", "float-32.wav", "channels-2.wav", "rate-8000.wav", "rate-44100.wav"),
    way_out="raise the bounds of `samples`",
)


def build_audio_answers(context: Context, form: AnswerForm, exported: Exported) -> Answers:
    """Read the model's own feature extractor and its answers.

    Raises:
        StageError: what a sound becomes cannot be reproduced.
    """
    _check_inputs(exported.inputs)
    plan = context.plan

    def files_for(processing: Processing) -> Files:
        lengths = lengths_of(_audio(processing), exported.inputs, plan.export.axes)
        return plain_sounds(lengths), odd_sounds(lengths)

    def work(output: Path) -> Texts:
        return read_files(context, form, exported, SOUND_FILES, output, files_for)

    done = context.run(SOUNDS.action(plan.name, key_of_files(context, form, exported)), work)
    return answers_of_files(done, form, SOUND_FILES)


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


def _audio(processing: Processing) -> AudioProcessing:
    if processing.audio is None:
        raise AssertionError(processing)
    return processing.audio
