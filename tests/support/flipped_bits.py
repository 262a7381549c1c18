"""Places in a bundle where a flipped bit has to be noticed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.support.examples import examples


def files(bundle: Path) -> list[str]:
    return sorted(path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file())


def every_bit(bundle: Path) -> Iterator[tuple[str, int]]:
    for name in files(bundle):
        size = (bundle / name).stat().st_size
        # The ends and between; of what has no digest in SHA256SUMS more.
        step = max(1, size // (examples(8) if name.startswith(("attestations/", "measurements/")) else 2))
        yield from ((name, byte) for byte in {*range(0, size, step), size - 1})
