"""Named arrays, and the files in which they travel between processes.

Helper processes in environments without ortc import this module, too: it needs numpy and the standard library alone.
"""

from __future__ import annotations

import ast
import math
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = dict[str, Array]

_STRING = "string"
"""The dtype of tensors of text, whose arrays are numpy's `str_` of any width."""
MOST_UNPACKED = 2**30
"""Most bytes that the compressed members of one file may unpack to; others are bounded by the file itself."""
_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {b"\x01\x00": 2, b"\x02\x00": 4}
"""Bytes of a header's length by version; version 3 is for records, which are no tensors."""
_MOST_HEADER = 10_000
_MOST_SIZE = 2**48
_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|c(8|16)|[SU][1-9]\d{0,8})", re.ASCII)
_CHUNK = 1 << 20


class _Header(NamedTuple):
    """`length` is that of the header itself, in bytes."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    length: int

    @property
    def size(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_arrays(path: Path, most_unpacked: int = MOST_UNPACKED) -> Arrays:
    """Read the arrays of an .npz file by name, in this machine's byte order.

    What the headers promise is compared with what is there before memory is taken. Pickled objects are never read.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is no .npz file, a damaged one, or one that says more than it holds.
    """
    arrays: Arrays = {}
    with _archive(path, most_unpacked) as archive:
        for name, member in _members(archive):
            with archive.open(member) as stream:
                header = _read_header(stream, name)
                if header.length + header.size != member.file_size:
                    raise ValueError(
                        f"the array `{_shown(name)}` is {header.size} bytes by its header and "
                        f"{member.file_size - header.length} bytes in the file"
                    )
                arrays[name] = _read_array(stream, header, name)
    return arrays


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Read the shapes of the arrays of an .npz file by name, without the arrays.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is no .npz file, or a damaged one.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    with _archive(path, MOST_UNPACKED) as archive:
        for name, member in _members(archive):
            with archive.open(member) as stream:
                shapes[name] = _read_header(stream, name).shape
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


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """numpy's type for a dtype of a tensor; of strings the one without a width."""
    return np.dtype(str) if dtype == _STRING else np.dtype(dtype)


def is_of(array: Array, dtype: str) -> bool:
    """Whether an array has the dtype of a tensor; strings may have any width."""
    return array.dtype.kind == "U" if dtype == _STRING else bool(array.dtype == np.dtype(dtype))


@contextmanager
def _archive(path: Path, most_unpacked: int) -> Iterator[zipfile.ZipFile]:
    """Open an archive whose members lie in the file one after the other; every error becomes a ValueError."""
    try:
        # A pipe would wait for a writer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("not a plain file")
        with path.open("rb") as stream:
            if stream.read(len(_MAGIC)) == _MAGIC:
                raise ValueError("a single array, and no .npz file with names")
            with zipfile.ZipFile(stream) as archive:
                _check_members(archive.infolist(), path.stat().st_size, most_unpacked)
                yield archive
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OverflowError, RuntimeError, LookupError) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _check_members(members: list[zipfile.ZipInfo], size: int, most_unpacked: int) -> None:
    """Check the directory of an archive.

    Raises:
        ValueError: a member is no array, is there twice, reaches into another, or is too large.
    """
    packed = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    names: set[str] = set()
    end = unpacked = 0
    for member in sorted(members, key=lambda entry: entry.header_offset):
        name = member.filename
        if not name.endswith(".npy") or member.compress_type not in packed or member.flag_bits & 0x1:
            raise ValueError(f"its member `{_shown(name)}` is no array as numpy.savez writes them")
        if name in names:
            raise ValueError(f"the array `{_shown(name[:-4])}` is there more than once")
        if member.header_offset < end or member.header_offset + member.compress_size > size:
            raise ValueError(f"the array `{_shown(name[:-4])}` reaches into others, or beyond the end of the file")
        if member.compress_type == zipfile.ZIP_STORED and member.file_size != member.compress_size:
            raise ValueError(f"the array `{_shown(name[:-4])}` has two lengths")
        names.add(name)
        end = member.header_offset + member.compress_size
        unpacked += member.file_size if member.compress_type == zipfile.ZIP_DEFLATED else 0
    if unpacked > most_unpacked:
        raise ValueError(
            f"compressed arrays unpack to {unpacked} bytes, more than {most_unpacked}; write them without compression"
        )


def _members(archive: zipfile.ZipFile) -> list[tuple[str, zipfile.ZipInfo]]:
    return [(member.filename.removesuffix(".npy"), member) for member in archive.infolist()]


def _read_header(stream: IO[bytes], name: str) -> _Header:
    """Read the header of an array.

    Raises:
        ValueError: it is not one of a plain array.
    """
    start = stream.read(len(_MAGIC) + 2)
    width = _LENGTH_BYTES.get(start[len(_MAGIC) :], 0)
    length = int.from_bytes(stream.read(width), "little")
    if not start.startswith(_MAGIC) or not width or not 0 < length <= _MOST_HEADER:
        raise ValueError(f"`{_shown(name)}` does not begin as an array does")
    text = stream.read(length).decode("latin-1")
    try:
        found = ast.literal_eval(text.strip())
        descr, fortran, shape = found["descr"], found["fortran_order"], found["shape"]
    except (SyntaxError, ValueError, TypeError, LookupError, RecursionError, MemoryError) as error:
        raise ValueError(f"the header of the array `{_shown(name)}` cannot be read") from error
    dtype = _dtype(descr) if isinstance(descr, str) else None
    if dtype is None:
        raise ValueError(
            f"the array `{_shown(name)}` has the type `{_shown(str(descr))}`: pickled objects and records are not read"
        )
    sizes = shape if isinstance(shape, tuple) else (None,)
    if not all(type(size) is int and 0 <= size < _MOST_SIZE for size in sizes) or len(sizes) > 32:
        raise ValueError(f"the array `{_shown(name)}` has the shape {_shown(str(shape))}")
    return _Header(dtype, sizes, fortran is True, len(start) + width + length)


def _dtype(descr: str) -> np.dtype[Any] | None:
    """The type that a header names, None where it is no plain one."""
    try:
        return np.dtype(descr) if _DTYPE.fullmatch(descr) else None
    except TypeError:
        # Texts longer than numpy has.
        return None


def _read_array(stream: IO[bytes], header: _Header, name: str) -> Array:
    """Read an array whose size is known to be that of the rest of the stream."""
    content = np.empty(header.size, np.uint8)
    at = 0
    while chunk := stream.read(_CHUNK):
        if at + len(chunk) > header.size:
            raise ValueError(f"the array `{_shown(name)}` is longer than its header says")
        content[at : at + len(chunk)] = np.frombuffer(chunk, np.uint8)
        at += len(chunk)
    if at != header.size:
        raise ValueError(f"the array `{_shown(name)}` is shorter than its header says")
    array = content.view(header.dtype)
    if not header.dtype.isnative:
        array = array.byteswap(inplace=True).view(header.dtype.newbyteorder("="))
    return array.reshape(header.shape[::-1]).T if header.fortran else array.reshape(header.shape)


def _shown(text: str) -> str:
    plain = ascii(text)[1:-1]
    return plain if len(plain) <= 80 else f"{plain[:79]}…"
