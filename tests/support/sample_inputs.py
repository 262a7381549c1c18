"""Inputs, axes and texts of a small model."""

from ortc.common.arrays import Array
from ortc.frontend.samples.inputs import (
    MASK,
    Samples,
)
from ortc.frontend.samples.texts import Frame, Padding
from ortc.plan.plan import AxisPlan, CasePlan, InputPlan, Shape

BATCH_AXIS = AxisPlan(name="batch", min=1, typical=1, max=16)
SEQUENCE = AxisPlan(name="sequence", min=1, typical=8, max=32)
AXES = (BATCH_AXIS, SEQUENCE)
IDS = InputPlan(name="input_ids", dtype="int64", shape=("batch", "sequence"), range=(0, 99))
ATTENTION = InputPlan(name=MASK, dtype="int64", shape=("batch", "sequence"), fill=1)
TYPES = InputPlan(name="token_type_ids", dtype="int64", shape=("batch", "sequence"), range=(0, 1))
TEXT = (IDS, ATTENTION, TYPES)
PIXELS = InputPlan(name="pixels", dtype="float32", shape=("batch", 2, 3))
TEXTS = Samples(
    texts=tuple(tuple(range(10 * i + 10, 10 * i + 10 + 3 + i)) for i in range(5)),
    frame=Frame((101,), (102,), (0,), 0, (0,)),
    padding=Padding(7),
)


def case(padded: bool = False, **sizes: int) -> CasePlan:
    return CasePlan(shape=Shape(sizes=tuple(sizes.items())), padded=padded)


def rows(batches: list[tuple[str, dict[str, Array]]]) -> list[list[int]]:
    return [feeds["pixels"][:, 0, 0].astype(int).tolist() for _, feeds in batches]
