"""A loaded bundle that answers requests of any kind: the modules of processing/ are read when they are needed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from .checked_session import CheckedSession
from .errors import InputError
from .files import inside, parsing
from .rows import RowProcessing, takes_rows

if TYPE_CHECKING:
    from processing.answers import Processing
    from processing.padding import Row


MOST_BYTES = 2**25  # of a file
FIELDS = ("image", "audio")  # of a request that may have settings beside a file


class AnsweringSession(CheckedSession):
    """A session that also answers texts, images, sounds or rows, where its bundle says how."""

    _processing: Processing | None = None

    def answer(self, request: object, prompt: str | None = None) -> Any:
        """The answer to a text, an image, a sound or a row, or a list of the answers to a list; see docs/answers.md.

        Args:
            request: A text, or a list of texts. For an image or a sound the path of its file, its bytes, or an array of
                pixels [height, width, channels] or of samples [samples] at the model's rate; or a list of these. For a
                row a list of its numbers, or an object of the inputs' names; or a list of rows.
            prompt: The name of one of the model's prompts; the default one when None.

        Raises:
            InputError: The request cannot be answered, or the bundle takes tensors alone.
        """
        processing = self.processing()
        return processing.answer(request if processing.media is None else with_files(request), self.run, prompt)

    def tokens(self, request: object, prompt: str | None = None) -> list[Row]:
        """The tokens of every text of a request, cut as the model takes them and not padded.

        Raises:
            InputError: A text cannot be encoded, or the bundle takes tensors alone.
        """
        return self.processing().rows(request, prompt)

    def processing(self) -> Processing:
        """What makes inputs of texts and answers of outputs; read when it is first needed.

        Raises:
            InputError: The bundle takes tensors alone.
            FormatError: A file of it is malformed.
            RuntimeVersionError: A package that it needs is not installed.
        """
        if self._processing is None:
            declared = self.manifest.get("processing")
            bounds = {axis.name: (axis.min, axis.max, axis.multiple_of) for axis in self.axes}
            with parsing(self.root / "manifest.json"):
                together = self.manifest["variant"]["batch_invariant"] is True
                of_rows = not declared and takes_rows(self.manifest)
            if of_rows:
                # It has all that is asked of a processing.
                made = RowProcessing(self.inputs, self.outputs, bounds, together=together)
                self._processing = cast("Processing", made)
                return self._processing
            if not declared:
                names = ", ".join(tensor.name for tensor in self.inputs)
                raise InputError(f"{self.name} takes tensors alone. Send {names} to `run`.")
            inputs = {tensor.name: (tensor.shape, tensor.dtype) for tensor in self.inputs}
            with parsing(self.root / "manifest.json"):
                document = inside(self.root, str(declared["document"]))
                stored = declared.get("tokenizer")
                tokenizer = None if stored is None else inside(self.root, str(stored))
            self._processing = processing_module().read(document, tokenizer, inputs, bounds, together=together)
        return self._processing

    def check_answers(self) -> dict[str, Any]:
        """Answer the golden texts, images or sounds again: an entry of `golden`.

        Raises:
            GoldenError: Token ids, pixels, features or an answer differ.
        """
        with parsing(self.root / "manifest.json"):
            golden = self.manifest["processing"]["golden"]
            path, limits = inside(self.root, str(golden["file"])), dict(golden["tolerance"])
            worst = _golden_check()(self.processing(), path, limits, self.run)
        return {"name": "answers", "tolerance": limits, "cosine": worst}


def with_files(request: object) -> object:
    """A request in which the bytes of files stand for their paths.

    Raises:
        InputError: A file cannot be read, or is too large.
    """
    if isinstance(request, list | tuple):
        return [with_files(entry) for entry in request]
    if isinstance(request, Mapping):
        return {name: with_files(value) if name in FIELDS else value for name, value in request.items()}
    if not isinstance(request, str | PathLike):
        return request
    try:
        with Path(request).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InputError(f"{request} cannot be read: {error}. Send the path of a file.") from error
    if len(content) > MOST_BYTES:
        raise InputError(f"{request} has more than {MOST_BYTES} bytes.")
    return content


def processing_module() -> ModuleType:
    """processing/answers.py, also where sys.path does not lead there."""
    here = str(Path(__file__).resolve().parent.parent)
    sys.path.insert(0, here)
    try:
        from processing import answers
    finally:
        sys.path.remove(here)
    return answers


def _golden_check() -> Callable[..., float]:
    here = str(Path(__file__).resolve().parent.parent)
    sys.path.insert(0, here)
    try:
        from processing.golden import check
    finally:
        sys.path.remove(here)
    return check
