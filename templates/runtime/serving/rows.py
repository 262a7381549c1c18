"""Rows of requests: lists of numbers or objects of columns, to the inputs of a model of ai.onnx.ml."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from serving.bounds import LONGEST_STRING, MOST_TEXTS
from serving.errors import RefusedError, bad
from serving.texts import MOST_WINDOW, TextModel

TEXT_BYTES = 16  # of memory for each character of a string: as Python has it, and as strings and tokens in a run
VALUE_BYTES = 64  # of memory for each value of a row: as Python has it, and in two arrays


def _lengths(entry: object) -> Iterator[int]:
    """The characters of each string of a row, which may hold lists of strings and nothing deeper."""
    values = entry.values() if isinstance(entry, Mapping) else entry if isinstance(entry, list | tuple) else (entry,)
    for value in values:
        yield from (len(text) for text in (value if isinstance(value, list | tuple) else (value,)) if type(text) is str)


def _characters(entry: object) -> int:
    """The characters of all strings of a row."""
    return sum(_lengths(entry))


class RowModel(TextModel):
    """Makes inputs of rows for one model."""

    processing: Any  # a RowProcessing
    inputs = ()
    takes = "row"

    @property
    def join(self) -> None:
        """Rows become arrays of the same shape, which batches of rows hold."""

    def _runs(self, rows: Sequence[Any]) -> Iterable[list[int]]:
        """Places of rows that share a run."""
        found: Iterable[list[int]] = self.processing.runs(rows)
        return found

    def _is_quick(self, size: int) -> bool:
        """Rows are always checked by a thread: their values may be many."""
        return False

    def _axes(self) -> tuple[object, object]:
        return self._model.inputs[0].shape[0], None

    def _window(self) -> int:
        return min(2 * int(self.processing.most_rows), MOST_WINDOW)

    def is_per_token(self, tensor: Any) -> bool:
        """Rows have no tokens."""
        return False

    def entries(self, given: Sequence[object]) -> Sequence[object]:
        """The rows of a request, whose values the processing checks."""
        return given

    def check_size(self, entries: Sequence[object]) -> int:
        """The values of the longest row.

        Raises:
            RefusedError: 400, an entry is no row; 413, there are too many, or one has more values than the model takes.
        """
        if not entries:
            raise bad("there is no row; send at least one")
        if len(entries) > MOST_TEXTS:
            raise RefusedError(413, "too-large", f"there are {len(entries)} rows, at most {MOST_TEXTS} are taken")
        for index, entry in enumerate(entries):
            if not isinstance(entry, list | tuple | Mapping) and not (self.processing.of_text and type(entry) is str):
                text = "a string, " if self.processing.of_text else ""
                raise bad(f"inputs[{index}] is neither {text}a list of values nor an object of columns")
            if max(_lengths(entry), default=0) > LONGEST_STRING:
                raise RefusedError(
                    413, "too-large", f"inputs[{index}]: a string has at most {LONGEST_STRING} characters"
                )
        return int(self.processing.columns)

    async def memory(self, entries: Sequence[object], longest: int, *, shaped: bool) -> int:
        """The bytes that making inputs of some rows takes."""
        del shaped  # every entry is one row
        return VALUE_BYTES * len(entries) * longest + TEXT_BYTES * sum(map(_characters, entries))

    def kept(self, rows: Sequence[Any]) -> int:
        """The bytes of rows, and of the inputs that are made of them."""
        held = (array.ravel().tolist() for row in rows for array in row.values() if array.dtype.kind == "O")
        texts = sum(_characters(values) for values in held)
        return VALUE_BYTES * len(rows) * int(self.processing.columns) + TEXT_BYTES * texts

    def tokens(self, rows: Sequence[Any]) -> int:
        """Rows have no tokens."""
        return 0
