"""At which outputs a mask excludes positions: what the reference does, and not what the input is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ortc.common.arrays import Array, Arrays
from ortc.common.errors import StageError
from ortc.frontend.samples.inputs import synthetic
from ortc.frontend.samples.masking import Answered, excluding_outputs, telling_outputs
from ortc.plan.plan import InputPlan

X = InputPlan(name="x", dtype="float32", shape=("batch", "sequence", 4))
MASK = InputPlan(name="attention_mask", dtype="int64", shape=("batch", "sequence"))
WEIGHT = np.random.default_rng(1).standard_normal((4, 4))
SHAPES = ((1, 2), (2, 8), (4, 8), (2, 5))
Model = Callable[[Array, Array], Arrays]


def attention(x: Array, keep: Array, *, causal: bool = False) -> Array:
    """One head over the positions that are kept, beside the position itself."""
    scores = x @ WEIGHT @ np.swapaxes(x, 1, 2)
    allowed = np.broadcast_to(keep[:, np.newaxis, :], scores.shape)
    if causal:
        allowed = allowed & np.tri(x.shape[1], dtype=bool)
    # A query that may look nowhere looks everywhere, as a softmax over equal scores does.
    scores = np.where(allowed, scores, -1e9)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares = np.where(allowed, shares, 0) / shares.sum(axis=-1, keepdims=True)
    return np.asarray(x + shares @ x)


def padded(rows: int, width: int, *, left: bool = False) -> Array:
    lengths = [width, *[max(1, width - 1 - row) for row in range(1, rows)]] if rows > 1 else [width - 1]
    mask = (np.arange(width)[None] < np.array(lengths)[:, None]).astype(np.int64)
    return np.ascontiguousarray(mask[:, ::-1]) if left else mask


def excluded(model: Model, *, is_declared: bool = False, shapes: Any = SHAPES, left: bool = False) -> tuple[str, ...]:
    def run(inputs: Arrays) -> Arrays:
        return model(inputs["x"].astype(np.float64), inputs["attention_mask"])

    cases = []
    for rows, width in shapes:
        x = synthetic(X, {"batch": rows, "sequence": width}, "x")
        for mask in (np.ones((rows, width), np.int64), padded(rows, width, left=left)):
            inputs = {"x": x, "attention_mask": mask}
            cases.append(Answered(inputs, {name: value.shape for name, value in run(inputs).items()}))
    return excluding_outputs((X, MASK), cases, run, is_declared=is_declared)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_a_mask_of_padding_excludes(causal: bool, left: bool) -> None:
    assert excluded(lambda x, mask: {"y": attention(x, mask == 1, causal=causal)}, left=left) == ("y",)


def test_outputs_without_positions_are_compared_whole() -> None:
    def model(x: Array, mask: Array) -> Arrays:
        hidden = attention(x, mask == 1)
        mean = (hidden * mask[..., None]).sum(1) / mask.sum(1)[:, None]
        logits = np.concatenate([mean, mean], axis=1)
        return {"hidden": hidden, "logits": logits, "score": np.where(mask == 1, hidden[..., 0], 0)}

    # Eight logits beside eight positions, and scores that are 0 at padding, whatever is there.
    assert excluded(model) == ("hidden",)
    assert excluded(model, shapes=((2, 8), (4, 8))) == ("hidden",)
    assert excluded(model, shapes=((2, 8),), is_declared=True) == ("hidden",)


MODELS: dict[str, Model] = {
    "PyTorch's key_padding_mask": lambda x, mask: {"y": attention(x, mask == 0)},
    "the same, 0 where it is ignored": lambda x, mask: {"y": attention(x, mask == 0) * (mask == 0)[..., None]},
    "by position, 0 where it is ignored": lambda x, mask: {"y": np.tanh(x @ WEIGHT) * (mask == 0)[..., None]},
    "by position, without a use of the mask": lambda x, mask: {"y": np.tanh(x @ WEIGHT)},
    "a feature of each position": lambda x, mask: {"y": attention(x + mask[..., None], mask >= 0)},
    "a soft share": lambda x, mask: {"y": attention(x * (mask + 1e-3)[..., None], mask >= 0)},
    "padding that is 0": lambda x, mask: {"y": attention(x, mask == 1) * mask[..., None]},
    "nothing but zeros": lambda x, mask: {"y": x * 0},
    "not a number": lambda x, mask: {"y": x * np.nan},
}


@pytest.mark.parametrize("name", MODELS)
def test_other_masks_exclude_nothing(name: str) -> None:
    assert excluded(MODELS[name]) == ()


def test_an_architecture_may_declare_its_mask() -> None:
    def convolution(x: Array, mask: Array) -> Arrays:
        """A neighbour sees padding, as in some transformers with convolutions."""
        hidden = attention(x, mask == 1)
        return {"y": hidden + 0.1 * np.roll(hidden, 1, axis=1)}

    assert excluded(convolution) == ()
    assert excluded(convolution, is_declared=True) == ("y",)


def test_a_model_that_refuses_other_inputs_shows_nothing() -> None:
    seen: list[int] = []

    def model(x: Array, mask: Array) -> Arrays:
        seen.append(1)
        if len(seen) > 2 * len(SHAPES):
            raise StageError("no such input")
        return {"y": attention(x, mask == 1)}

    assert excluded(model) == ()


def test_without_a_mask_or_a_masked_position_nothing_is_asked() -> None:
    def never(inputs: Arrays) -> Arrays:
        raise AssertionError

    inputs = {"x": np.ones((2, 3, 4), np.float32), "attention_mask": np.ones((2, 3), np.int64)}
    shapes: dict[str, tuple[int, ...]] = {"y": (2, 3, 4)}
    for tensors in ((X,), (X, MASK)):
        assert excluding_outputs(tensors, [Answered(inputs, shapes)], never, is_declared=False) == ()
    assert excluding_outputs((X, MASK), [], never, is_declared=False) == ()


def test_outputs_that_tell_something() -> None:
    mask = np.array([[1, 0]])
    outputs = {
        "zero": np.zeros((1, 2)),
        "some": np.array([[0.0, 1.0]]),
        "nan": np.full((1, 2), np.nan),
        "none": np.zeros((0, 2)),
        "label": np.zeros((1, 2), int),
        "no label": np.zeros((0, 2), int),
    }
    assert telling_outputs({"attention_mask": mask}, outputs, ()) == ("some", "label")
    assert telling_outputs({"attention_mask": mask}, outputs, ("some",)) == ("label",)


@pytest.mark.parametrize("width", [1, 2, 7])
def test_synthetic_masks_have_positions_of_both_kinds(width: int) -> None:
    for seed in range(40):
        mask = synthetic(MASK, {"batch": 5, "sequence": width}, str(seed))
        assert mask.any(axis=1).all()
        assert width == 1 or not mask.all(axis=1).any()
    filled = synthetic(MASK.model_copy(update={"fill": 1}), {"batch": 5, "sequence": 3}, "x")
    assert filled.all()
