"""Output shapes in the manifest are those that every case confirms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ortc.build.output_shapes import confirmed
from ortc.common.arrays import read_shapes, write_arrays
from ortc.evaluation.accuracy import ReferenceCase
from ortc.passes.canonical import Exported, OutputInfo
from ortc.plan.plan import InputPlan

Dimension = str | int | None
BATCHES = (1, 2, 4)


def made(declared: Sequence[Dimension], shapes: Sequence[tuple[int, ...]], place: Path) -> Exported:
    exported = Exported(
        exporter="onnx",
        opset=17,
        ir_version=8,
        domains={},
        inputs=(InputPlan(name="x", dtype="float32", shape=("batch", "width", 2)),),
        outputs=(OutputInfo(name="y/0", dtype="float32", shape=tuple(declared)),),
        operators={},
        warnings=("before",),
    )
    cases = []
    for batch, shape in zip(BATCHES, shapes, strict=False):
        known: dict[str, Any] = {"input_shapes": {"x": (batch, 3, 2)}, "output_shapes": {"y/0": shape}}
        cases.append(ReferenceCase(name=f"batch={batch}", inputs=place, outputs=place, **known))
    return confirmed(exported, cases)


def along(*others: int) -> list[tuple[int, ...]]:
    """Shapes that begin with the batch."""
    return [(batch, *others) for batch in BATCHES]


@pytest.mark.parametrize(
    ("declared", "shapes", "shape"),
    [
        (["batch", 5], along(5), ["batch", 5]),
        (["batch", None], along(5), ["batch", None]),
        # An exporter's example sizes, which nothing holds to.
        ([1, 5], along(5), ["batch", 5]),
        (["batch", 4], along(5), ["batch", 5]),
        # `width` never varied, so that no case tells it from a number.
        (["batch", "width"], along(3), ["batch", "width"]),
        (["width", 5], along(5), ["batch", 5]),
        (["batch", 5], [(1, 5), (2, 6), (4, 5)], ["batch", None]),
        (["batch"], [(2,), (2,), (2,)], [None]),
        (["batch", "batch"], [(1, 2), (2, 4), (4, 8)], ["batch", None]),
        (["batch"], along(7), ["batch", 7]),
        ([], [(), (), ()], []),
        ([3, 5], [(0, 5), (1, 5), (0, 5)], [None, 5]),
    ],
)
def test_what_every_case_confirms(
    declared: list[Dimension], shapes: list[tuple[int, ...]], shape: list[Dimension], tmp_path: Path
) -> None:
    found = made(declared, shapes, tmp_path)
    assert list(found.outputs[0].shape) == shape
    assert found.warnings[0] == "before"
    assert len(found.warnings) == (1 if declared == shape else 2)


def test_a_rank_that_varies_keeps_what_is_declared(tmp_path: Path) -> None:
    assert made(["batch"], [(1,), (2, 1), (4,)], tmp_path).outputs[0].shape == ("batch",)


def test_without_cases_nothing_changes(tmp_path: Path) -> None:
    assert made(["batch"], [], tmp_path).outputs[0].shape == ("batch",)


def test_the_warning_shows_both(tmp_path: Path) -> None:
    found = made([1, None], along(5), tmp_path)
    assert found.warnings[1] == "the output `y/0` is declared as [1, ?], and runs give [batch, ?]"


def test_shapes_are_read_without_arrays(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a", {"file": np.zeros((2, 0), np.int8), "s.0": np.zeros((), bool)})
    assert read_shapes(tmp_path / "a") == {"file": (2, 0), "s.0": ()}
