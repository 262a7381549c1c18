"""How many examples property tests draw: all of them in `make test`, a share of them in `make test-fast`."""

from __future__ import annotations

import os

SHARE = 8
LEAST = 5


def examples(count: int) -> int:
    """Return the number of examples to draw where the whole suite draws `count`."""
    return max(LEAST, count // SHARE) if os.environ.get("ORTC_TESTS") == "fast" else count
