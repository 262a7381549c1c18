"""Arrays in .npz and .npy files: read within bounds and without pickle, and written under any name."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import BundleError, InputError

MOST_UNPACKED = 2**30  # bytes that the compressed arrays of one file may unpack to
Arrays = dict[str, NDArray[Any]]


def plain(answer: Any) -> Any:
    """An answer as JSON has it: arrays as nested lists."""
    if isinstance(answer, np.ndarray):
        return answer.tolist()
    if isinstance(answer, list):
        return [plain(entry) for entry in answer]
    return answer


def read_npz(path: Path, error: type[BundleError] = InputError) -> Arrays:
    """The arrays of an .npz file, in this machine's byte order; pickled objects are never read.

    What headers promise is compared with what the file holds before memory is taken.
    """
    import struct
    import zipfile
    import zlib

    broken = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OverflowError, RuntimeError, LookupError)
    try:
        with path.open("rb") as stream:
            if stream.read(6) == b"\x93NUMPY":
                raise error(f"{path} is a single array. Expected an .npz file, with the inputs' names as keys.")
            arrays: Arrays = {}
            with zipfile.ZipFile(stream) as archive:
                _check_members(archive.infolist(), path.stat().st_size)
                for entry in archive.infolist():
                    with archive.open(entry) as member:
                        arrays[entry.filename[:-4]] = _read_array(member, entry.file_size)
            return arrays
    except (OSError, ValueError, *broken) as problem:
        raise error(f"{path} cannot be read as .npz: {problem or type(problem).__name__}.") from problem


def read_npy(path: Path, error: type[BundleError] = InputError) -> NDArray[Any]:
    """The array of an .npy file, under the same rules."""
    try:
        with path.open("rb") as stream:
            return _read_array(stream, path.stat().st_size)
    except (OSError, ValueError) as problem:
        raise error(f"{path} cannot be read as .npy: {problem}.") from problem


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Like numpy.savez, for any names (savez refuses `file`) and exactly at `path` (savez appends .npz)."""
    import zipfile

    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _check_members(members: Sequence[Any], size: int) -> None:
    """Refuse an archive whose members are no arrays, are there twice, overlap or unpack to too much."""
    stored, deflated = 0, 8
    names: set[str] = set()
    end = unpacked = 0
    for member in sorted(members, key=lambda entry: entry.header_offset):
        name = ascii(member.filename[:80])
        if not member.filename.endswith(".npy") or member.compress_type not in (stored, deflated):
            raise ValueError(f"its member {name} is no array as numpy.savez writes them")
        if member.filename in names:
            raise ValueError(f"{name} is there more than once")
        if member.header_offset < end or member.header_offset + member.compress_size > size:
            raise ValueError(f"{name} reaches into others, or beyond the end of the file")
        if member.compress_type == stored and member.file_size != member.compress_size:
            raise ValueError(f"{name} has two lengths")
        names.add(member.filename)
        end = member.header_offset + member.compress_size
        unpacked += member.file_size if member.compress_type == deflated else 0
    if unpacked > MOST_UNPACKED:
        raise ValueError(f"compressed arrays unpack to {unpacked} bytes, more than {MOST_UNPACKED}")


def _read_array(stream: Any, size: int) -> NDArray[Any]:
    """The array in the .npy format of so many bytes in all."""
    import ast

    start = stream.read(8)
    width = {b"\x93NUMPY\x01\x00": 2, b"\x93NUMPY\x02\x00": 4}.get(start, 0)
    length = int.from_bytes(stream.read(width), "little")
    if not width or not 0 < length <= 10_000:
        raise ValueError("it does not begin as an array does")
    try:
        header = ast.literal_eval(stream.read(length).decode("latin-1").strip())
        descr, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    except (SyntaxError, ValueError, TypeError, LookupError, RecursionError, MemoryError) as problem:
        raise ValueError("the header of an array cannot be read") from problem
    if not isinstance(descr, str) or not re.fullmatch(r"[<>|=]?(b1|[iu][1248]|f[248]|c(8|16)|[SU][1-9]\d{0,8})", descr):
        raise ValueError(f"the type {ascii(descr)[:80]}: pickled objects and records are not read")
    if not isinstance(shape, tuple) or len(shape) > 32 or not all(type(s) is int and 0 <= s < 2**48 for s in shape):
        raise ValueError(f"the shape {ascii(shape)[:80]} of an array")
    try:
        dtype = np.dtype(descr)
    except TypeError as problem:
        raise ValueError(f"the type {ascii(descr)[:80]} is longer than numpy has") from problem
    held = size - len(start) - width - length
    wanted = math.prod(shape) * dtype.itemsize
    if wanted != held:
        raise ValueError(f"an array of {wanted} bytes by its header, and {held} bytes in the file")
    content = np.empty(held, np.uint8)
    at = 0
    while chunk := stream.read(1 << 20):
        if at + len(chunk) > held:
            raise ValueError("an array that is longer than its header says")
        content[at : at + len(chunk)] = np.frombuffer(chunk, np.uint8)
        at += len(chunk)
    if at != held:
        raise ValueError("an array that is shorter than its header says")
    array = content.view(dtype)
    if not dtype.isnative:
        array = array.byteswap(inplace=True).view(dtype.newbyteorder("="))
    return array.reshape(shape[::-1]).T if fortran is True else array.reshape(shape)
