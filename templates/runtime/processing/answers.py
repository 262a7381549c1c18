"""Answers to texts, images and sounds: rows into runs of the model, and outputs into what the model's users read."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

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
    from .audio.inputs import Audio
    from .images.inputs import Images

    Media = Audio | Images

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
F = TypeVar("F")


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

    `texts` makes the model's inputs, or `media` of images or sounds; the other one is not there. `takes` is `text`,
    `image` or `audio`.

    Args:
        document: processing.json.
        tokenizer: The content of tokenizer.json; None for a bundle that takes images or sounds.
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
            self.media: Media | None = None
            self.pairs = False
            if "image" in document:
                self.media, self.form = _of_images(self.kind, document, inputs, bounds)
            elif "audio" in document:
                self.media, self.form = _of_audio(self.kind, document, inputs, bounds)
            else:
                shapes = {name: shape for name, (shape, _) in inputs.items()}
                dtypes = {name: dtype for name, (_, dtype) in inputs.items()}
                form = _known(self.kind, FORMS)
                self.texts = Texts(document["text"], tokenizer or b"", shapes, dtypes, bounds, places=form.places)
                self.form = form(document["answer"], self.texts)
                self.pairs = self.texts.pairs
            self.takes = "text" if self.media is None else self.media.takes
            self.output, self.labels = self.form.output, self.form.labels
        except (KeyError, TypeError, AttributeError) as error:
            raise FormatError(f"processing.json is malformed: {error!r}") from error
        self._together = together

    @property
    def most_rows(self) -> int:
        """The most texts, images or sounds of one run."""
        return self.texts.most_rows if self.media is None else self.media.most_rows

    def inputs(self, rows: Sequence[Any]) -> Arrays:
        """The model's inputs for rows that share a run."""
        return self.texts.inputs(rows) if self.media is None else self.media.inputs(rows)

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
        if isinstance(entry, tuple) and self.media is None:
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
                {"text", "labels"}, or a list of them, as the kind of answers takes it; the bytes of a file of
                an image or a sound, an array of its pixels or samples, or a list of them.
            run: Runs the model on checked inputs.
            prompt: The name of one of the model's prompts; the default one when None.

        Returns:
            `embedding`: an array [hidden], or [texts, hidden] for a list. `token-embeddings`: an array
            [tokens, hidden], or a list of such arrays. `labels` and `zero-shot`: all classes as {"label", "score"},
            the highest score first. `score`: a number. `transcript`: {"text"}. Other kinds: see their modules.

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

    def runs(self, rows: Sequence[Any], most_tokens: int | None = None) -> Iterator[list[int]]:
        """Places of rows that share a run: the longest texts together, so that little is padded.

        Args:
            rows: As `rows` makes them.
            most_tokens: Of the texts of a run, with their padding; one text alone may have more.
        """
        most = self.most_rows if self._together else 1
        if self.media is not None:
            yield from self.media.runs(rows, most)
            return
        order = sorted(range(len(rows)), key=lambda place: -len(rows[place].ids))
        while order:
            longest = max(1, len(rows[order[0]].ids))
            count = most if most_tokens is None else max(1, min(most, most_tokens // longest))
            yield order[:count]
            order = order[count:]

    def shaped(self, values: NDArray[Any]) -> Any:
        """The answer of one text, of what its row of the output holds without padding; see `answer`."""
        return self.form.answer(None, (), [values])

    def _entries(self, request: object) -> list[Any]:
        """The texts, pairs, images or sounds of a request."""
        single: Any = str | Mapping if self.media is None else bytes | bytearray | memoryview | np.ndarray | Mapping
        if isinstance(request, single):
            return [self.entry(request)]
        if not isinstance(request, list | tuple):
            known = "a text, a pair" if self.media is None else "the bytes of a file, an array"
            raise InputError(f"the request is a {type(request).__name__}. Expected {known}, or a list of them.")
        return list(map(self.entry, request))

    def entry(self, given: object) -> object:
        """An entry of a request: {"text"} alone is that text."""
        if self.media is None and isinstance(given, Mapping) and set(given) == {"text"}:
            return given["text"]
        return given


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
        tokenizer: tokenizer.json; None for a bundle that takes images or sounds.
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


def _of_images(
    kind: str, document: Mapping[str, Any], inputs: Any, bounds: Mapping[str, tuple[int, int, int]]
) -> tuple[Images, AnyForm]:
    # Bundles of texts and sounds do not carry these modules.
    from .images.inputs import Images
    from .images.kinds import KINDS

    images = Images(document["image"], inputs, bounds)
    return images, _known(kind, KINDS)(document["answer"], images)


def _of_audio(
    kind: str, document: Mapping[str, Any], inputs: Any, bounds: Mapping[str, tuple[int, int, int]]
) -> tuple[Audio, AnyForm]:
    # Bundles of texts and images do not carry these modules.
    from .audio.forms import KINDS
    from .audio.inputs import Audio

    audio = Audio(document["audio"], inputs, bounds)
    return audio, _known(kind, KINDS)(document["answer"], audio)


def _known(kind: str, kinds: Mapping[str, F]) -> F:
    if kind not in kinds:
        raise FormatError(f"the answer {kind!r} is unknown, expected one of {', '.join(kinds)}")
    return kinds[kind]
