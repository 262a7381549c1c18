"""At which outputs a mask excludes positions: what the reference does, and not what the input is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ortc.common.arrays import Array, Arrays
from ortc.common.errors import StageError
from ortc.frontend.samples.inputs import InputFactory, Samples, is_read, synthetic
from ortc.frontend.samples.masking import Answered, excluding_outputs, is_whole, telling_outputs, whole
from ortc.plan.plan import AxisPlan, CasePlan, InputPlan, Shape

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


def excluded(
    model: Model,
    *,
    is_declared: bool = False,
    shapes: Any = SHAPES,
    left: bool = False,
    declared: InputPlan = MASK,
) -> tuple[str, ...]:
    """The outputs that a model of x and a mask excludes; padding is what the declared mask says."""

    def run(inputs: Arrays) -> Arrays:
        return model(inputs["x"].astype(np.float64), inputs[declared.name])

    cases = []
    for rows, width in shapes:
        x = synthetic(X, {"batch": rows, "sequence": width}, "x")
        for mask in (np.ones((rows, width), np.int64), padded(rows, width, left=left)):
            given = (mask == 0 if declared.mask == "padding" else mask).astype(declared.dtype)
            inputs = {"x": x, declared.name: given}
            cases.append(Answered(inputs, {name: value.shape for name, value in run(inputs).items()}))
    return excluding_outputs((X, declared), cases, run, is_declared=is_declared)


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


PAD = InputPlan(name="pad", dtype="bool", shape=("batch", "sequence"), mask="padding")
READ = InputPlan(name="keep", dtype="float32", shape=("batch", "sequence"), mask="read")


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("declared", [PAD, READ, PAD.model_copy(update={"mask": None})])
def test_a_declared_mask_may_have_any_name_and_the_opposite_meaning(declared: InputPlan, left: bool) -> None:
    def reads(x: Array, mask: Array) -> Arrays:
        return {"y": attention(x, mask == (0 if declared.name == "pad" else 1))}

    assert excluded(reads, left=left, declared=declared) == (() if declared.mask is None else ("y",))
    # The declaration is no evidence: the reference has to treat the mask so.
    assert excluded(lambda x, mask: {"y": attention(x, mask == (declared.name == "pad"))}, declared=declared) == ()


@pytest.mark.parametrize("declared", [PAD, READ, MASK])
def test_padded_cases_have_shorter_rows_by_the_meaning_of_the_mask(declared: InputPlan) -> None:
    axes = (AxisPlan(name="batch", min=1, typical=2, max=4), AxisPlan(name="sequence", min=1, typical=6, max=8))
    factory = InputFactory((X, declared), axes, Samples())
    shape = Shape(sizes=(("batch", 3), ("sequence", 6)))
    found = factory.case(CasePlan(shape=shape, padded=True))[declared.name]
    assert found.dtype == declared.dtype
    read = is_read(declared, found)
    assert read.sum(axis=1).tolist() == [6, 4, 1] or (read.sum(axis=1) < 6).any()
    assert read[:, 0].all()
    assert not is_whole({declared.name: found}, declared)
    assert is_whole(whole({declared.name: found}, declared), declared)


IDS = InputPlan(name="input_ids", dtype="int64", shape=("batch", "sequence"), range=(0, 9), end=2)


@pytest.mark.parametrize("width", [1, 2, 9])
def test_synthetic_token_ids_end_once(width: int) -> None:
    for seed in range(20):
        ids = synthetic(IDS, {"batch": 4, "sequence": width}, str(seed))
        assert ((ids == 2).sum(axis=1) == 1).all()
        assert (ids[:, -1] == 2).all()
    assert synthetic(IDS.model_copy(update={"end": 0}), {"batch": 1, "sequence": 40}, "x").min() == 0


def test_shorter_rows_end_before_their_padding() -> None:
    axes = (AxisPlan(name="batch", min=1, typical=2, max=4), AxisPlan(name="sequence", min=1, typical=6, max=8))
    factory = InputFactory((IDS, MASK), axes, Samples())
    for batch, width in ((1, 2), (3, 8)):
        shape = Shape(sizes=(("batch", batch), ("sequence", width)))
        found = factory.case(CasePlan(shape=shape, padded=True))
        lengths = found["attention_mask"].sum(axis=1)
        assert ((found["input_ids"] == 2).sum(axis=1) == 1).all()
        assert ((found["input_ids"] == 2).argmax(axis=1) + 1 == lengths).all()


def test_a_model_that_reads_end_tokens_is_probed_with_one_in_each_row() -> None:
    seen = []

    def run(inputs: Arrays) -> Arrays:
        ends = (inputs["input_ids"] == 2).sum(axis=1)
        assert (ends == 1).all()
        seen.append(inputs)
        x = np.eye(10)[inputs["input_ids"]] @ np.random.default_rng(0).standard_normal((10, 4))
        return {"y": attention(x, inputs["attention_mask"] == 1)}

    axes = (AxisPlan(name="batch", min=1, typical=2, max=4), AxisPlan(name="sequence", min=1, typical=6, max=24))
    factory = InputFactory((IDS, MASK), axes, Samples())
    shape = Shape(sizes=(("batch", 3), ("sequence", 20)))
    cases = []
    for is_padded in (False, True):
        inputs = factory.case(CasePlan(shape=shape, padded=is_padded))
        cases.append(Answered(inputs, {name: value.shape for name, value in run(inputs).items()}))
    assert excluding_outputs((IDS, MASK), cases, run, is_declared=False) == ("y",)
    assert len(seen) > 4


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
    assert telling_outputs({"attention_mask": mask}, outputs, (), MASK) == ("some", "label")
    assert telling_outputs({"attention_mask": mask}, outputs, ("some",), MASK) == ("label",)
    assert telling_outputs({"pad": 1 - mask}, outputs, ("some",), PAD) == ("label",)
    assert telling_outputs({}, outputs, (), None) == ("some", "label")


@pytest.mark.parametrize("width", [1, 2, 7])
def test_synthetic_masks_have_positions_of_both_kinds(width: int) -> None:
    for seed in range(40):
        mask = synthetic(MASK, {"batch": 5, "sequence": width}, str(seed))
        assert mask.any(axis=1).all()
        assert width == 1 or not mask.all(axis=1).any()
    filled = synthetic(MASK.model_copy(update={"fill": 1}), {"batch": 5, "sequence": 3}, "x")
    assert filled.all()
