"""A model's own image processor and its answers to images, by transformers' pipelines where transformers has one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ortc.common.arrays import Array
from ortc.common.errors import StageError
from ortc.frontend.reference.answers import labelled_model
from ortc.frontend.reference.image_steps import HELP, steps_of
from ortc.frontend.reference.model import Reference
from ortc.inspection.image_files import FORMATS
from ortc.plan.image_processing import ImageProcessing
from ortc.plan.processing import AnswerForm, Kind, Processing
from ortc.plan.texts import PIXEL_MASK, PIXELS
from ortc.spec.model_sources import HuggingFaceSource

if TYPE_CHECKING:
    from PIL.Image import Image as ImageType


class ReferenceImages:
    """The model's own image processor, for images on Pillow.

    Args:
        source: the model's source.
        directory: the model's files.
        form: how the bundle answers.
        inputs: names of the model's inputs.

    Raises:
        StageError: transformers cannot load the processor, or what it does cannot be reproduced.
    """

    def __init__(self, source: HuggingFaceSource, directory: Path, form: AnswerForm, inputs: Sequence[str]) -> None:
        self.processor = load_processor(directory)
        image = ImageProcessing(
            input=PIXELS, mask=PIXEL_MASK if PIXEL_MASK in inputs else None, steps=steps_of(self.processor)
        )
        self.processing = Processing(task=source.task, image=image, answer=form)

    def array(self, path: Path) -> Array:
        """What the processor makes of a file, [3, height, width]."""
        found = self.processor(images=opened(path), return_tensors="np")
        values: Array = found[PIXELS][0]
        return values

    def answers(self, paths: Sequence[Path], reference: Reference) -> list[Any]:
        """What the model answers to every image by itself, as JSON has it."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _ANSWERS[self.processing.answer.kind](self, paths, reference)


def load_processor(directory: Path) -> Any:
    """Load the image processor of a model's files that works on Pillow.

    Raises:
        StageError: transformers cannot.
    """
    import transformers
    from PIL import EpsImagePlugin

    # Whoever opens an image here: none starts Ghostscript.
    EpsImagePlugin.gs_binary = False
    # transformers is untyped.
    auto: Any = transformers.AutoImageProcessor
    try:
        return auto.from_pretrained(directory, local_files_only=True, backend="pil", trust_remote_code=False)
    except Exception as error:
        # The code of any processor, over any configuration.
        raise StageError(
            f"the model's image processor cannot be made: {type(error).__name__}: {error}", help=HELP
        ) from error


def opened(path: Path) -> ImageType:
    """An image as transformers' pipelines read it: upright, in RGB."""
    from PIL import Image
    from transformers.image_utils import load_image

    # transformers is untyped, and leaves a file open that it opened.
    load: Callable[[Any], Any] = load_image
    with Image.open(path, formats=FORMATS) as image:
        found: Image.Image = load(image)
    return found


def _labels(images: ReferenceImages, paths: Sequence[Path], reference: Reference) -> list[Any]:
    import transformers

    form = images.processing.answer
    classify: Any = transformers.pipeline(
        "image-classification", model=labelled_model(form, reference), image_processor=images.processor
    )
    rows = [classify(opened(path), top_k=len(form.labels)) for path in paths]
    return [[{"label": entry["label"], "score": float(entry["score"])} for entry in row] for row in rows]


def _embedding(images: ReferenceImages, paths: Sequence[Path], reference: Reference) -> list[Any]:
    import numpy as np
    import transformers

    extract: Any = transformers.pipeline(
        "image-feature-extraction",
        model=labelled_model(images.processing.answer, reference),
        image_processor=images.processor,
    )
    return [np.asarray(extract(opened(path), pool=True)).ravel().tolist() for path in paths]


def _boxes(images: ReferenceImages, paths: Sequence[Path], reference: Reference) -> list[Any]:
    import transformers

    form = images.processing.answer
    detect: Any = transformers.pipeline(
        "object-detection", model=labelled_model(form, reference), image_processor=images.processor
    )
    return [detect(str(path), threshold=form.threshold) for path in paths]


def _segments(images: ReferenceImages, paths: Sequence[Path], reference: Reference) -> list[Any]:
    import transformers

    form = images.processing.answer
    divide: Any = transformers.pipeline(
        "image-segmentation", model=labelled_model(form, reference), image_processor=images.processor
    )
    return [[segment(entry) for entry in divide(str(path), subtask="semantic")] for path in paths]


def _depths(images: ReferenceImages, paths: Sequence[Path], reference: Reference) -> list[Any]:
    import transformers

    estimate: Any = transformers.pipeline(
        "depth-estimation",
        model=labelled_model(images.processing.answer, reference),
        image_processor=images.processor,
    )
    answers = []
    for image in map(opened, paths):
        size = (image.height, image.width)
        found = estimate.forward(estimate.preprocess(image))
        # The pipeline's own end divides by zero where all depths are equal.
        (row,) = images.processor.post_process_depth_estimation(found, [size])
        answers.append(depth(row["predicted_depth"].reshape(size).numpy()))
    return answers


def depth(values: Array) -> dict[str, Any]:
    """Return the depths of all pixels as an answer has them: a byte for each, and what the least and greatest are."""
    import base64

    import numpy as np

    least, greatest = float(values.min()), float(values.max())
    spread = values.max() - values.min()
    shares = (values - values.min()) / spread if spread > 0 else np.zeros_like(values)
    content = (shares * 255).astype(np.uint8).tobytes()
    return {
        "size": list(values.shape),
        "minimum": least,
        "maximum": greatest,
        "depth": base64.b64encode(content).decode("ascii"),
    }


def segment(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a segment of transformers' pipeline with its mask as numbers of pixels, column by column.

    The numbers are those of pixels outside and inside by turns, as COCO has them without compression.
    """
    import numpy as np

    mask = np.asarray(entry["mask"]) != 0
    flat = mask.T.ravel()
    edges = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1, [flat.size]])
    counts = [0, *np.diff(edges).tolist()] if flat[0] else np.diff(edges).tolist()
    return {"label": entry["label"], "score": None, "mask": {"size": list(mask.shape), "counts": counts}}


_ANSWERS: Mapping[Kind, Callable[[ReferenceImages, Sequence[Path], Reference], list[Any]]] = {
    "labels": _labels,
    "embedding": _embedding,
    "boxes": _boxes,
    "segments": _segments,
    "depth": _depths,
}
