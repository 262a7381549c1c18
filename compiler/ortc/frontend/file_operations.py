"""What the process of a model says about images and sounds: what its own processor makes of them, and its answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ortc.common.arrays import Array, write_arrays
from ortc.common.errors import StageError
from ortc.frontend.reference.model import Reference
from ortc.frontend.text_operations import Holder
from ortc.plan.processing import AnswerForm, Processing
from ortc.spec.model_sources import HuggingFaceSource

Json = dict[str, Any]


class ReferenceFiles(Protocol):
    """A model's own processor of files, and its answers to them."""

    processing: Processing

    def array(self, path: Path) -> Array:
        """What the processor makes of a file, float32, as the model takes it without the axis of files."""

    def answers(self, paths: Sequence[Path], reference: Reference) -> list[Any]:
        """What the model answers to every file by itself, as JSON has it."""


class FileOperations:
    """Operations `files`, `arrays` and `file_answers` of one model."""

    def __init__(self, server: Holder) -> None:
        self._server = server
        self._made: ReferenceFiles | None = None
        self.operations: dict[str, Callable[[Json], Json]] = {
            "files": self._read,
            "arrays": self._arrays,
            "file_answers": self._answers,
        }

    def _read(self, request: Json) -> Json:
        """{takes, form, inputs} -> {"processing"}, the content of processing.json of a bundle.

        Raises:
            StageError: the model's own processor cannot be reproduced.
        """
        self._server.loaded()
        source = self._server.source
        if not isinstance(source, HuggingFaceSource):
            raise StageError("the model's source has no processor of images or sounds")
        form = AnswerForm.model_validate(request["form"])
        self._made = _READERS[request["takes"]](source, self._server.directory, form, request["inputs"])
        return {"processing": self._made.processing.model_dump(mode="json")}

    def _arrays(self, request: Json) -> Json:
        """{files, outputs: .npz} -> {"refused": {place: reason}}; arrays are written by the places of the files."""
        made, found, refused = self._processor(), {}, {}
        for index, path in enumerate(request["files"]):
            try:
                found[str(index)] = made.array(Path(path))
            except Exception as error:  # noqa: BLE001 - the code of any processor; the reason is compared and shown
                refused[str(index)] = f"{type(error).__name__}: {error}"
        write_arrays(Path(request["outputs"]), found)
        return {"refused": refused}

    def _answers(self, request: Json) -> Json:
        """{files} -> {"answers": […]}, each file by itself."""
        reference, _ = self._server.loaded()
        return {"answers": self._processor().answers([Path(path) for path in request["files"]], reference)}

    def _processor(self) -> ReferenceFiles:
        if self._made is None:
            raise StageError("no processor is loaded")
        return self._made


def _images(source: HuggingFaceSource, directory: Path, form: AnswerForm, inputs: Sequence[str]) -> ReferenceFiles:
    from ortc.frontend.reference.images import ReferenceImages

    return ReferenceImages(source, directory, form, inputs)


def _audio(source: HuggingFaceSource, directory: Path, form: AnswerForm, inputs: Sequence[str]) -> ReferenceFiles:
    from ortc.frontend.reference.audio import ReferenceAudio

    return ReferenceAudio(source, directory, form, inputs)


_READERS: Mapping[str, Callable[[HuggingFaceSource, Path, AnswerForm, Sequence[str]], ReferenceFiles]] = {
    "image": _images,
    "audio": _audio,
}
