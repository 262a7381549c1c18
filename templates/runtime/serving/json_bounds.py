"""What a JSON text holds outside of its strings, counted before any object is made of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CHUNK = 65536
QUOTE, BACKSLASH = ord('"'), ord("\\")


@dataclass(frozen=True)
class Structure:
    """Signs between values: commas, and the beginnings of lists and objects."""

    values: int
    lists: int
    objects: int

    def beyond(self, most: Structure) -> str:
        """What there is more of than there may be: `values`, `lists` or `objects`; empty where there is not."""
        names = ("values", "lists", "objects")
        return next((name for name in names if getattr(self, name) > getattr(most, name)), "")

    @property
    def bytes(self) -> int:
        """Bytes of memory that the objects take, at most about; without the characters of strings."""
        return 40 * self.values + 64 * self.lists + 250 * self.objects


def count(body: bytes | bytearray, end: int) -> Structure:
    """Every such sign, those in strings included: at least what `structure` finds, and faster."""
    # numpy lets other threads run meanwhile, bytes.count does not.
    content = np.frombuffer(body, np.uint8, end)
    return Structure(*(int(np.count_nonzero(content == ord(sign))) for sign in ",[{"))


def structure(body: bytes | bytearray, end: int) -> Structure:
    """The signs outside of strings, of which objects are made; exact for every JSON text."""
    content = np.frombuffer(body, np.uint8, end)
    counts = [0, 0, 0]
    inside = escaped = False  # of a string; the next byte belongs to an escape
    for start in range(0, end, CHUNK):
        part = content[start : start + CHUNK]
        quotes, escaped = _quotes(part, escaped)
        within = (np.cumsum(quotes, dtype=np.int32) + inside) & 1
        inside = bool(within[-1])
        outside = part[within == 0]
        for place, sign in enumerate(",[{"):
            counts[place] += int(np.count_nonzero(outside == ord(sign)))
    return Structure(*counts)


def _quotes(part: NDArray[np.uint8], escaped: bool) -> tuple[NDArray[np.bool_], bool]:
    """Which bytes are quotes that no backslash escapes, and whether the byte after the part is escaped."""
    quotes = part == QUOTE
    backslashes = np.flatnonzero(part == BACKSLASH)
    if not backslashes.size:
        if escaped:
            quotes[0] = False
        return quotes, False
    # Backslashes in a row escape each other in pairs.
    starts = np.flatnonzero(np.diff(backslashes, prepend=-2) != 1)
    lengths = np.diff(starts, append=backslashes.size)
    firsts = backslashes[starts]
    ends = firsts + lengths
    odd = lengths % 2 == 1
    if escaped:
        if firsts[0] == 0:
            odd[0] = not odd[0]
        else:
            quotes[0] = False
    after = ends[odd]
    quotes[after[after < part.size]] = False
    return quotes, bool(after.size and after[-1] == part.size)
