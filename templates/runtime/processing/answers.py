"""Answers to texts: rows into runs of the model, and outputs into what the model's users read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from loading.errors import FormatError, InputError
from numpy.typing import NDArray

from .texts import Row, Texts

FORMAT_VERSION = 1
Arrays = dict[str, NDArray[Any]]
KINDS = ("embedding", "token-embeddings", "labels", "score")
PAIR = ("text", "text_pair")


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
            self.kind, self.output = str(document["answer"]["kind"]), str(document["answer"]["output"])
            self.labels = tuple(str(label) for label in document["answer"]["labels"])
            self.pairs = bool(document["text"]["pairs"])
            shapes = {name: shape for name, (shape, _) in inputs.items()}
            dtypes = {name: dtype for name, (_, dtype) in inputs.items()}
            self.texts = Texts(document["text"], tokenizer, shapes, dtypes, bounds)
        except (KeyError, TypeError, AttributeError) as error:
            raise FormatError(f"processing.json is malformed: {error!r}") from error
        if self.kind not in KINDS:
            raise FormatError(f"the answer {self.kind!r} is unknown, expected one of {', '.join(KINDS)}")
        self._together = together

    def rows(self, request: object, prompt: str | None = None) -> list[Row]:
        """The tokens of every text of a request.

        Raises:
            InputError: the request is neither a text nor a list of texts, or a text cannot be encoded.
        """
        return [self.texts.row(*self._parts(entry), prompt) for entry in _entries(request)]

    def row(self, entry: object, prompt: str | None = None) -> Row:
        """The tokens of a text, of a pair, or of a tuple of token ids, which no prompt is put before.

        Raises:
            InputError: it is none of these, or it cannot be encoded.
        """
        return self.texts.row_of(entry) if isinstance(entry, tuple) else self.texts.row(*self._parts(entry), prompt)

    def _parts(self, entry: object) -> tuple[str, str | None]:
        """The text of a request, and its second text where it is a pair."""
        if isinstance(entry, Mapping):
            if set(entry) != set(PAIR):
                raise InputError(f"a pair has {sorted(map(str, entry))}. Expected {' and '.join(PAIR)}.")
            if not self.pairs:
                raise InputError("the model takes single texts, not pairs of texts.")
            return entry[PAIR[0]], entry[PAIR[1]]
        if not isinstance(entry, str):
            raise InputError(f"a text is a {type(entry).__name__}. Expected a string.")
        if self.kind == "score":
            raise InputError(f"the model scores pairs of texts. Send {' and '.join(PAIR)}.")
        return entry, None

    def answer(self, request: object, run: Callable[[Arrays], Arrays], prompt: str | None = None) -> Any:
        """The answer to a text, or a list of the answers to a list of texts.

        Args:
            request: A text, a pair {"text", "text_pair"}, or a list of them.
            run: Runs the model on checked inputs.
            prompt: The name of one of the model's prompts; the default one when None.

        Returns:
            `embedding`: an array [hidden], or [texts, hidden] for a list. `token-embeddings`: an array
            [tokens, hidden], or a list of such arrays. `labels`: all classes as {"label", "score"}, the highest score
            first. `score`: a number.

        Raises:
            InputError: the request cannot be answered.
        """
        rows = self.rows(request, prompt)
        found: list[Any] = [None] * len(rows)
        for places in self.runs(rows):
            inputs = self.texts.inputs([rows[place] for place in places])
            outputs = run(inputs)
            for index, place in enumerate(places):
                found[place] = self.shaped(self._values(outputs, index, rows[place]))
        if isinstance(request, str | Mapping):
            return found[0]
        return np.stack(found) if self.kind == "embedding" and found else found

    def runs(self, rows: Sequence[Row]) -> Iterator[list[int]]:
        """Places of rows that share a run: the longest together, so that little is padded."""
        most = self.texts.most_rows if self._together else 1
        order = sorted(range(len(rows)), key=lambda place: -len(rows[place].ids))
        for start in range(0, len(order), most):
            yield order[start : start + most]

    def _values(self, outputs: Arrays, index: int, row: Row) -> NDArray[Any]:
        values = outputs[self.output][index]
        if self.kind == "token-embeddings":
            values = values[self.texts.positions(row, len(values))]
        return np.array(values)

    def shaped(self, values: NDArray[Any]) -> Any:
        """The answer of one text, of what its row of the output holds without padding; see `answer`."""
        if self.kind == "score":
            return float(values[0])
        if self.kind == "labels":
            scored = [{"label": name, "score": float(score)} for name, score in zip(self.labels, values, strict=True)]
            return sorted(scored, key=lambda entry: -entry["score"])
        return values


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
