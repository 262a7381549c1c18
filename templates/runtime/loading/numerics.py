"""NaN where none was at build time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


class NanWatch:
    """Finds NaN in what a model is given and gives, but where its golden cases have NaN, too.

    Attributes:
        on: Whether it looks at all.
        known: Inputs and outputs that hold NaN in the golden cases.
    """

    def __init__(self) -> None:
        self.on = False
        self.known: set[str] = set()

    def finds(self, name: str, array: NDArray[Any]) -> bool:
        """Whether the input or output of this name holds NaN and should not."""
        return self.on and name not in self.known and has_nan(array)


def has_nan(array: NDArray[Any]) -> bool:
    """Whether there is a NaN. Their sum has one then, too, and costs half of asking for each."""
    if array.dtype.kind != "f":
        return False
    with np.errstate(all="ignore"):  # infinities of both signs, and float16 that overflows: looked into
        return not math.isfinite(array.sum()) and bool(np.isnan(array).any())
