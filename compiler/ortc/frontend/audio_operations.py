"""What the process of a model says about sounds: its own feature extractor, and its answers to them."""

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
    from ortc.frontend.reference.audio import ReferenceAudio

Json = dict[str, Any]


class AudioOperations:
    """Operations `sounds`, `features` and `sound_answers` of one model."""

    def __init__(self, server: Holder) -> None:
        self._server = server
        self._made: ReferenceAudio | None = None
        self.operations: dict[str, Callable[[Json], Json]] = {
            "sounds": self._read,
            "features": self._features,
            "sound_answers": self._answers,
        }

    def _read(self, request: Json) -> Json:
        """{form, inputs} -> {"processing"}, the content of processing.json of a bundle.

        Raises:
            StageError: the model's own feature extractor cannot be reproduced.
        """
        from ortc.frontend.reference.audio import ReferenceAudio

        self._server.loaded()
        source = self._server.source
        if not isinstance(source, HuggingFaceSource):
            raise StageError("the model's source has no feature extractor")
        form = AnswerForm.model_validate(request["form"])
        self._made = ReferenceAudio(source, self._server.directory, form, request["inputs"])
        return {"processing": self._made.processing.model_dump(mode="json")}

    def _features(self, request: Json) -> Json:
        """{files, outputs: .npz} -> {"refused": {place: reason}}; features are written by the places of the files."""
        made, found, refused = self._audio(), {}, {}
        for index, path in enumerate(request["files"]):
            try:
                found[str(index)] = made.features(Path(path))
            except Exception as error:  # noqa: BLE001 - the code of any extractor; the reason is compared and shown
                refused[str(index)] = f"{type(error).__name__}: {error}"
        write_arrays(Path(request["outputs"]), found)
        return {"refused": refused}

    def _answers(self, request: Json) -> Json:
        """{files} -> {"answers": […]}, each sound by itself."""
        reference, _ = self._server.loaded()
        return {"answers": self._audio().answers([Path(path) for path in request["files"]], reference)}

    def _audio(self) -> ReferenceAudio:
        if self._made is None:
            raise StageError("no feature extractor is loaded")
        return self._made
