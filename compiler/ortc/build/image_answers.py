"""Answers to images: the pixels of the model's own image processor, and PyTorch's answers to samples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ortc.build.context import Context
from ortc.build.file_answers import GOLDEN_ANSWERS, MOST_GOLDEN_BYTES, fitting, golden_files
from ortc.build.observation import model_key
from ortc.build.runner import Done
from ortc.build.stage_results import Texts
from ortc.build.stages import IMAGES
from ortc.bundle.answers import Answers
from ortc.common.arrays import write_arrays
from ortc.common.errors import StageError
from ortc.evaluation.answers import TextAnswer
from ortc.frontend.samples.images import pillow_version
from ortc.frontend.samples.odd_images import ImageFile, odd_images, plain_images, thumbnail
from ortc.frontend.samples.sources import samples_digest
from ortc.inspection.image_files import image_files
from ortc.passes.canonical import Exported
from ortc.plan.plan import InputPlan
from ortc.plan.processing import AnswerForm, Processing
from ortc.plan.texts import PIXEL_MASK, PIXELS

SAMPLE_IMAGES = 32
"""Most sample images that a variant is judged by."""
WAY_OUT = "`interface: tensors` in `model` builds a bundle of the model's tensors, without images"
DOCUMENT, PIXELS_FILE = "images.json", "pixels.npz"
GOLDEN_ODD = ("noise-53x37.png", "noise-260x5.png", "mode-RGBA.png", "mode-CMYK.jpg", "orientation-6.jpg")
"""Odd images that travel with a bundle: they show filters, channels, crops and orientations, and cost no run."""


def build_image_answers(context: Context, form: AnswerForm, exported: Exported) -> Answers:
    """Read the model's own image processor and its answers.

    Raises:
        StageError: what an image becomes cannot be reproduced.
    """
    _check_inputs(exported.inputs)
    done = _reference_images(context, form, exported)
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
        golden=tuple(golden_images(rows, form, done.files[PIXELS_FILE])) if rows else (),
        judged=tuple(
            TextAnswer(text=row["path"], name=row["name"], answer=row["answer"], kind=form.kind, unit="images")
            for row in samples
        ),
        odd=tuple(rows),
        key=done.key,
        features=done.files.get(PIXELS_FILE),
    )


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


def _reference_images(context: Context, form: AnswerForm, exported: Exported) -> Done[Texts]:
    """The steps of the model's own image processor, with pixels of images, and answers to samples."""
    plan = context.plan
    declared = plan.accuracy.samples
    directory = context.workspace.root / declared if isinstance(declared, str) else None
    given = directory if directory is not None and directory.is_dir() else None
    inputs = {
        "model": model_key(context),
        "interface": plan.export.model_dump(mode="json", include={"axes", "inputs", "outputs"}),
        "inputs": [tensor.model_dump(mode="json") for tensor in exported.inputs],
        "form": form.model_dump(mode="json"),
        "samples": None if given is None else samples_digest(str(declared), context.workspace.root),
        "split": plan.calibrates,
        "pillow": pillow_version(),
    }

    def work(output: Path) -> Texts:
        worker = context.reference.worker()
        names = [tensor.name for tensor in exported.inputs]
        made = worker.call("images", form=inputs["form"], inputs=names)
        samples = plain_images() if given is None else sample_images(given, halved=plan.calibrates)
        files = (*samples, *odd_images())
        rows = [{"name": file.name, "file": f"image-{index}"} for index, file in enumerate(files)]
        for row, file in zip(rows, files, strict=True):
            (output / row["file"]).write_bytes(file.content)
        placed = [{**row, "path": str(output / row["file"])} for row in rows]
        shape, axes = next(tensor.shape for tensor in exported.inputs if tensor.name == PIXELS), plan.export.axes
        scratch = output / PIXELS_FILE
        kept, pixels = fitting(worker, "pixels", scratch, placed, len(samples), shape, axes, WAY_OUT)
        chosen = [place for place in kept if place < len(samples)]
        if not chosen:
            raise StageError(
                "no sample image has a size that the model takes",
                help="name other images in `accuracy.samples`, or raise the bounds of `height` and `width`",
            )
        paths = [placed[place]["path"] for place in chosen]
        answers = worker.call("image_answers", images=paths)["answers"]
        write_arrays(output / PIXELS_FILE, {str(index): pixels[place] for index, place in enumerate(kept)})
        content = {
            "samples": [{**rows[place], "answer": answer} for place, answer in zip(chosen, answers, strict=True)],
            "odd": [rows[place] for place in kept if place >= len(samples)],
        }
        (output / DOCUMENT).write_text(json.dumps(content), "utf-8")
        return Texts(processing=Processing.model_validate(made["processing"]))

    return context.run(IMAGES.action(plan.name, inputs), work)


def sample_images(directory: Path, *, halved: bool) -> tuple[ImageFile, ...]:
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
    files = [ImageFile(path.relative_to(directory).as_posix(), path.read_bytes()) for path in chosen]
    if any(len(file.content) <= MOST_GOLDEN_BYTES for file in files):
        return tuple(files)
    small = [ImageFile(f"{file.name} (small)", thumbnail(file.content)) for file in files[: 2 * GOLDEN_ANSWERS]]
    return (*files, *small)


def golden_images(rows: Sequence[dict[str, Any]], form: AnswerForm, file: Path) -> list[dict[str, Any]]:
    """Images that travel with a bundle: a few samples with answers, and odd ones with pixels alone."""
    return golden_files(rows, form, file, ("image", "pixels"), GOLDEN_ODD)
