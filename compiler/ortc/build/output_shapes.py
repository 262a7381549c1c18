"""Shapes of outputs as runs confirm them: what a graph declares of its outputs is a claim."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ortc.evaluation.accuracy import ReferenceCase
from ortc.passes.canonical import Exported, OutputInfo

Dimension = str | int | None
Sizes = Mapping[str, int]


def confirmed(exported: Exported, cases: Iterable[ReferenceCase]) -> Exported:
    """What was exported, with those dimensions of its outputs that every case confirms.

    A dimension that runs contradict becomes the axis whose size it always has, where that size varied; else the number
    that it always was, where a number was declared; else unknown. The warnings name each such output.
    """
    seen = [(_sizes(exported, case.input_shapes), case.output_shapes) for case in cases]
    if not seen:
        return exported
    outputs, warnings = [], list(exported.warnings)
    for output in exported.outputs:
        found = [(sizes, shapes[output.name]) for sizes, shapes in seen]
        shape = _shape(output, found)
        if shape != output.shape:
            warnings.append(
                f"the output `{output.name}` is declared as {_text(output.shape)}, and runs give {_text(shape)}"
            )
        outputs.append(output.model_copy(update={"shape": shape}))
    return exported.model_copy(update={"outputs": tuple(outputs), "warnings": tuple(warnings)})


def _sizes(exported: Exported, shapes: Mapping[str, tuple[int, ...]]) -> Sizes:
    return {
        entry: size
        for tensor in exported.inputs
        for entry, size in zip(tensor.shape, shapes[tensor.name], strict=True)
        if isinstance(entry, str)
    }


def _shape(output: OutputInfo, found: Sequence[tuple[Sizes, tuple[int, ...]]]) -> tuple[Dimension, ...]:
    rank = len(found[0][1])
    if any(len(shape) != rank for _, shape in found):
        return output.shape  # no shape says that the rank varies
    # Of an output with another rank, nothing that was declared stands at its place.
    declared: Sequence[Dimension] = output.shape if len(output.shape) == rank else [-1] * rank
    return tuple(
        _dimension(entry, [(sizes, shape[index]) for sizes, shape in found]) for index, entry in enumerate(declared)
    )


def _dimension(declared: Dimension, found: Sequence[tuple[Sizes, int]]) -> Dimension:
    if declared is None or all(size == _expected(declared, sizes) for sizes, size in found):
        return declared
    for axis in found[0][0]:
        if all(sizes[axis] == size for sizes, size in found) and len({size for _, size in found}) > 1:
            return axis
    first = found[0][1]
    return first if isinstance(declared, int) and all(size == first for _, size in found) else None


def _expected(declared: str | int, sizes: Sizes) -> int | None:
    return sizes.get(declared) if isinstance(declared, str) else declared


def _text(shape: Iterable[Dimension]) -> str:
    return f"[{', '.join('?' if entry in (None, -1) else str(entry) for entry in shape)}]"
