"""Answers to images: which a model of images is asked about, and by what it is judged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ortc.build.context import Context
from ortc.build.file_answers import (
    GOLDEN_ANSWERS,
    MOST_GOLDEN_BYTES,
    FileSource,
    answers_of_files,
    key_of_files,
    read_files,
)
from ortc.build.stage_results import Texts
from ortc.build.stages import IMAGES
from ortc.bundle.answers import Answers
from ortc.common.errors import StageError
from ortc.frontend.samples.images import pillow_version
from ortc.frontend.samples.named_file import NamedFile
from ortc.frontend.samples.odd_images import odd_images, plain_images, thumbnail
from ortc.frontend.samples.sources import samples_digest
from ortc.inspection.image_files import image_files
from ortc.passes.canonical import Exported
from ortc.plan.plan import InputPlan
from ortc.plan.processing import AnswerForm
from ortc.plan.texts import PIXEL_MASK, PIXELS

SAMPLE_IMAGES = 32
"""Most sample images that a variant is judged by."""
WAY_OUT = "`interface: tensors` in `model` builds a bundle of the model's tensors, without images"


IMAGE_FILES = FileSource(
    takes="image",
    tensor=PIXELS,
    # They show filters, channels, crops and orientations, and cost no run.
    odd=("noise-53x37.png", "noise-260x5.png", "mode-RGBA.png", "mode-CMYK.jpg", "orientation-6.jpg"),
    way_out="name other images in `accuracy.samples`, or raise the bounds of `height` and `width`",
)


def build_image_answers(context: Context, form: AnswerForm, exported: Exported) -> Answers:
    """Read the model's own image processor and its answers.

    Raises:
        StageError: what an image becomes cannot be reproduced.
    """
    _check_inputs(exported.inputs)
    plan = context.plan
    declared = plan.accuracy.samples
    directory = context.workspace.root / declared if isinstance(declared, str) else None
    given = directory if directory is not None and directory.is_dir() else None
    inputs = {
        **key_of_files(context, form, exported),
        "samples": None if given is None else samples_digest(str(declared), context.workspace.root),
        "split": plan.calibrates,
        "pillow": pillow_version(),
    }

    def work(output: Path) -> Texts:
        samples = plain_images() if given is None else sample_images(given, halved=plan.calibrates)
        return read_files(context, form, exported, IMAGE_FILES, output, lambda _: (samples, odd_images()))

    return answers_of_files(context.run(IMAGES.action(plan.name, inputs), work), form, IMAGE_FILES)


def _check_inputs(inputs: Sequence[InputPlan]) -> None:
    """Check that images give everything that the model takes.

    Raises:
        StageError: they do not.
    """
    names = {tensor.name for tensor in inputs}
    if other := sorted(names - {PIXELS, PIXEL_MASK}):
        raise StageError(f"the model takes `{other[0]}`, which no image gives", help=WAY_OUT)
    pixels = next((tensor for tensor in inputs if tensor.name == PIXELS), None)
    # A comparison of two specs exports nothing, and knows of no input.
    if pixels is not None and (len(pixels.shape) != 4 or pixels.shape[1] != 3):
        raise StageError(
            f"the model takes pixels of the shape {list(pixels.shape)}, where images give [batch, 3, height, width]",
            help=WAY_OUT,
        )


def sample_images(directory: Path, *, halved: bool) -> tuple[NamedFile, ...]:
    """Return images of a directory that nothing is calibrated on, and small copies where all are too large to travel.

    Args:
        directory: the samples.
        halved: whether every other one is calibrated on.

    Raises:
        StageError: there is none.
    """
    found = image_files(directory)
    judged = found[::2] if halved and len(found) > 1 else found
    chosen = judged[:: max(1, len(judged) // SAMPLE_IMAGES)][:SAMPLE_IMAGES]
    files = [NamedFile(path.relative_to(directory).as_posix(), path.read_bytes()) for path in chosen]
    if any(len(file.content) <= MOST_GOLDEN_BYTES for file in files):
        return tuple(files)
    small = [NamedFile(f"{file.name} (small)", thumbnail(file.content)) for file in files[: 2 * GOLDEN_ANSWERS]]
    return (*files, *small)
