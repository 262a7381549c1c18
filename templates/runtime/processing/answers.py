"""Answers to texts and images: rows into runs of the model, and outputs into what the model's users read."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from loading.errors import FormatError, InputError
from numpy.typing import NDArray

from .entities import Entities
from .forms import Arrays, Embedding, Form, Labels, Score, TokenEmbeddings
from .masks import FillMask
from .spans import Span
from .texts import Texts
from .zero_shot import ZeroShot

if TYPE_CHECKING:
    from .images.inputs import Images

FORMAT_VERSION = 1
FORMS: Mapping[str, type[Form]] = {
    "embedding": Embedding,
    "token-embeddings": TokenEmbeddings,
    "labels": Labels,
    "score": Score,
    "entities": Entities,
    "span": Span,
    "fill-mask": FillMask,
    "zero-shot": ZeroShot,
}


class AnyForm(Protocol):
    """What the answers of every kind have; rows are those of texts, or pictures."""

    of_one_row: bool
    output: str
    labels: tuple[str, ...]

    def rows(self, entry: object, prompt: str | None) -> list[Any]:
        """The rows of the model's inputs that an entry of a request stands for."""

    def most_rows(self, entry: object) -> int:
        """How many rows an entry stands for at most."""

    def check(self, rows: Any) -> None:
        """Refuse rows that have no answer."""

    def values(self, outputs: Arrays, index: int, row: Any) -> Any:
        """What the answer needs of one row of the outputs."""

    def answer(self, entry: Any, rows: Any, values: Sequence[Any]) -> Any:
        """The answer to an entry, by the values of its rows."""


