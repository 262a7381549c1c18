"""Answers to texts: rows into runs of the model, and outputs into what the model's users read."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from loading.errors import FormatError, InputError
from numpy.typing import NDArray

from .entities import Entities
from .forms import Arrays, Embedding, Form, Labels, Score, TokenEmbeddings
from .masks import FillMask
from .spans import Span
from .texts import Row, Texts
from .zero_shot import ZeroShot

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


class Processing:
    """The processing of one bundle.

    Args:
        document: processing.json.
        tokenizer: The content of tokenizer.json.
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
        tokenizer: bytes,
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
            if self.kind not in FORMS:
                raise FormatError(f"the answer {self.kind!r} is unknown, expected one of {', '.join(FORMS)}")
            shapes = {name: shape for name, (shape, _) in inputs.items()}
            dtypes = {name: dtype for name, (_, dtype) in inputs.items()}
            self.texts = Texts(document["text"], tokenizer, shapes, dtypes, bounds)
            self.form = FORMS[self.kind](document["answer"], self.texts)
            self.output, self.labels, self.pairs = self.form.output, self.form.labels, self.texts.pairs
        except (KeyError, TypeError, AttributeError) as error:
            raise FormatError(f"processing.json is malformed: {error!r}") from error
        self._together = together

    def rows(self, request: object, prompt: str | None = None) -> list[Row]:
        """The rows of the model's inputs that a request stands for.

        Raises:
            InputError: the request is of another form, or a text cannot be encoded.
        """
        return [row for rows in self.encoded(request, prompt) for row in rows]

    def row(self, entry: object, prompt: str | None = None) -> Row:
        """The tokens of a text, of a pair, or of a tuple of token ids, which no prompt is put before.

        Raises:
            InputError: it is none of these, it cannot be encoded, or its answer is not made of one row alone.
        """
        if not self.form.of_one_row:
            raise InputError(f"answers of the kind {self.kind} need the whole request. Use `answer` of the loader.")
        if isinstance(entry, tuple):
            return self.texts.row_of(entry)
        (row,) = self.form.rows(entry, prompt)
        return row

    def encoded(self, request: object, prompt: str | None = None) -> list[list[Row]]:
        """The rows of each entry of a request: one, or one for each window of a context or each label.

        Raises:
            InputError: as `rows`.
        """
        return [self.form.rows(entry, prompt) for entry in _entries(request)]

    def answer(self, request: object, run: Callable[[Arrays], Arrays], prompt: str | None = None) -> Any:
        """The answer to a text, or a list of the answers to a list of texts.

        Args:
            request: A text, a pair {"text", "text_pair"}, a question {"question", "context"}, a text with labels
                {"text", "labels"}, or a list of them, as the kind of answers takes it.
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
            outputs = run(self.texts.inputs([every[place] for place in places]))
            for index, place in enumerate(places):
                values[place] = self.form.values(outputs, index, every[place])
        left = iter(values)
        found = [
            self.form.answer(entry, rows, list(itertools.islice(left, len(rows))))
            for entry, rows in zip(_entries(request), encoded, strict=True)
        ]
        if isinstance(request, str | Mapping):
            return found[0]
        return np.stack(found) if self.kind == "embedding" and found else found

    def runs(self, rows: Sequence[Row]) -> Iterator[list[int]]:
        """Places of rows that share a run: the longest together, so that little is padded."""
        most = self.texts.most_rows if self._together else 1
        order = sorted(range(len(rows)), key=lambda place: -len(rows[place].ids))
        for start in range(0, len(order), most):
            yield order[start : start + most]

    def shaped(self, values: NDArray[Any]) -> Any:
        """The answer of one text, of what its row of the output holds without padding; see `answer`."""
        return self.form.answer(None, (), [values])


def read(
    document: Path,
    tokenizer: Path,
    inputs: Mapping[str, tuple[Sequence[str | int | None], np.dtype[Any]]],
    bounds: Mapping[str, tuple[int, int, int]],
    *,
    together: bool,
) -> Processing:
    """The processing of a bundle.

    Args:
        document: processing.json.
        tokenizer: tokenizer.json.
        inputs, bounds, together: As those of `Processing`.

    Raises:
        FormatError: a file cannot be read, or is malformed.
        RuntimeVersionError: a package is missing.
    """
    try:
        content, stored = json.loads(document.read_bytes()), tokenizer.read_bytes()
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{document} cannot be read: {error}. Get the bundle again.") from error
    if not isinstance(content, dict):
        raise FormatError(f"{document} is not an object. Get the bundle again.")
    return Processing(content, stored, inputs, bounds, together=together)


def plain(answer: Any) -> Any:
    """An answer as JSON has it: arrays as nested lists."""
    if isinstance(answer, np.ndarray):
        return answer.tolist()
    if isinstance(answer, list):
        return [plain(entry) for entry in answer]
    return answer


def _entries(request: object) -> list[Any]:
    """The texts and pairs of a request."""
    if isinstance(request, str | Mapping):
        return [request]
    if not isinstance(request, list | tuple):
        raise InputError(f"the request is a {type(request).__name__}. Expected a text, a pair, or a list of them.")
    return list(request)
