"""Answers to rows of numbers and strings: bundles of ai.onnx.ml's models, whose columns are all that a request needs.

Nothing beside manifest.json says how: columns are the inputs, and names of classes are those of the outputs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import Arrays
from .columns import column, expected, width
from .errors import InputError, did_you_mean
from .interface import STRING, Tensor

DOMAIN = "ai.onnx.ml"


def takes_rows(manifest: Mapping[str, Any]) -> bool:
    """Whether a bundle answers rows: a model of ai.onnx.ml or of strings whose inputs are columns of one axis.

    Columns are [rows, columns], or [rows] of one column.
    """
    has_texts = any(entry["dtype"] == STRING for entry in manifest["inputs"])
    if manifest.get("processing") or not (has_texts or DOMAIN in manifest["model"]["domains"]):
        return False
    shapes = [list(entry["shape"]) for entry in manifest["inputs"]]
    if not shapes or not all(_are_columns(entry) for entry in manifest["inputs"]):
        return False
    axis = shapes[0][0]
    outputs = (list(entry["shape"]) for entry in manifest["outputs"])
    return all(shape[0] == axis for shape in shapes) and any(shape[:1] in ([axis], [None]) for shape in outputs)


def _are_columns(entry: Mapping[str, Any]) -> bool:
    shape = list(entry["shape"])
    return (len(shape) == 2 and isinstance(shape[1], int)) or (len(shape) == 1 and entry["dtype"] == STRING)


class RowForm:
    """What an answer is made of: scores of named classes, or the values of every output.

    Args:
        outputs: Those with something for each row.
        row: Makes the model's inputs of an entry of a request.
    """

    of_one_row = False

    def __init__(self, outputs: Sequence[Tensor], row: Callable[[object], Arrays]) -> None:
        self._row = row
        scores = (tensor for tensor in outputs if tensor.labels and tensor.dtype.kind == "f" and len(tensor.shape) == 2)
        numbers = (tensor for tensor in outputs if tensor.dtype.kind in "iu" and _is_one(tensor))
        self._outputs = tuple(outputs)
        self._scores, self._number = next(scores, None), next(numbers, None)
        self.kind = "values" if self._scores is None else "labels"
        self.output = (self._scores or outputs[0]).name
        self.labels = () if self._scores is None else self._scores.labels or ()

    def rows(self, entry: object, prompt: str | None) -> list[Any]:
        """The inputs of the row that an entry is; raises InputError as `RowProcessing.row` does."""
        _refuse_prompt(prompt)
        return [self._row(entry)]

    def most_rows(self, entry: object) -> int:
        """Every entry is one row."""
        del entry
        return 1

    def check(self, rows: Any) -> None:
        """Every row has an answer."""

    def values(self, outputs: Arrays, index: int, row: Any) -> Arrays:
        """What the outputs have for one row."""
        del row
        return {tensor.name: np.array(outputs[tensor.name][index]) for tensor in self._outputs}

    def answer(self, entry: Any, rows: Any, values: Sequence[Arrays]) -> Any:
        """Classes as {"label", "score"} with the model's own choice first; or the values of the outputs by name."""
        del entry, rows
        (found,) = values
        if self._scores is None:
            return {tensor.name: _plain(tensor, found[tensor.name]) for tensor in self._outputs}
        chosen = None if self._number is None else _named(self._number, found[self._number.name])[0]
        scored = [
            {"label": label, "score": float(score)}
            for label, score in zip(self.labels, found[self._scores.name].tolist(), strict=True)
        ]
        # A model may choose another class than the one of the highest score.
        return sorted(scored, key=lambda score: (score["label"] != chosen, -score["score"]))


