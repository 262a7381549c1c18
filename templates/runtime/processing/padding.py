"""Rows of tokens to the model's inputs: padded to one length, within the bounds of the axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from loading.errors import FormatError
from numpy.typing import NDArray

IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"
UNBOUNDED = 2**31 - 1


@dataclass(frozen=True)
class Row:
    """One text as the model takes it, without padding.

    The other fields are empty unless an answer needs places in the text. `offsets` are the places of the tokens in the
    text, (0, 0) for special tokens; `sequence` is 0 for tokens of the text, 1 for those of the second text of a pair,
    None for special ones. `special` tells the tokens that frame a text from those of the text, and `words` are the
    numbers of the words that tokens are of.
    """

    ids: tuple[int, ...]
    types: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...] = ()
    sequence: tuple[int | None, ...] = ()
    special: tuple[bool, ...] = ()
    words: tuple[int | None, ...] = ()


class Padding:
    """Makes a model's inputs of rows of tokens.

    Args:
        settings: `text.padding` of processing.json.
        shapes: Shapes of the model's inputs by name: names of axes and sizes.
        dtypes: Their types by name.
        bounds: Least size, greatest size and step of each axis by name.

    Raises:
        FormatError: no text gives one of the inputs, or the side of padding is unknown.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        shapes: Mapping[str, Sequence[str | int | None]],
        dtypes: Mapping[str, np.dtype[Any]],
        bounds: Mapping[str, tuple[int, int, int]],
    ) -> None:
        if unknown := shapes.keys() - {IDS, MASK, TYPES}:
            raise FormatError(f"the model takes {sorted(unknown)}, which no text gives")
        if IDS not in shapes or any(len(shape) != 2 for shape in shapes.values()):
            raise FormatError(f"the model takes no {IDS} of two dimensions")
        if settings["side"] not in ("left", "right"):
            raise FormatError("the side of padding is unknown")
        self._dtypes = dict(dtypes)
        self._rows, self._width = (_bounds(entry, bounds) for entry in shapes[IDS])
        self.is_left: bool = settings["side"] == "left"
        self._fill = {IDS: int(settings["token"]), TYPES: int(settings["type"]), MASK: 0}

    @property
    def most_tokens(self) -> int:
        """The most tokens of one row."""
        return self._width[1]

    @property
    def most_rows(self) -> int:
        """The most rows of one run."""
        return self._rows[1]

    def inputs(self, rows: Sequence[Row]) -> dict[str, NDArray[Any]]:
        """The model's inputs for some rows: padded to the longest, within the bounds of the axes.

        Rows are repeated where a run takes more than there are; nobody reads their answers.
        """
        most = max(max((len(row.ids) for row in rows), default=0), 1)
        width, count = _fitting(most, self._width), _fitting(len(rows), self._rows)
        filled = [*rows, *[rows[-1]] * (count - len(rows))]
        made = {name: np.full((count, width), self._fill[name], dtype=dtype) for name, dtype in self._dtypes.items()}
        for index, row in enumerate(filled):
            place = self.positions(row, width)
            values = {IDS: row.ids, TYPES: row.types, MASK: (1,) * len(row.ids)}
            for name, array in made.items():
                array[index, place] = values[name]
        return made

    def joined(self, runs: Sequence[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
        """The inputs of several runs as those of one: padded to the longest of them, in their order."""
        widest = max(int(run[IDS].shape[1]) for run in runs)

        def padded(name: str, array: NDArray[Any]) -> NDArray[Any]:
            missing = widest - array.shape[1]
            sides = (missing, 0) if self.is_left else (0, missing)
            return np.pad(array, ((0, 0), sides), constant_values=self._fill[name]) if missing else array

        return {name: np.concatenate([padded(name, run[name]) for run in runs]) for name in runs[0]}

    def positions(self, row: Row, width: int) -> slice:
        """Where the tokens of a row stand in a padded row."""
        length = len(row.ids)
        return slice(width - length, width) if self.is_left else slice(0, length)


def _bounds(entry: str | int | None, bounds: Mapping[str, tuple[int, int, int]]) -> tuple[int, int, int]:
    if isinstance(entry, int):
        return entry, entry, 1
    return (1, UNBOUNDED, 1) if entry is None else bounds[entry]


def _fitting(size: int, bounds: tuple[int, int, int]) -> int:
    """The least size of an axis that holds so many."""
    least, _, step = bounds
    return -(-max(size, least) // step) * step
