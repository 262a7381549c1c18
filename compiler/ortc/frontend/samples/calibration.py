"""Inputs to calibrate with, and to find sensitive nodes with: none that anything is judged by."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from ortc.common.arrays import Array
from ortc.frontend.samples.inputs import BATCH, InputFactory, synthetic
from ortc.plan.plan import CasePlan, Shape, settled

SENSITIVITY_BATCHES = 5
"""Most batches of real samples that nodes are compared by: each is run once for every node."""
CALIBRATION_SAMPLES = 512
"""Real samples that ranges are found with; evenly spaced when there are more."""
SYNTHETIC_CALIBRATION = 8
"""Requests that ranges are found with where there are no samples."""


def sensitivity_inputs(factory: InputFactory) -> list[tuple[str, dict[str, Array]]]:
    """Inputs to find out which nodes cost accuracy, as named batches; none that anything is judged by.

    The shortest request, where errors average out least, and batches of real samples; without samples, synthetic
    requests of the typical shape.
    """
    if factory.calibration is None or not len(factory.calibration):
        return [(f"synthetic {index}", arrays) for index, arrays in enumerate(calibration_inputs(factory)) if index > 0]
    shortest = next(itertools.islice(calibration_inputs(factory), 1, None))
    batches = InputFactory(factory.inputs, tuple(factory.axes.values()), factory.calibration).real()
    step = max(1, -(-len(batches) // SENSITIVITY_BATCHES))
    return [("shortest", shortest), *batches[::step]]


def calibration_inputs(factory: InputFactory) -> Iterator[dict[str, Array]]:
    """Inputs to find the ranges of activations with, one after the other; none that anything is judged by.

    The longest request and the shortest; then real samples one at a time, as padding has activations of its own.
    Without samples, synthetic requests of the typical shape.
    """
    typical = {name: axis.typical for name, axis in factory.axes.items()}
    longest = {name: axis.min if name == factory.batch_axis else axis.max for name, axis in factory.axes.items()}
    # As many rows as usual: rows of one element differ from each other more than those of many.
    shortest = {
        name: max(axis.min, min(BATCH, axis.max) // axis.multiple_of * axis.multiple_of)
        if name == factory.batch_axis
        else axis.min
        for name, axis in factory.axes.items()
    }
    typical, longest, shortest = (settled(factory.axes.values(), given) for given in (typical, longest, shortest))
    if factory.calibration is None or not len(factory.calibration):
        for index, sizes in enumerate((longest, shortest, *[typical] * (SYNTHETIC_CALIBRATION - 2))):
            yield {
                tensor.name: synthetic(tensor, sizes, f"{tensor.name}/calibration {index}") for tensor in factory.inputs
            }
        return
    real = InputFactory(factory.inputs, tuple(factory.axes.values()), factory.calibration)
    for sizes in (longest, shortest):
        yield real.case(CasePlan(shape=Shape(sizes=tuple(sizes.items())), padded=False))
    for _, arrays in real.real(batch=1, most=CALIBRATION_SAMPLES):
        yield arrays
