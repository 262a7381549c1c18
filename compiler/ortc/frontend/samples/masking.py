"""Find out, on the reference itself, at which outputs an attention mask excludes positions.

A mask of the name `attention_mask` is 1 where a position is real in most models, and 1 where it is ignored in others
(PyTorch's `key_padding_mask`). The name is no evidence: positions are left out of comparisons only where the reference
treats them as padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ortc.common.arrays import Array, Arrays
from ortc.common.errors import StageError
from ortc.frontend.samples.inputs import ended, is_read, synthetic
from ortc.plan.masks import mask_of
from ortc.plan.plan import InputPlan

SAME = 1e-6
"""Greatest change of answers, over their greatest magnitude, that is rounding and no influence."""
PROBED_POSITIONS = 16
"""Fewest positions of the case that is probed, where a case has as many."""
_LEFT, _RIGHT, _OTHER = "left", "right", "other"

Run = Callable[[Arrays], Arrays]


class Answered(NamedTuple):
    """Inputs of a case, and the shapes of the reference's outputs."""

    inputs: Arrays
    shapes: dict[str, tuple[int, ...]]


def is_whole(inputs: Arrays, mask: InputPlan | None) -> bool:
    """Whether the padding mask of inputs, if there is one, excludes no position."""
    return mask is None or bool(is_read(mask, inputs[mask.name]).all())


def whole(inputs: Arrays, mask: InputPlan) -> Arrays:
    """The same inputs with a padding mask that excludes no position."""
    values = inputs[mask.name]
    return {**inputs, mask.name: np.zeros_like(values) if mask.mask == "padding" else np.ones_like(values)}


def telling_outputs(
    inputs: Arrays, outputs: Arrays, excluding: Sequence[str], mask: InputPlan | None
) -> tuple[str, ...]:
    """Name the outputs with values by which a wrong answer shows: neither excluded by the mask, 0, NaN nor infinite.

    Integers, booleans and text count whatever they are.
    """

    def tells(name: str, value: Array) -> bool:
        kept = value[is_read(mask, inputs[mask.name])] if mask is not None and name in excluding else value
        return bool(kept.size) if kept.dtype.kind != "f" else bool((np.isfinite(kept) & (kept != 0)).any())

    return tuple(name for name, value in outputs.items() if tells(name, value))


def excluding_outputs(
    tensors: Sequence[InputPlan], cases: Sequence[Answered], run: Run, *, is_declared: bool
) -> tuple[str, ...]:
    """Name the outputs [batch, positions, ...] at which a mask of 0 means padding, which nobody reads.

    The reference shows it: other inputs at masked positions change what it answers there and nowhere else, although
    they would change the other answers too if the mask were 1; and inputs at the other positions change answers.

    Args:
        tensors: the model's inputs.
        cases: that the reference has answered.
        run: asks the reference.
        is_declared: the architecture defines the mask, so that only the layout of outputs is open.
    """
    mask = mask_of(tensors)
    if mask is None:
        return ()
    outputs = (
        [name for name in cases[0].shapes if all(_is_aligned(case, name, mask) for case in cases)] if cases else []
    )
    forms: dict[str, list[Arrays]] = {}
    for case in cases:
        if (form := _form(is_read(mask, case.inputs[mask.name]))) is not None:
            forms.setdefault(form, []).append(case.inputs)
    if not outputs or not forms:
        return ()
    if is_declared and len({case.inputs[mask.name].shape[1] for case in cases}) > 1:
        # Of several lengths, an output that has each of them has positions.
        return tuple(outputs)
    for found in forms.values():
        found.sort(key=lambda inputs: inputs[mask.name].size)
        probed = next((inputs for inputs in found if inputs[mask.name].size >= PROBED_POSITIONS), found[-1])
        try:
            excluded = _Probe(tensors, mask, run).excluded(probed, is_declared=is_declared)
        except StageError:
            # Whatever the model refuses of other inputs, nothing was shown.
            return ()
        outputs = [name for name in outputs if name in excluded]
    return tuple(outputs)


