"""Whether rows of a batch know of each other, and how one case is compared output by output."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.unit.evaluation.test_accuracy import budgets, check, difference

from ortc.common.arrays import Arrays, write_arrays
from ortc.common.errors import StageError
from ortc.evaluation import accuracy as verify
from ortc.evaluation.accuracy import ReferenceCase
from ortc.frontend.samples.inputs import InputFactory, Samples
from ortc.plan.plan import AxisPlan, InputPlan


@pytest.mark.parametrize(("invariance", "outcome"), [(0.0, "pass"), (1e-4, "pass"), (2e-4, "fail"), (None, "fail")])
def test_batch_invariance(invariance: float | None, outcome: str) -> None:
    found = check(difference(), invariance=invariance)
    assert found.is_invariant(1e-4) == (outcome == "pass")
    assert budgets(found, batch_invariance="require") == {"batch_invariance": outcome}
    assert budgets(found, batch_invariance="report") == {}


class FakeWorker:
    """A model in this process, instead of one in a bundle's worker."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def run(self, inputs: Arrays) -> Arrays:
        return {name: np.asarray(value) for name, value in self.model(inputs["x"]).items()}


X = InputPlan(name="x", dtype="float32", shape=("batch", 3))
BATCH = AxisPlan(name="batch", min=1, typical=1, max=8)


def cases(tmp_path: Any, *rows: int) -> tuple[ReferenceCase, ...]:
    made = []
    for count in rows:
        path = tmp_path / f"{count}.npz"
        write_arrays(path, {"x": np.random.default_rng(count).standard_normal((count, 3)).astype(np.float32)})
        made.append(ReferenceCase(name=str(count), inputs=path, outputs=path))
    return tuple(made)


def invariance(tmp_path: Any, model: Any, *rows: int, axis: AxisPlan = BATCH) -> float | None:
    worker: Any = FakeWorker(model)
    return verify._invariance(worker, cases(tmp_path, *rows), InputFactory((X,), (axis,), Samples()))


def test_rows_that_do_not_know_each_other(tmp_path: Any) -> None:
    assert invariance(tmp_path, lambda x: {"y": x * 2, "label": x.argmax(axis=1)}, 1, 4, 16) == 0.0


def test_two_rows_are_enough(tmp_path: Any) -> None:
    two = BATCH.model_copy(update={"max": 2})
    assert invariance(tmp_path, lambda x: {"y": x + x.mean()}, 2, axis=two) != 0.0


def test_rows_that_share_a_scale(tmp_path: Any) -> None:
    found = invariance(tmp_path, lambda x: {"y": x / np.abs(x).sum()}, 1, 4)
    assert found is not None
    assert found > 0.1


def test_invariance_is_unknown_without_rows(tmp_path: Any) -> None:
    def model(x: Any) -> dict[str, Any]:
        return {"y": x}

    assert invariance(tmp_path, model, 1) is None
    assert invariance(tmp_path, model, 4, axis=BATCH.model_copy(update={"min": 2})) is None
    assert invariance(tmp_path, model, 4, axis=BATCH.model_copy(update={"max": 1})) is None
    assert invariance(tmp_path, lambda x: {"y": x.sum()}, 4) is None
    assert invariance(tmp_path, lambda x: {"y": x.sum(axis=0)}, 4) is None


def test_a_case_is_compared_output_by_output(tmp_path: Any) -> None:
    inputs, outputs = tmp_path / "in.npz", tmp_path / "out.npz"
    write_arrays(inputs, {"x": np.ones((2, 3), np.float32)})
    write_arrays(outputs, {"y": np.ones((2, 3), np.float32), "z": np.zeros(2, np.float32)})
    case = ReferenceCase(name="batch=2", inputs=inputs, outputs=outputs)
    worker: Any = FakeWorker(lambda x: {"z": np.full(2, 0.5, np.float32), "y": x, "more": x})
    (found,) = verify.run_cases(worker, [case], None).cases
    assert [(entry.output, entry.max_abs) for entry in found.differences] == [("y", 0.0), ("z", 0.5)]
    lacking: Any = FakeWorker(lambda x: {"y": x})
    with pytest.raises(StageError, match="has no output `z`"):
        verify.run_cases(lacking, [case], None)


def test_padding_is_masked(tmp_path: Any) -> None:
    path, outputs = tmp_path / "in.npz", tmp_path / "out.npz"
    write_arrays(path, {"x": np.ones((1, 3), np.float32), "attention_mask": np.array([[1, 1, 0]])})
    write_arrays(outputs, {"y": np.ones((1, 3, 2), np.float32)})
    padded = np.ones((1, 3, 2), np.float32)
    padded[0, 2] = 99
    worker: Any = FakeWorker(lambda x: {"y": padded})
    mask = InputPlan(name="attention_mask", dtype="int64", shape=(1, 3))
    case = ReferenceCase(name="p", inputs=path, outputs=outputs, padding=mask)
    # The name of an input is no evidence: only what the reference treats as padding is left out.
    for excluding, max_abs in (((), 98.0), (("z",), 98.0), (("y",), 0.0)):
        seen = case.model_copy(update={"excluding": excluding})
        (found,) = verify.run_cases(worker, [seen], None).cases
        assert found.differences[0].max_abs == max_abs
