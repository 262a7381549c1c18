"""Named arrays, and the files in which they travel between processes."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = dict[str, Array]


def read_arrays(path: Path) -> Arrays:
    """Arrays of an .npz file by name; pickled objects are never read.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is no .npz file, or a damaged one.
    """
    # Opened here: numpy leaves a damaged file open.
    with path.open("rb") as stream:
        try:
            archive = np.load(stream, allow_pickle=False)
            if isinstance(archive, np.lib.npyio.NpzFile):
                return {name: archive[name] for name in archive.files}
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise ValueError(str(error)) from error
    raise ValueError("a single array, and no .npz file with names")


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays of an .npz file by name; what the arrays hold is not read."""
    shapes: dict[str, tuple[int, ...]] = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as member:
                version = np.lib.format.read_magic(member)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shapes[name.removesuffix(".npy")] = read(member)[0]
    return shapes


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays to an .npz file; equal arrays give equal bytes.

    Like numpy.savez, for any names (savez refuses `file`) and exactly at `path` (savez appends .npz).
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            # A member opened by name has the zip epoch as its time, not the clock's.
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