def _is_aligned(case: Answered, name: str, mask: InputPlan) -> bool:
    return case.shapes.get(name, ())[:2] == case.inputs[mask.name].shape


def _form(real: Array) -> str | None:
    """Where a mask has its padding: at the end of rows, at their beginning, or elsewhere; None without any."""
    if real.all() or not real.any():
        return None
    if (real[:, :-1] >= real[:, 1:]).all():
        return _RIGHT
    return _LEFT if (real[:, :-1] <= real[:, 1:]).all() else _OTHER


class _Probe:
    def __init__(self, tensors: Sequence[InputPlan], mask: InputPlan, run: Run) -> None:
        self.changeable = [tensor for tensor in tensors if tensor != mask and tensor.shape[:2] == mask.shape]
        self.mask = mask
        self.run = run

    def excluded(self, inputs: Arrays, *, is_declared: bool) -> set[str]:
        """The outputs that one case shows to be padding where its mask says so."""
        real = self._real(inputs)
        before, padding_changed = self.run(inputs), self.run(self.changed(inputs, ~real))
        # What does not depend on the padding's own content is an answer like any other, or constant.
        own = {name for name in before if _differs(before[name], padding_changed[name], ~real)}
        if is_declared:
            return own
        found = {name for name in own if not _differs(before[name], padding_changed[name], real)}
        real_changed = self.run(self.changed(inputs, real))
        found = {name for name in found if _differs(before[name], real_changed[name], real)}
        return {name for name in found if name in self.hidden(inputs) or name in self.hidden(self._turned(inputs))}

    def changed(self, inputs: Arrays, where: Array) -> Arrays:
        """The inputs with other values at positions [batch, positions]."""
        changed = dict(inputs)
        for tensor in self.changeable:
            value = inputs[tensor.name]
            other = synthetic(tensor.model_copy(update={"shape": value.shape}), {}, f"{tensor.name}/masking")
            found = np.where(_spread(where, value), other, value)
            changed[tensor.name] = found if tensor.end is None else ended(tensor, found, _ends(tensor.end, value))
        return changed

    def hidden(self, inputs: Arrays) -> set[str]:
        """Outputs at whose real positions the masked inputs have no influence, and would have without the mask."""
        real = self._real(inputs)
        other = self.changed(inputs, ~real)
        masked = self.run(inputs), self.run(other)
        open_ = self.run(whole(inputs, self.mask)), self.run(whole(other, self.mask))
        return {
            name
            for name, value in masked[0].items()
            if value.shape[:2] == real.shape
            and not _differs(value, masked[1][name], real)
            and _differs(open_[0][name], open_[1][name], real)
        }

    def _real(self, inputs: Arrays) -> Array:
        return is_read(self.mask, inputs[self.mask.name])

    def _turned(self, inputs: Arrays) -> Arrays:
        """The same with the mask from its other end: earlier positions of a causal model never read later ones."""
        return {**inputs, self.mask.name: np.ascontiguousarray(inputs[self.mask.name][:, ::-1])}


def _ends(end: int, ids: Array) -> list[int]:
    """The number of tokens of each row up to its end token, which stays where it is."""
    return [int(place) + 1 for place in (ids == end).argmax(axis=1)]


def _spread(positions: Array, value: Array) -> Array:
    return positions.reshape(*positions.shape, *([1] * (value.ndim - 2)))


def _differs(one: Array, other: Array, where: Array) -> bool:
    """Whether two answers differ at positions by more than rounding."""
    if one.shape[:2] != where.shape or one.shape != other.shape:
        return False
    left, right = one[where], other[where]
    if left.dtype.kind != "f":
        return bool((left != right).any())
    finite = np.isfinite(left) & np.isfinite(right)
    if not np.array_equal(left[~finite], right[~finite], equal_nan=True):
        return True
    left, right = left[finite].astype(np.float64), right[finite].astype(np.float64)
    return bool((np.abs(left - right) > SAME * np.abs(left).max(initial=0.0)).any())
