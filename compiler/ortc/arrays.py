"""Named arrays, and the files in which they travel between processes."""

import zipfile
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
    """Write arrays to an .npz file; equal arrays give equal bytes.

    Like numpy.savez, for any names (savez refuses `file`) and exactly at `path` (savez appends .npz).
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            # A member opened by name has the zip epoch as its time, not the clock's.
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
