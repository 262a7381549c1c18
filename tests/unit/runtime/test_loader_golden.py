"""The golden self-test: what counts as the same answer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import numpy_helper
from tests.support import bundles

loader = bundles.runtime_module("loader")
golden = bundles.runtime_module("loading.golden")

EXACT = {"max_abs": 1e-4, "cosine": None}
SIMILAR = {"max_abs": None, "cosine": 0.98}
FLOATS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
    elements=st.floats(width=32, allow_subnormal=False),
)


def test_a_good_bundle_reports_what_it_observed(tmp_path: Path) -> None:
    with loader.Model.load(bundles.linear().write(tmp_path / "bundle")) as model:
        assert [case["name"] for case in model.golden] == ["case-0", "case-1"]
        for case in model.golden:
            assert case["tolerance"] == {"max_abs": 1e-5, "cosine": 0.9999}
            assert 0 <= case["max_abs"] <= 1e-5
            assert 0.9999 <= case["cosine"] <= 1
            assert case["outputs"].keys() == {"y", "label"}


def test_weights_off_by_a_percent_are_refused_though_every_digest_is_right(tmp_path: Path) -> None:
    bundle = bundles.linear().write(tmp_path / "bundle")
    model = onnx.load(bundle / "model/model.onnx")
    weights = model.graph.initializer[0]
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32(1.01), weights.name))
    onnx.save(model, bundle / "model/model.onnx")
    bundles.seal(bundle)
    with pytest.raises(
        loader.GoldenError, match=r"'case-0', output 'y': max_abs is .*, allowed 1e-05 \(at \["
    ) as caught:
        loader.Model.load(bundle)
    assert (caught.value.code, caught.value.exit_code) == ("golden", 9)
    loader.Model.load(bundle, selftest=False).close()


def test_a_bundle_without_golden_cases_shows_nothing(tmp_path: Path) -> None:
    recipe = bundles.linear()
    recipe.golden, recipe.manifest["golden"] = [], []
    bundle = recipe.write(tmp_path / "bundle")
    with pytest.raises(loader.GoldenError, match="no golden case"):
        loader.Model.load(bundle)
    loader.Model.load(bundle, selftest=False).close()


@pytest.mark.parametrize(
    ("outputs", "error", "message"),
    [
        ({"y": np.zeros((1, 3), np.float32)}, "format", "expected every output"),
        ({"y": np.zeros((1, 3), np.float32), "label": np.zeros(1, np.int64), "z": np.zeros(1)}, "format", "'z'"),
        ({"y": np.zeros((2, 3), np.float32), "label": np.zeros(1, np.int64)}, "golden", r"shape is \[1, 3\], expected"),
        ({"y": np.zeros((1, 3), np.int64), "label": np.zeros(1, np.int64)}, "golden", "dtype is float32"),
    ],
)
def test_golden_outputs_must_be_the_models(tmp_path: Path, outputs: Any, error: str, message: str) -> None:
    bundle = bundles.linear().write(tmp_path / "bundle")
    np.savez(bundle / "golden/0.outputs.npz", **outputs)
    bundles.seal(bundle)
    with pytest.raises(loader.BundleError, match=message) as caught:
        loader.Model.load(bundle)
    assert caught.value.code == error


def test_golden_inputs_that_the_model_does_not_take_are_a_golden_error(tmp_path: Path) -> None:
    recipe = bundles.linear()
    recipe.manifest["axes"][0]["max"] = 2
    with pytest.raises(loader.GoldenError, match=r"'case-1' could not be run: .*Send 1 to 2"):
        loader.Model.load(recipe.write(tmp_path / "bundle"))


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + b"\0" * 18 + b"x", b"nonsense"])
def test_golden_files_that_are_no_archives(tmp_path: Path, content: bytes) -> None:
    bundle = bundles.linear().write(tmp_path / "bundle")
    (bundle / "golden/0.inputs.npz").write_bytes(content)
    bundles.seal(bundle)
    with pytest.raises(loader.BundleError) as caught:
        loader.Model.load(bundle)
    assert caught.value.code in ("format", "golden")


def test_pickles_are_not_read(tmp_path: Path) -> None:
    bundle = bundles.linear().write(tmp_path / "bundle")
    np.savez(bundle / "golden/0.inputs.npz", x=np.array([{}], dtype=object))
    bundles.seal(bundle)
    with pytest.raises(loader.FormatError, match="pickled objects and records are not read"):
        loader.Model.load(bundle)


def test_masked_positions_do_not_count() -> None:
    expected = np.ones((2, 3, 4))
    observed = expected.copy()
    observed[1, 2] = -1
    mask = np.array([[1, 1, 1], [1, 1, 0]])
    for tolerance in (EXACT, SIMILAR):
        assert golden.compare(expected, observed, tolerance, mask) == ({"max_abs": 0.0, "cosine": 1.0}, None)
    result, problem = golden.compare(expected, observed, EXACT)
    assert problem == "max_abs is 2, allowed 0.0001 (at [1, 2, 0]: expected 1, found -1)"
    assert result == {"max_abs": 2.0, "cosine": pytest.approx(1 / 3)}
    assert golden.compare(expected, observed, SIMILAR)[1] == "the worst sample's cosine is 0.333333, allowed 0.980000"
    observed[1, 2], observed[1, 1] = np.nan, -1
    assert golden.compare(expected, observed, EXACT, mask)[0]["max_abs"] == 2


def test_a_mask_of_another_shape_does_not_apply() -> None:
    pooled = np.ones((2, 4))
    for mask in (np.zeros((2, 3)), np.zeros(2), np.zeros((2, 4, 1))):
        assert golden.compare(pooled, -pooled, SIMILAR, mask)[0]["cosine"] == -1
        assert golden.compare(pooled[:, 0], -pooled[:, 0], SIMILAR, mask)[0]["cosine"] == -1


def test_a_mask_that_hides_everything_shows_nothing() -> None:
    x = np.ones((2, 3))
    assert golden.compare(x, x, EXACT, np.zeros((2, 3)))[1] == "the mask leaves nothing to compare"


def test_the_worst_sample_counts_not_the_mean() -> None:
    expected = np.eye(100)
    observed = expected.copy()
    observed[7] = np.roll(observed[7], 1)
    assert golden.worst_cosine(expected, observed) == 0


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1.0, 1e30, 1e300])
def test_cosine_neither_overflows_nor_vanishes(scale: float) -> None:
    x = np.array([[1.0, 2.0, 3.0]]) * scale
    assert golden.worst_cosine(x, x) == pytest.approx(1)
    assert golden.worst_cosine(x, -x) == pytest.approx(-1)
    assert golden.worst_cosine(x, x * 0) == 0
    assert golden.worst_cosine(x * 0, x * 0) == 1


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("expected", "observed", "same"),
    [
        ([NAN, 1], [NAN, 1], True),
        ([INF, -INF], [INF, -INF], True),
        ([INF, 1], [-INF, 1], False),
        ([NAN, 1], [1, NAN], False),
        ([NAN, 1], [INF, 1], False),
        ([INF, 1], [3e38, 1], False),
        ([1, 1], [1, NAN], False),
        ([1, 1], [1, INF], False),
    ],
)
@pytest.mark.parametrize("tolerance", [EXACT, SIMILAR])
def test_nan_and_infinity_must_be_at_the_same_places(
    expected: list[float], observed: list[float], same: bool, tolerance: dict[str, float]
) -> None:
    x, y = np.array(expected, np.float32), np.array(observed, np.float32)
    assert (golden.compare(x, y, tolerance)[1] is None) == same


def test_integers_and_booleans_are_equal_or_wrong() -> None:
    x = np.array([1, 2, 3])
    assert golden.compare(x, x, SIMILAR)[1] is None
    assert golden.compare(x, x + np.array([0, 0, 1]), SIMILAR)[1] == "1 of 3 values differ, expected all equal"
    assert golden.compare(x > 1, x > 2, SIMILAR)[1] == "1 of 3 values differ, expected all equal"


def test_labels_may_differ_as_far_as_the_tolerance_says() -> None:
    x = np.arange(10)
    y = x.copy()
    y[3] = 0
    assert golden.compare(x, y, SIMILAR | {"top1_agreement": 0.9})[1] is None
    told = golden.compare(x, y, SIMILAR | {"top1_agreement": 0.95})[1]
    assert told == "1 of 10 values differ, expected 95.00% equal"


@pytest.mark.parametrize("factor", [0.33, 3.0])
def test_a_wrong_scale_fails_under_a_right_cosine(factor: float) -> None:
    x = np.random.default_rng(0).standard_normal((4, 16))
    assert golden.compare(x, x * factor, SIMILAR)[1] is None
    told = golden.compare(x, x * factor, SIMILAR | {"relative_error": 0.2})[1]
    assert told == f"the worst sample's relative error is {abs(factor - 1):.6f}, allowed 0.200000"
    assert golden.compare(x, x * 1.1, SIMILAR | {"relative_error": 0.2})[1] is None


def test_rows_of_one_value_are_judged_by_the_difference_where_it_is_limited() -> None:
    x, y = np.array([[0.01], [1.0]]), np.array([[-0.01], [1.0]])
    assert "cosine" in str(golden.compare(x, y, SIMILAR)[1])
    assert golden.compare(x, y, SIMILAR | {"max_abs": 0.1})[1] is None
    assert "max_abs" in str(golden.compare(x, y + 0.2, SIMILAR | {"max_abs": 0.1})[1])


def test_half_precision_is_compared_with_single() -> None:
    x = np.array([[0.1, 0.2]], np.float32)
    assert golden.compare(x, x.astype(np.float16), SIMILAR)[1] is None
    assert golden.compare(x, x.astype(np.float16), {"max_abs": 1e-9, "cosine": None})[1] is not None


def test_both_tolerances_hold_when_both_are_given() -> None:
    x, y = np.array([[1.0, 0.0]]), np.array([[1.0, 0.1]])
    assert golden.compare(x, y, {"max_abs": 0.2, "cosine": 0.9})[1] is None
    assert "max_abs" in str(golden.compare(x, y, {"max_abs": 0.05, "cosine": 0.9})[1])
    assert "cosine" in str(golden.compare(x, y, {"max_abs": 0.2, "cosine": 0.999})[1])
    with pytest.raises(ValueError, match="neither"):
        golden.compare(x, y, {"max_abs": None, "cosine": None})


@settings(deadline=None)
@given(FLOATS)
def test_an_answer_equals_itself(values: Any) -> None:
    with np.errstate(all="ignore"):
        result, problem = golden.compare(values, values, {"max_abs": 0.0, "cosine": 0.999999})
    assert problem is None
    assert result["max_abs"] == 0


@settings(deadline=None)
@given(FLOATS, st.floats(1e-3, 1e3))
def test_one_element_off_by_more_than_allowed_is_found(values: Any, delta: float) -> None:
    expected = np.array(np.clip(np.nan_to_num(values), -1e3, 1e3), np.float64)
    if not expected.size:
        return
    observed = expected.copy()
    observed.reshape(-1)[expected.size // 2] += delta
    assert golden.compare(expected, observed, {"max_abs": delta * 0.99, "cosine": None})[1] is not None
    assert golden.compare(expected, observed, {"max_abs": delta * 1.01, "cosine": None})[1] is None


@settings(deadline=None)
@given(FLOATS)
def test_cosine_is_a_cosine(values: Any) -> None:
    finite = np.array(np.nan_to_num(values), np.float64)
    assert -1.0000001 <= golden.worst_cosine(finite, np.flip(finite).copy()) <= 1