class Processing:
    """The processing of one bundle.

    `texts` or `images` makes the model's inputs; the other one is not there.

    Args:
        document: processing.json.
        tokenizer: The content of tokenizer.json; None for a bundle that takes images.
        inputs: Shapes and types of the model's inputs by name.
        bounds: Least size, greatest size and step of each axis by name.
        together: Whether texts may share a run: an answer was measured not to depend on its neighbours.

    Raises:
        FormatError: the document is malformed.
        RuntimeVersionError: a package is missing.
    """

    def __init__(
        self,
        document: Mapping[str, Any],
        tokenizer: bytes | None,
        inputs: Mapping[str, tuple[Sequence[str | int | None], np.dtype[Any]]],
        bounds: Mapping[str, tuple[int, int, int]],
        *,
        together: bool,
    ) -> None:
        if document.get("format_version") != FORMAT_VERSION:
            raise FormatError(f"format_version is {document.get('format_version')!r}, expected {FORMAT_VERSION}")
        try:
            self.task = str(document["task"])
            self.kind = str(document["answer"]["kind"])
            self.form: AnyForm
            self.images: Images | None = None
            if "image" in document:
                self.images = _images(document, inputs, bounds)
                self.form = _image_form(self.kind, document["answer"], self.images)
                self.pairs = False
            else:
                shapes = {name: shape for name, (shape, _) in inputs.items()}
                dtypes = {name: dtype for name, (_, dtype) in inputs.items()}
                self.texts = Texts(document["text"], tokenizer or b"", shapes, dtypes, bounds)
                if self.kind not in FORMS:
                    raise FormatError(f"the answer {self.kind!r} is unknown, expected one of {', '.join(FORMS)}")
                self.form = FORMS[self.kind](document["answer"], self.texts)
                self.pairs = self.texts.pairs
            self.output, self.labels = self.form.output, self.form.labels
        except (KeyError, TypeError, AttributeError) as error:
            raise FormatError(f"processing.json is malformed: {error!r}") from error
        self._together = together

    @property
    def most_rows(self) -> int:
        """The most texts or images of one run."""
        return self.texts.most_rows if self.images is None else self.images.most_rows

    def inputs(self, rows: Sequence[Any]) -> Arrays:
        """The model's inputs for rows that share a run."""
        return self.texts.inputs(rows) if self.images is None else self.images.inputs(rows)

    def rows(self, request: object, prompt: str | None = None) -> list[Any]:
        """The rows of the model's inputs that a request stands for.

        Raises:
            InputError: the request is of another form, or a text cannot be encoded.
        """
        return [row for rows in self.encoded(request, prompt) for row in rows]

    def row(self, entry: object, prompt: str | None = None) -> Any:
        """The tokens of a text, of a pair, or of a tuple of token ids, which no prompt is put before.

        Raises:
            InputError: it is none of these, it cannot be encoded, or its answer is not made of one row alone.
        """
        if not self.form.of_one_row:
            raise InputError(f"answers of the kind {self.kind} need the whole request. Use `answer` of the loader.")
        if isinstance(entry, tuple) and self.images is None:
            return self.texts.row_of(entry)
        (row,) = self.form.rows(entry, prompt)
        return row

    def encoded(self, request: object, prompt: str | None = None) -> list[list[Any]]:
        """The rows of each entry of a request: one, or one for each window of a context or each label.

        Raises:
            InputError: as `rows`.
        """
        return [self.form.rows(entry, prompt) for entry in self._entries(request)]

    def answer(self, request: object, run: Callable[[Arrays], Arrays], prompt: str | None = None) -> Any:
        """The answer to a text, or a list of the answers to a list of texts.

        Args:
            request: A text, a pair {"text", "text_pair"}, a question {"question", "context"}, a text with labels
                {"text", "labels"}, or a list of them, as the kind of answers takes it; the bytes of an image's file,
                an array of its pixels, or a list of them.
            run: Runs the model on checked inputs.
            prompt: The name of one of the model's prompts; the default one when None.

        Returns:
            `embedding`: an array [hidden], or [texts, hidden] for a list. `token-embeddings`: an array
            [tokens, hidden], or a list of such arrays. `labels` and `zero-shot`: all classes as {"label", "score"},
            the highest score first. `score`: a number. `entities`, `span` and `fill-mask`: see their modules.

        Raises:
            InputError: the request cannot be answered.
        """
        encoded = self.encoded(request, prompt)
        for rows in encoded:
            self.form.check(rows)
        every = [row for rows in encoded for row in rows]
        values: list[Any] = [None] * len(every)
        for places in self.runs(every):
            outputs = run(self.inputs([every[place] for place in places]))
            for index, place in enumerate(places):
                values[place] = self.form.values(outputs, index, every[place])
        left = iter(values)
        found = [
            self.form.answer(entry, rows, list(itertools.islice(left, len(rows))))
            for entry, rows in zip(self._entries(request), encoded, strict=True)
        ]
        if not isinstance(request, list | tuple):
            return found[0]
        return np.stack(found) if self.kind == "embedding" and found else found

    def runs(self, rows: Sequence[Any]) -> Iterator[list[int]]:
        """Places of rows that share a run: the longest texts together, so that little is padded."""
        most = self.most_rows if self._together else 1
        if self.images is not None:
            yield from self.images.runs(rows, most)
            return
        order = sorted(range(len(rows)), key=lambda place: -len(rows[place].ids))
        for start in range(0, len(order), most):
            yield order[start : start + most]

    def shaped(self, values: NDArray[Any]) -> Any:
        """The answer of one text, of what its row of the output holds without padding; see `answer`."""
        return self.form.answer(None, (), [values])

    def _entries(self, request: object) -> list[Any]:
        """The texts, pairs or images of a request."""
        single: Any = str | Mapping if self.images is None else bytes | bytearray | memoryview | np.ndarray | Mapping
        if isinstance(request, single):
            return [request]
        if not isinstance(request, list | tuple):
            known = "a text, a pair" if self.images is None else "the bytes of an image, an array"
            raise InputError(f"the request is a {type(request).__name__}. Expected {known}, or a list of them.")
        return list(request)


def read(
    document: Path,
    tokenizer: Path | None,
    inputs: Mapping[str, tuple[Sequence[str | int | None], np.dtype[Any]]],
    bounds: Mapping[str, tuple[int, int, int]],
    *,
    together: bool,
) -> Processing:
    """The processing of a bundle.

    Args:
        document: processing.json.
        tokenizer: tokenizer.json; None for a bundle that takes images.
        inputs, bounds, together: As those of `Processing`.

    Raises:
        FormatError: a file cannot be read, or is malformed.
        RuntimeVersionError: a package is missing.
    """
    try:
        content = json.loads(document.read_bytes())
        stored = None if tokenizer is None else tokenizer.read_bytes()
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{document} cannot be read: {error}. Get the bundle again.") from error
    if not isinstance(content, dict):
        raise FormatError(f"{document} is not an object. Get the bundle again.")
    return Processing(content, stored, inputs, bounds, together=together)


def _images(document: Mapping[str, Any], inputs: Any, bounds: Mapping[str, tuple[int, int, int]]) -> Images:
    # Bundles of texts do not carry these modules.
    from .images.inputs import Images

    return Images(document["image"], inputs, bounds)


def _image_form(kind: str, settings: Mapping[str, Any], images: Images) -> AnyForm:
    from .images.kinds import KINDS

    if kind not in KINDS:
        raise FormatError(f"the answer {kind!r} is unknown, expected one of {', '.join(KINDS)}")
    return KINDS[kind](settings, images)
