"""Ranges of tensors: over channels, samples and opsets, with histograms that widen as they need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ortc.common.arrays import read_arrays, write_arrays
from ortc.common.errors import StageError
from ortc.passes.quantization.calibration import _write_observed
from ortc.passes.quantization.ort_observe import BINS, Histogram, Observer
from ortc.passes.quantization.quantizable import observed

Array = NDArray[Any]
CHANNELS = 6


def model(opset: int) -> onnx.ModelProto:
    """A convolution, whose output is rounded too, and a product of rows that have another number of dimensions."""
    random = np.random.default_rng(0)
    tensors = {
        "w": random.standard_normal((CHANNELS, 2, 3, 3)),
        "v": random.standard_normal((4, 3)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, "height", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def samples(directory: Path, count: int) -> tuple[list[str], list[Array]]:
    random = np.random.default_rng(1)
    arrays = [random.standard_normal((1 + n % 2, 2, 3 + n, 4)).astype(np.float32) for n in range(count)]
    paths = [directory / f"{n}.npz" for n in range(count)]
    for path, array in zip(paths, arrays, strict=True):
        write_arrays(path, {"x": array})
    return [str(path) for path in paths], arrays


def observe(directory: Path, opset: int, paths: list[str], method: str = "minmax") -> dict[str, Array]:
    proto = model(opset)
    tensors = observed(ir.from_proto(proto), ("Conv", "MatMul"))
    assert [(tensor.name, tensor.axis, tensor.channels) for tensor in tensors] == [("x", 1, 2), ("r", -1, 4)]
    _write_observed(ir.from_proto(proto), tensors, directory / "observed.onnx", with_values=method == "percentile")
    request = {
        "model": str(directory / "observed.onnx"),
        "folder": str(directory),
        "tensors": [tensor.name for tensor in tensors],
        "method": method,
        "percentile": 90.0,
        "threads": 1,
    }
    observer = Observer()
    observer.open(request)
    for path in paths:
        observer.add({"sample": path})
    observer.save({"output": str(directory / "found.npz")})
    return read_arrays(directory / "found.npz")


@pytest.mark.parametrize("opset", [13, 17, 18, 20, 23])
def test_ends_of_channels(tmp_path: Path, opset: int) -> None:
    paths, arrays = samples(tmp_path, 3)
    found = observe(tmp_path, opset, paths)
    assert found["minimum"].shape == found["maximum"].shape == (2 + 4,)
    low = np.min([array.min(axis=(0, 2, 3)) for array in arrays], axis=0)
    high = np.max([array.max(axis=(0, 2, 3)) for array in arrays], axis=0)
    np.testing.assert_array_equal(found["minimum"][:2], low)
    np.testing.assert_array_equal(found["maximum"][:2], high)
    powers = np.mean([np.square(array).mean(axis=(0, 2, 3)) for array in arrays], axis=0)
    np.testing.assert_allclose(found["power"][:2], powers, rtol=1e-5)
    # What the rectifier gives, by its last axis.
    assert (found["minimum"][2:] == 0).all()
    assert (found["maximum"][2:] > 0).all()


def test_percentiles_cut_channels_off(tmp_path: Path) -> None:
    paths, arrays = samples(tmp_path, 5)
    whole, found = observe(tmp_path, 17, paths), observe(tmp_path, 17, paths, "percentile")
    values = np.concatenate([array.ravel() for array in arrays])
    low, high = np.percentile(values, [10, 90])
    np.testing.assert_allclose(found["minimum"][:2], low, atol=0.01)
    np.testing.assert_allclose(found["maximum"][:2], high, atol=0.01)
    assert (found["maximum"] <= whole["maximum"]).all()


def test_a_value_that_is_not_finite(tmp_path: Path) -> None:
    paths, _ = samples(tmp_path, 1)
    write_arrays(tmp_path / "bad.npz", {"x": np.full((1, 2, 3, 4), np.inf, np.float32)})
    with pytest.raises(StageError, match=r"`x` is not finite on bad.npz"):
        observe(tmp_path, 17, [*paths, str(tmp_path / "bad.npz")])


@given(
    st.lists(st.floats(-6, 6), min_size=1, max_size=6), st.integers(1, 400), st.sampled_from([50.0, 90.0, 99.0, 99.9])
)
def test_histogram(exponents: list[float], size: int, percentile: float) -> None:
    """Batches of very different spread: bounds are those of all values, to a bin, and cut off no more than was said."""
    random = np.random.default_rng(size)
    batches = [(random.standard_normal(size) * 10**exponent).astype(np.float32) for exponent in exponents]
    histogram = Histogram()
    for batch in batches:
        histogram.add(batch)
    values = np.concatenate(batches).astype(np.float64)
    assert histogram.counts.sum() == values.size
    assert histogram.reach > np.abs(values).max()
    low, high = histogram.percentile(percentile)
    width = 2 * histogram.reach / BINS
    allowed = values.size * (1 - percentile / 100)
    # Values on an edge of a bin may lie on either side of it.
    assert (values < low - width * 1e-3).sum() <= allowed + 1e-6
    assert (values > high + width * 1e-3).sum() <= allowed + 1e-6
    ordered = np.sort(values)
    outermost = max(0, int(np.floor(allowed - 1e-6)))
    assert low >= ordered[outermost] - 1.01 * width
    assert high <= ordered[-1 - outermost] + 1.01 * width


def test_histogram_of_nothing_but_zeros() -> None:
    histogram = Histogram()
    histogram.add(np.zeros(10, np.float32))
    histogram.add(np.zeros(0, np.float32))
    low, high = histogram.percentile(99.0)
    assert -1e-5 < low <= 0 <= high < 1e-5


def histogram(values: Array) -> Histogram:
    found = Histogram()
    found.add(values.astype(np.float32))
    return found


def test_entropy_clips_what_is_rare_and_far() -> None:
    values = np.random.default_rng(7).standard_normal(200_000)
    plain = histogram(values).entropy()
    assert 2.5 < plain < 5.0
    outlier = histogram(np.append(values, [40.0])).entropy()
    assert outlier < 12.0, "one value in 200,000 does not take three quarters of the range"


def test_entropy_keeps_a_range_that_is_used_evenly() -> None:
    assert histogram(np.linspace(-1, 1, 100_001)).entropy() == pytest.approx(1.0, rel=0.1)


def test_entropy_of_nothing_is_finite() -> None:
    assert np.isfinite(histogram(np.zeros(4)).entropy())
