"""Files of named arrays."""

import contextlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.support.bundles import runtime_module

from ortc.common.arrays import Array, read_arrays, write_arrays

loader: Any = runtime_module("loader")
DTYPES = ["float64", "float32", "float16", "int64", "int32", "int8", "uint8", "uint64", "bool"]
ARRAYS = st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_side=3)))
# numpy's own savez has parameters of these names.
NAMES = st.sampled_from(["file", "args", "kwds", "allow_pickle", "input_ids", "a.b", "a/b", "é"])


@given(st.dictionaries(NAMES, ARRAYS, max_size=3))
def test_arrays_survive_the_way_to_a_worker_and_back(
    tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, Array]
) -> None:
    path = tmp_path_factory.getbasetemp() / "arrays.npz"
    write_arrays(path, arrays)
    for found in (read_arrays(path), loader.read_npz(path)):
        assert list(found) == list(arrays)
        for name, array in arrays.items():
            assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
            assert found[name].tobytes() == array.tobytes()
    loader.write_npz(path, arrays)
    assert list(read_arrays(path)) == list(arrays)


def test_equal_arrays_give_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {"x": np.arange(6.0).reshape(2, 3).T, "y": np.array(1)}
    write_arrays(tmp_path / "one", arrays)
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
    write_arrays(tmp_path / "two", arrays)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with zipfile.ZipFile(tmp_path / "two") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_pickles_are_neither_written_nor_read(tmp_path: Path) -> None:
    objects = np.array([{}], dtype=object)
    with pytest.raises(ValueError, match="allow_pickle"):
        write_arrays(tmp_path / "x.npz", {"x": objects})
    np.savez(tmp_path / "y.npz", x=objects)
    with pytest.raises(ValueError, match="pickled objects and records are not read"):
        read_arrays(tmp_path / "y.npz")


@given(st.data())
def test_a_damaged_file_is_a_value_error(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    write_arrays(path, {"x": np.arange(5.0), "y": np.ones((2, 2), dtype=np.int8)})
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(ValueError):
        read_arrays(path)
