"""Named arrays, and the files in which they travel between processes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = dict[str, Array]


def read_arrays(path: Path) -> Arrays:
    """Arrays of an .npz file by name; pickled objects are never read."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays to an .npz file; equal arrays give equal bytes."""
    np.savez(path, allow_pickle=False, **dict(arrays))
