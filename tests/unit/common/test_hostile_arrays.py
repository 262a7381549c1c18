"""Files of arrays that say more than they hold: the compiler's reader and the bundle's refuse the same ones."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.bundles import runtime_module

from ortc.common.arrays import read_arrays, read_shapes, write_arrays

loader: Any = runtime_module("loader")
arrays_module = runtime_module("loading.arrays")
STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
Read = Callable[[Path], Any]
READERS: dict[str, Read] = {"compiler": read_arrays, "bundle": loader.read_npz}
REFUSED = (ValueError, loader.InputError)
MOST_MEMORY = 8 * 2**20


def header(text: str, version: bytes = b"\x01\x00", length: int | None = None) -> bytes:
    """The head of an .npy file whose dictionary is this text."""
    size = len(text) if length is None else length
    return b"\x93NUMPY" + version + size.to_bytes(2 if version == b"\x01\x00" else 4, "little") + text.encode("latin-1")


def described(shape: str, descr: str = "'<f4'", fortran: str = "False") -> bytes:
    return header(f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n")


def archive(*members: tuple[str, bytes], how: int = STORED) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as file:
        for name, content in members:
            file.writestr(zipfile.ZipInfo(name), content, how, 9)
    return written.getvalue()


def one(head: bytes, content: bytes = b"") -> bytes:
    return archive(("x.npy", head + content))


def plain() -> bytes:
    return described("(2,)") + bytes(8)


def changed(content: bytes, signature: bytes, at: int, form: str, value: int) -> bytes:
    """An archive with one field of a record replaced in each record of that kind."""
    data, place = bytearray(content), content.find(signature)
    while place >= 0:
        struct.pack_into(form, data, place + at, value)
        place = content.find(signature, place + 4)
    return bytes(data)


CENTRAL = b"PK\x01\x02"


def overlapping() -> bytes:
    """Two members that are the same bytes."""
    two = archive(("x.npy", plain()), ("y.npy", plain()))
    second = two.rfind(CENTRAL)
    return two[: second + 42] + struct.pack("<I", 0) + two[second + 46 :]


def twice() -> bytes:
    return archive(("x.npy", plain()), ("z.npy", plain())).replace(b"z.npy", b"x.npy")


ATTACKS: dict[str, bytes] = {
    "terabytes": one(described("(1099511627776,)")),
    "texts longer than numpy has": one(described("(1,)", "'<U999999999'")),
    "terabytes of rows": one(described("(1048576, 1048576, 64)")),
    "a tower of powers": one(described("(7**9**9,)")),
    "a product": one(described("(9**9 * 9**9,)")),
    "a huge number": one(described(f"({'9' * 4000},)")),
    "a negative size": one(described("(-1, 2)"), bytes(8)),
    "sizes that cancel out": one(described("(0, 9999999999999999999)")),
    "truth as a size": one(described("(True,)"), bytes(4)),
    "a size that is no number": one(described("('2',)"), bytes(8)),
    "no tuple": one(described("2"), bytes(8)),
    "forty dimensions": one(described(f"({'1,' * 40})"), bytes(4)),
    "objects": one(described("(1,)", "'|O'"), bytes(8)),
    "records": one(described("(1,)", "[('a', '<f4')]"), bytes(4)),
    "a type with a shape of its own": one(described("(1,)", "'(1000000,1000000)f4'")),
    "a type of nothing": one(described("(1099511627776,)", "'<U0'")),
    "a type of dates": one(described("(1,)", "'<M8[s]'"), bytes(8)),
    "a header of two GiB": one(header("{}", b"\x02\x00", 2**31)),
    "a header of blanks": archive(("x.npy", header(" " * 50_000)), how=DEFLATED),
    "a header of brackets": one(header("(" * 9000)),
    "a header of signs": one(header("-" * 9000 + "1")),
    "a header of calls": one(header("{'descr': exec('1'), 'fortran_order': False, 'shape': (2,)}"), bytes(8)),
    "no dictionary": one(header("[1, 2]")),
    "no shape": one(header("{'descr': '<f4', 'fortran_order': False}"), bytes(8)),
    "an unknown version": one(header("{}", b"\x03\x00")),
    "too short": one(described("(2,)"), bytes(7)),
    "too long": one(described("(2,)"), bytes(9)),
    "a bomb": archive(("x.npy", described("(1342177280,)", "'|i1'")), how=DEFLATED),
    "no array": archive(("x.txt", b"x")),
    "a name twice": twice(),
    "members of the same bytes": overlapping(),
    "a member in bzip2": archive(("x.npy", plain()), how=zipfile.ZIP_BZIP2),
    "a size that lies": changed(one(plain()), CENTRAL, 24, "<I", 0x7FFFFFFF),
    "two sizes that lie": changed(changed(one(plain()), CENTRAL, 24, "<I", 2**30), CENTRAL, 20, "<I", 2**30),
    "a size for zip64": changed(one(plain()), CENTRAL, 24, "<I", 0xFFFFFFFF),
    "encrypted": changed(one(plain()), CENTRAL, 8, "<H", 1),
    "an offset that lies": changed(one(plain()), CENTRAL, 42, "<I", 0x7FFFFFFF),
    "a single array": plain(),
    "nothing": b"",
    "no archive": b"PK\x05\x06" + bytes(10),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_files_that_lie_are_refused_before_memory_is_taken(attack: str, reader: str, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(ATTACKS[attack])
    tracemalloc.start()
    try:
        with pytest.raises(REFUSED) as refused:
            READERS[reader](path)
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("reader", READERS)
def test_compressed_arrays_unpack_to_no_more_than_the_limit(reader: str, tmp_path: Path) -> None:
    """A gigabyte of zeros is one megabyte of archive; the directory tells before any of it is unpacked."""
    path = tmp_path / "x.npz"
    head = described("(2147483648,)", "'|i1'")
    small = archive(("x.npy", head + bytes(1000)), how=DEFLATED)
    path.write_bytes(changed(small, CENTRAL, 24, "<I", len(head) + 2**31))
    with pytest.raises(REFUSED, match="more than 1073741824"):
        READERS[reader](path)
    path.write_bytes(changed(small, CENTRAL, 24, "<I", len(head) + 2**20))
    with pytest.raises(REFUSED):
        READERS[reader](path)


@pytest.mark.parametrize("reader", READERS)
def test_arrays_of_any_order_are_read_as_what_they_mean(reader: str, tmp_path: Path) -> None:
    given = {
        "big": np.arange(6, dtype=">f4").reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6, dtype="<i8").reshape(2, 3)),
        "both": np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)),
        "empty": np.zeros((0, 3), np.float32),
        "scalar": np.array(2.5),
        "flags": np.array([True, False]),
        "words": np.array(["a", "bc"]),
    }
    np.savez_compressed(tmp_path / "x.npz", **given)
    np.savez(tmp_path / "y.npz", **given)
    for name in ("x.npz", "y.npz"):
        found = READERS[reader](tmp_path / name)
        assert list(found) == list(given)
        for key, array in given.items():
            np.testing.assert_array_equal(found[key], array)
            assert found[key].dtype == array.dtype.newbyteorder("=")
            assert found[key].dtype.isnative


@pytest.mark.parametrize("reader", READERS)
def test_names_that_end_like_files_stay_apart(reader: str, tmp_path: Path) -> None:
    """numpy gives the array of `x` for `x.npy` where a file has both."""
    given = {"x": np.zeros(2), "x.npy": np.ones(3), "../../x": np.full(1, 7.0)}
    write_arrays(tmp_path / "x.npz", given)
    found = READERS[reader](tmp_path / "x.npz")
    assert {name: array.tolist() for name, array in found.items()} == {
        name: array.tolist() for name, array in given.items()
    }
    assert read_shapes(tmp_path / "x.npz") == {"x": (2,), "x.npy": (3,), "../../x": (1,)}


def test_single_arrays_are_read_under_the_same_rules(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(3, dtype=">i4"))
    assert arrays_module.read_npy(tmp_path / "x.npy").tolist() == [0, 1, 2]
    for content in (described("(1099511627776,)"), described("(1,)", "'|O'") + bytes(8), b"", b"\x93NUMPY"):
        (tmp_path / "x.npy").write_bytes(content)
        with pytest.raises(loader.InputError, match=r"cannot be read as \.npy"):
            arrays_module.read_npy(tmp_path / "x.npy")


def test_no_other_code_reads_files_of_arrays() -> None:
    root = Path(__file__).parents[3]
    sources = [*(root / "compiler" / "ortc").rglob("*.py"), *(root / "templates" / "runtime").rglob("*.py")]
    asks = [path.name for path in sources for word in ("np.load(", "np.savez", ".NpzFile") if word in path.read_text()]
    assert asks == []
