"""What the process of a model says about images: its own image processor, and its answers to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ortc.common.arrays import write_arrays
from ortc.common.errors import StageError
from ortc.frontend.text_operations import Holder
from ortc.plan.processing import AnswerForm
from ortc.spec.model_sources import HuggingFaceSource

if TYPE_CHECKING:
    from ortc.frontend.reference.images import ReferenceImages

Json = dict[str, Any]


class ImageOperations:
    """Operations `images`, `pixels` and `image_answers` of one model."""

    def __init__(self, server: Holder) -> None:
        self._server = server
        self._made: ReferenceImages | None = None
        self.operations: dict[str, Callable[[Json], Json]] = {
            "images": self._read,
            "pixels": self._pixels,
            "image_answers": self._answers,
        }

    def _read(self, request: Json) -> Json:
        """{form, inputs} -> {"processing"}, the content of processing.json of a bundle.

        Raises:
            StageError: the model's own image processor cannot be reproduced.
        """
        from ortc.frontend.reference.images import ReferenceImages

        self._server.loaded()
        source = self._server.source
        if not isinstance(source, HuggingFaceSource):
            raise StageError("the model's source has no image processor")
        form = AnswerForm.model_validate(request["form"])
        self._made = ReferenceImages(source, self._server.directory, form, request["inputs"])
        return {"processing": self._made.processing.model_dump(mode="json")}

    def _pixels(self, request: Json) -> Json:
        """{files, outputs: .npz} -> {"refused": {place: reason}}; pixels are written by the places of the images."""
        made, found, refused = self._images(), {}, {}
        for index, path in enumerate(request["files"]):
            try:
                found[str(index)] = made.pixels(Path(path))
            except Exception as error:  # noqa: BLE001 - the code of any processor; the reason is compared and shown
                refused[str(index)] = f"{type(error).__name__}: {error}"
        write_arrays(Path(request["outputs"]), found)
        return {"refused": refused}

    def _answers(self, request: Json) -> Json:
        """{images} -> {"answers": […]}, each image by itself."""
        reference, _ = self._server.loaded()
        return {"answers": self._images().answers([Path(path) for path in request["images"]], reference)}

    def _images(self) -> ReferenceImages:
        if self._made is None:
            raise StageError("no image processor is loaded")
        return self._made
