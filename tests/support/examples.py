"""How many examples property tests draw: all in `make proofs`, a share in `make test`, fewer in `make test-fast`.

And how large the inputs are that show what takes more than linear time.
"""

from __future__ import annotations

import os

SHARES = {"fast": 8, "all": 1}
SHARE = 4
LEAST = 5


def examples(count: int) -> int:
    """Return the number of examples to draw where `make proofs` draws `count`."""
    return max(LEAST, count // SHARES.get(os.environ.get("ORTC_TESTS", ""), SHARE))


def size(count: int) -> int:
    """Return how large the input of a test of linear time is where all other runs of the suite have `count`."""
    return count // 4 if os.environ.get("ORTC_TESTS") == "fast" else count