class RowProcessing:
    """Makes inputs of rows and answers of outputs, as `Processing` does of texts.

    Args:
        inputs: The model's inputs [rows, columns].
        outputs: Its outputs.
        bounds: Least size, greatest size and step of each axis by name.
        together: Whether rows may share a run: an answer was measured not to depend on its neighbours.
    """

    media, texts, pairs, takes = None, None, False, "row"

    def __init__(
        self,
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor],
        bounds: Mapping[str, tuple[int, int, int]],
        *,
        together: bool,
    ) -> None:
        axis = inputs[0].shape[0]
        self._least, self._most, self._step = bounds[axis] if isinstance(axis, str) else (int(axis or 1),) * 3
        self._inputs, self._together = tuple(inputs), together
        self.columns = sum(width(tensor) for tensor in inputs)
        self.of_text = self.columns == 1 and inputs[0].is_text
        of_rows = [tensor for tensor in outputs if tensor.shape and tensor.shape[0] in (axis, None)]
        self.form = RowForm(of_rows, self.row)
        self.kind, self.output, self.labels = self.form.kind, self.form.output, self.form.labels
        self.task = "tabular-classification" if self.labels else "tabular data"

    @property
    def most_rows(self) -> int:
        """The most rows of one run."""
        return self._most // self._step * self._step

    def row(self, entry: object) -> Arrays:
        """The inputs of one row, each [columns].

        Args:
            entry: The values of all columns in the order of the inputs, or an object of an input's name to its value
                or values. Of one column of strings its string, too.

        Raises:
            InputError: it is of another form, or holds what a column cannot hold.
        """
        if isinstance(entry, Mapping):
            return self._by_name(entry)
        if self.of_text and isinstance(entry, str):
            entry = [entry]
        given = entry.tolist() if isinstance(entry, np.ndarray) and entry.ndim == 1 else entry
        if not isinstance(given, list | tuple):
            raise InputError(f"a row is a {type(entry).__name__}. Expected {self._expected()}.")
        if len(given) != self.columns:
            raise InputError(f"a row has {len(given)} values. Expected {self._expected()}.")
        left = iter(given)
        return {tensor.name: column(tensor, list(itertools.islice(left, width(tensor)))) for tensor in self._inputs}

    def inputs(self, rows: Sequence[Arrays]) -> Arrays:
        """The model's inputs for rows that share a run; the last row again fills what the model takes at least."""
        count = max(self._least, -(-len(rows) // self._step) * self._step)
        filled = [*rows, *itertools.repeat(rows[-1], count - len(rows))]
        found = {tensor.name: np.stack([row[tensor.name] for row in filled]) for tensor in self._inputs}
        return {t.name: found[t.name].reshape(-1) if len(t.shape) == 1 else found[t.name] for t in self._inputs}

    def rows(self, request: object, prompt: str | None = None) -> list[Any]:
        """Rows have no tokens.

        Raises:
            InputError: always.
        """
        raise InputError("the model takes rows, which have no tokens.")

    def answer(self, request: object, run: Callable[[Arrays], Arrays], prompt: str | None = None) -> Any:
        """The answer to a row, or a list of the answers to a list of rows or to an array [rows, columns].

        Args:
            request: A row, as `row` takes it, or a list of them.
            run: Runs the model on checked inputs.
            prompt: None; rows have no prompt.

        Returns:
            `labels`: all classes as {"label", "score"}, the model's own choice first. `values`: an object of the
            outputs' names to their values, names of classes in place of their numbers.

        Raises:
            InputError: the request cannot be answered.
        """
        _refuse_prompt(prompt)
        single = isinstance(request, str | Mapping) if self.of_text else _is_row(request)
        entries: Any = [request] if single else request
        if not single and not isinstance(entries, list | tuple | np.ndarray):
            raise InputError(f"the request is a {type(request).__name__}. Expected {self._expected()}, or such rows.")
        rows = [row for entry in entries for row in self.form.rows(entry, None)]
        values: list[Any] = [None] * len(rows)
        for places in self.runs(rows):
            outputs = run(self.inputs([rows[place] for place in places]))
            for index, place in enumerate(places):
                values[place] = self.form.values(outputs, index, None)
        found = [self.form.answer(None, (), [value]) for value in values]
        return found[0] if single else found

    def runs(self, rows: Sequence[Any]) -> Iterator[list[int]]:
        """Places of rows that share a run."""
        most = self.most_rows if self._together else 1
        for start in range(0, len(rows), most):
            yield list(range(start, min(start + most, len(rows))))

    def example(self, inputs: Arrays) -> Any:
        """The first row of some inputs as a request has it: a list, or an object where there are several inputs."""
        found = {name: array[:1].ravel().tolist() for name, array in inputs.items()}
        if self.of_text:
            return next(iter(found.values()))[0]
        if len(found) == 1:
            return next(iter(found.values()))
        return {name: values[0] if len(values) == 1 else values for name, values in found.items()}

    def _by_name(self, entry: Mapping[Any, Any]) -> Arrays:
        names = [tensor.name for tensor in self._inputs]
        for name in entry:
            if name not in names:
                hint = did_you_mean(str(name), names)
                raise InputError(f"column {str(name)!r} is unknown. Expected {', '.join(names)}.{hint}")
        found = {}
        for tensor in self._inputs:
            if tensor.name not in entry:
                raise InputError(f"column {tensor.name!r} is missing. Send {expected(tensor)}.")
            given = entry[tensor.name]
            values = list(given) if isinstance(given, list | tuple) else [given]
            if len(values) != width(tensor):
                raise InputError(f"column {tensor.name!r} has {len(values)} values. Send {expected(tensor)}.")
            found[tensor.name] = column(tensor, values)
        return found

    def _expected(self) -> str:
        names = ", ".join(tensor.name for tensor in self._inputs)
        text = "a string, " if self.of_text else ""
        return f"{text}a list of {self.columns} values, or an object with {names}"


def _is_row(request: object) -> bool:
    """Whether a request is one row and not a list of rows."""
    if isinstance(request, np.ndarray):
        return request.ndim == 1
    if isinstance(request, list | tuple):
        return bool(request) and not isinstance(request[0], list | tuple | Mapping | np.ndarray)
    return isinstance(request, Mapping)


def _refuse_prompt(prompt: str | None) -> None:
    if prompt is not None:
        raise InputError("the model takes rows, which have no prompt. Leave it out.")


def _is_one(tensor: Tensor) -> bool:
    """Whether an output has one value for a row."""
    return len(tensor.shape) == 1 or (len(tensor.shape) == 2 and tensor.shape[1] == 1)


def _named(tensor: Tensor, values: NDArray[Any]) -> list[str]:
    """The names of classes by their numbers; the numbers themselves where the manifest names none."""
    return tensor.named(values) or [str(number) for number in values.ravel().tolist()]


def _plain(tensor: Tensor, values: NDArray[Any]) -> Any:
    """Values of one row as JSON has them: a single one without brackets."""
    named = tensor.named(values)
    found = values.tolist() if named is None else named
    if isinstance(found, list) and len(found) == 1 and _is_one(tensor):
        return found[0]
    return found[0] if named is not None and values.ndim == 0 else found
