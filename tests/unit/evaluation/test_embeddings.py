"""Embeddings: pooling, and what is compared of them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ortc.common.errors import StageError
from ortc.evaluation.embeddings import check_embeddings, pooled, spearman
from ortc.spec.accuracy import Embeddings

Array = NDArray[np.float32]


def declared(**changes: object) -> Embeddings:
    return Embeddings.model_validate({"cosine_mean": 0.9} | changes)


HIDDEN = np.array([[[1.0, -4.0], [3.0, 0.0], [90.0, 90.0]], [[2.0, 2.0], [4.0, 6.0], [6.0, -2.0]]], np.float32)
MASK = np.array([[1, 1, 0], [1, 1, 1]])


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [("mean", [[2, -2], [4, 2]]), ("cls", [[1, -4], [2, 2]]), ("max", [[3, 0], [6, 6]])],
)
def test_pooling_leaves_padding_out(pooling: str, expected: list[list[float]]) -> None:
    outputs = {"label": np.zeros(2, np.int64), "hidden": HIDDEN}
    np.testing.assert_allclose(pooled(outputs, declared(pooling=pooling), MASK), expected)


def test_without_a_mask_every_position_counts() -> None:
    np.testing.assert_allclose(pooled({"hidden": HIDDEN}, declared(), None), HIDDEN.mean(axis=1), rtol=1e-6)


def test_an_output_of_embeddings_is_taken_as_it_is() -> None:
    outputs = {"hidden": HIDDEN, "pooled": HIDDEN[:, 0]}
    np.testing.assert_array_equal(pooled(outputs, declared(output="pooled"), MASK), HIDDEN[:, 0])


@pytest.mark.parametrize("output", ["missing", "scores", "label"])
def test_what_holds_no_embeddings_is_refused(output: str) -> None:
    outputs = {"scores": np.zeros(3, np.float32), "label": np.zeros((2, 2), np.int64)}
    with pytest.raises(StageError, match="needs an output") as caught:
        pooled(outputs, declared(output=output), None)
    assert "scores, label" in str(caught.value.help)


def test_equal_embeddings_are_equal_whatever_their_length() -> None:
    rows = np.random.default_rng(0).standard_normal((6, 5))
    found = check_embeddings(rows, rows * np.arange(1, 7)[:, np.newaxis])
    assert found.samples == 6
    assert (found.cosine_mean, found.cosine_min, found.rank_correlation) == pytest.approx((1, 1, 1))


def test_one_that_turned_shows_in_the_least_cosine() -> None:
    rows = np.eye(4)
    turned = rows.copy()
    turned[2] = [0, 0, 0.6, 0.8]
    found = check_embeddings(rows, turned)
    assert found.cosine_min == pytest.approx(0.6)
    assert found.cosine_mean == pytest.approx(0.9)


def test_too_few_rank_nothing() -> None:
    assert check_embeddings(np.eye(2), np.eye(2)).rank_correlation is None


def test_what_is_not_finite_is_as_wrong_as_can_be() -> None:
    broken = np.eye(3)
    broken[1, 1] = np.nan
    found = check_embeddings(np.eye(3), broken)
    assert (found.cosine_mean, found.cosine_min, found.rank_correlation) == (-1, -1, -1)


def test_rank_correlation_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats", reason="a dependency of scikit-learn")
    random = np.random.default_rng(1)
    left = random.integers(0, 20, 200).astype(np.float64)
    right = left + random.standard_normal(200) * 5
    assert spearman(left, right) == pytest.approx(stats.spearmanr(left, right).statistic)


def test_constants_have_no_order() -> None:
    assert spearman(np.ones(4), np.ones(4)) == 1
    assert spearman(np.ones(4), np.arange(4.0)) == 0
