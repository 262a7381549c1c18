"""Axes, shapes, inputs and budgets of a spec against each other."""

from collections.abc import Iterator
from itertools import pairwise

from ortc.common.suggest import closest, listed
from ortc.common.units import format_seconds
from ortc.spec.deployment import Axis, InputSpec, LatencyBudget
from ortc.spec.diagnostics.diagnostic import Diagnostic, Related, quoted
from ortc.spec.diagnostics.rules import checks as rules
from ortc.spec.diagnostics.source import Document
from ortc.spec.load import LoadedSpec
from ortc.spec.relations import parse_relation
from ortc.spec.vocabulary import STRING

DERIVED_AXES = (
    *("batch", "sequence", "samples", "height", "width", "frames", "choices", "decoder_sequence", "images"),
)
"""Names of the axes of inputs that are derived from a Hugging Face model."""

_AXES = ("export", "dynamic_axes")
_FLOAT_MAX = {"float16": 65504.0, "float32": 3.4028234663852886e38, "float64": 1.7976931348623157e308}


def check(loaded: LoadedSpec) -> Iterator[Diagnostic]:
    """Everything that can be told from the spec alone."""
    spec, document = loaded.spec, loaded.document
    axes, inputs = spec.export.dynamic_axes, spec.export.inputs
    for name, axis in axes.items():
        yield from _bounds(document, name, axis)
    if spec.model.source == "pytorch" and not inputs:
        yield Diagnostic(
            rules.INPUTS_REQUIRED,
            "a `pytorch` source needs `export.inputs`",
            document.locate(["export", "inputs"] if inputs is not None else ["export"], key=True),
            help="declare each input: `x: {dtype: float32, shape: [batch, 3, 224, 224]}`",
        )
    for name, tensor in (inputs or {}).items():
        yield from _shape(document, name, tensor, axes)
        yield from _values(document, name, tensor)
    yield from _mask(loaded)
    yield from _relations(loaded)
    yield from _unused(loaded)
    yield from _outputs(document, spec.export.outputs or ())
    for name, target in spec.targets.items():
        if target.latency_budget is not None:
            yield from _budget(document, name, target.latency_budget, axes)


def _bounds(document: Document, name: str, axis: Axis) -> Iterator[Diagnostic]:
    path = (*_AXES, name)
    typical = axis.min if axis.typical is None else axis.typical
    sizes = {"min": axis.min, "typical": typical, "max": axis.max}
    broken = "max" if axis.max < axis.min else "typical" if not axis.min <= typical <= axis.max else None
    if broken:
        other = "min" if broken == "max" or typical < axis.min else "max"
        relation = "below" if sizes[broken] < sizes[other] else "above"
        written = document.find((*path, other)) is not None
        yield Diagnostic(
            rules.AXIS_BOUNDS,
            f"axis `{name}`: `{broken}` ({sizes[broken]}) is {relation} `{other}` ({sizes[other]})",
            document.locate((*path, broken)),
            related=(Related(document.locate((*path, other)), f"`{other}` is {sizes[other]}"),) if written else (),
            help="bounds go `min` <= `typical` <= `max`" + ("" if written else f"; `{other}` is 1 when not given"),
        )
    for key, size in sizes.items():
        if size % axis.multiple_of and (key != "typical" or axis.typical is not None):
            near = max(1, round(size / axis.multiple_of)) * axis.multiple_of
            yield Diagnostic(
                rules.AXIS_MULTIPLE,
                f"axis `{name}`: `{key}` ({size}) is not a multiple of {axis.multiple_of}",
                document.locate((*path, key)),
                help=f"use `{key}: {near}`",
            )


def _relations(loaded: LoadedSpec) -> Iterator[Diagnostic]:
    """Axes whose size follows from others: which, for which sources, and with which bounds."""
    spec, document = loaded.spec, loaded.document
    axes = spec.export.dynamic_axes
    used = {entry for tensor in (spec.export.inputs or {}).values() for entry in tensor.shape}
    for name, axis in axes.items():
        if axis.equals is None:
            continue
        relation, path = parse_relation(axis.equals), (*_AXES, name, "equals")
        for other in relation.names:
            problem = None
            if other not in axes:
                yield _unknown_axis(document, path, other, axes, f"in the sum of `{name}`")
                return
            if other == name or axes[other].equals is not None:
                problem = f"the sum of `{name}` names `{other}`, whose size follows from others itself"
            elif spec.export.inputs and other not in used:
                problem = f"the sum of `{name}` names `{other}`, which no input's shape has"
            if problem:
                advice = "name axes whose sizes are those of inputs"
                yield Diagnostic(rules.AXIS_RELATION, problem, document.locate(path), help=advice)
                return
        if spec.model.source != "onnx":
            message = f"axis `{name}` has `equals`, and the source is `{spec.model.source}`"
            advice = "remove it: torch.export finds out itself how sizes belong together"
            yield Diagnostic(rules.AXIS_RELATION, message, document.locate(path), help=advice)
            return
        sums = {
            bound: relation.size({other: _bound_of(axes[other], bound) for other in relation.names})
            for bound in ("min", "typical", "max")
        }
        if axis.multiple_of > 1 or any(_bound_of(axis, bound) != size for bound, size in sums.items()):
            yield Diagnostic(
                rules.AXIS_RELATION,
                f"axis `{name}` is {relation}, and its bounds are not those of that sum",
                document.locate((*_AXES, name), key=True),
                help="write `{"
                + ", ".join(f"{bound}: {size}" for bound, size in sums.items())
                + f", equals: {relation}}}`",
            )


def _bound_of(axis: Axis, bound: str) -> int:
    return axis.min if bound == "typical" and axis.typical is None else int(getattr(axis, bound))


def _shape(document: Document, name: str, tensor: InputSpec, axes: dict[str, Axis]) -> Iterator[Diagnostic]:
    for index, entry in enumerate(tensor.shape):
        if isinstance(entry, str) and entry not in axes:
            path = ("export", "inputs", name, "shape", index)
            yield _unknown_axis(document, path, entry, axes, f"in the shape of `{name}`")


def _unknown_axis(
    document: Document, path: tuple[str | int, ...], axis: str, axes: dict[str, Axis], where: str, *, key: bool = False
) -> Diagnostic:
    meant = closest(axis, axes)
    known = f"; declared are {listed(axes, 'and')}" if axes and not meant else ""
    return Diagnostic(
        rules.UNKNOWN_AXIS,
        f"the axis {quoted(axis)} {where} is not declared",
        document.locate(path, key=key),
        f"did you mean `{meant}`?" if meant else "",
        help=f"declare it in `export.dynamic_axes`: `{axis}: {{min: 1, max: 512}}`{known}",
    )


def _unused(loaded: LoadedSpec) -> Iterator[Diagnostic]:
    export = loaded.spec.export
    if export.inputs:
        used = {entry for tensor in export.inputs.values() for entry in tensor.shape}
        # An axis that a misspelt name was meant for is used.
        used |= {closest(str(entry), export.dynamic_axes) or entry for entry in used - set(export.dynamic_axes)}
        known, message, advice = used, "is in no input's shape", "remove it, or name it in a shape"
    elif loaded.spec.model.source == "huggingface" and export.inputs is None:
        known, message = set(DERIVED_AXES), "is not an axis of derived inputs"
        advice = f"derived inputs have the axes {listed(DERIVED_AXES, 'and')}; or declare `export.inputs`"
    else:
        return
    for name in export.dynamic_axes:
        if name not in known:
            meant = None if export.inputs else closest(name, DERIVED_AXES)
            yield Diagnostic(
                rules.UNUSED_AXIS,
                f"the axis `{name}` {message}",
                loaded.document.locate((*_AXES, name), key=True),
                f"did you mean `{meant}`?" if meant else "",
                help=advice,
            )


def _values(document: Document, name: str, tensor: InputSpec) -> Iterator[Diagnostic]:
    if tensor.dtype == STRING:
        return
    path = ("export", "inputs", name)
    low, high = _limits(tensor.dtype)
    whole = not tensor.dtype.startswith("float")
    if tensor.range is not None:
        least, greatest = tensor.range
        problem = None
        if least > greatest:
            problem = f"starts above its end: {least} > {greatest}"
        elif least < low or greatest > high:
            problem = f"does not fit {tensor.dtype}, which holds {_bound(low)} to {_bound(high)}"
        elif whole and (least != int(least) or greatest != int(greatest)):
            problem = f"needs whole numbers: the dtype is {tensor.dtype}"
        if problem:
            message = f"the range of `{name}` {problem}"
            yield Diagnostic(rules.INPUT_RANGE, message, document.locate((*path, "range")))
            return
        low, high = least, greatest
    if tensor.fill is None:
        return
    if not low <= tensor.fill <= high:
        bounds = f"{_bound(low)} to {_bound(high)}"
        what = "its range" if tensor.range else tensor.dtype
        message = f"the fill value {tensor.fill} of `{name}` is outside {what}, {bounds}"
        yield Diagnostic(rules.INPUT_FILL, message, document.locate((*path, "fill")))
    elif whole and tensor.fill != int(tensor.fill):
        message = f"the fill value {tensor.fill} of `{name}` is not a whole number, and the dtype is {tensor.dtype}"
        yield Diagnostic(rules.INPUT_FILL, message, document.locate((*path, "fill")))


def _mask(loaded: LoadedSpec) -> Iterator[Diagnostic]:
    """What is wrong with the declared padding mask."""
    mask, inputs = loaded.spec.export.mask, loaded.spec.export.inputs
    if mask is None:
        return
    tensor, masks = (
        (inputs or {}).get(mask.input),
        [name for name, entry in (inputs or {}).items() if len(entry.shape) == 2],
    )
    if tensor is not None and len(tensor.shape) == 2:
        return
    if tensor is None:
        problem = f"`export.mask` names {quoted(mask.input)}, which `export.inputs` does not declare"
    else:
        shape = ", ".join(map(str, tensor.shape))
        problem = f"{quoted(mask.input)} has the shape [{shape}], which no padding mask has"
    known = f"; it could be {listed(masks, 'or')}" if masks else ""
    yield Diagnostic(
        rules.PADDING_MASK,
        problem,
        loaded.document.locate(("export", "mask", "input")),
        help=f"name an input with the shape [batch, positions]{known}",
    )


def _limits(dtype: str) -> tuple[float, float]:
    """Least and greatest value of a dtype."""
    if dtype == "bool":
        return 0, 1
    if dtype in _FLOAT_MAX:
        return -_FLOAT_MAX[dtype], _FLOAT_MAX[dtype]
    bits = int(dtype.lstrip("uint"))
    return (0, 2**bits - 1) if dtype.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _bound(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _outputs(document: Document, outputs: tuple[str, ...]) -> Iterator[Diagnostic]:
    for index, name in enumerate(outputs):
        if (first := outputs.index(name)) < index:
            yield Diagnostic(
                rules.REPEATED_OUTPUT,
                f"the output {quoted(name)} is listed twice",
                document.locate(("export", "outputs", index)),
                "again here",
                help="keep one of the two",
                related=(Related(document.locate(("export", "outputs", first)), "first here"),),
            )


def _budget(document: Document, name: str, budget: LatencyBudget, axes: dict[str, Axis]) -> Iterator[Diagnostic]:
    path = ("targets", name, "latency_budget")
    for axis, size in budget.at.items():
        place = (*path, "at", axis)
        if axis not in axes:
            yield _unknown_axis(document, place, axis, axes, "in a latency budget", key=True)
            continue
        bounds = axes[axis]
        if bounds.min > bounds.max:
            continue
        if not bounds.min <= size <= bounds.max:
            yield Diagnostic(
                rules.BUDGET_SHAPE,
                f"the budget of `{name}` is at `{axis}` {size}, outside its bounds {bounds.min} to {bounds.max}",
                document.locate(place),
                related=(Related(document.locate((*_AXES, axis)), f"{bounds.min} to {bounds.max}"),),
                help="measure inside the bounds, or widen them",
            )
        elif size % bounds.multiple_of:
            message = f"the budget of `{name}` is at `{axis}` {size}, not a multiple of {bounds.multiple_of}"
            yield Diagnostic(rules.BUDGET_SHAPE, message, document.locate(place))
    limits = [(key, limit) for key in ("p50", "p90", "p99") if (limit := getattr(budget, key)) is not None]
    for (lower, smaller), (higher, larger) in pairwise(limits):
        if smaller > larger:
            yield Diagnostic(
                rules.PERCENTILES,
                f"the budget of {lower} ({format_seconds(smaller)}) is above that of {higher} "
                f"({format_seconds(larger)})",
                document.locate((*path, lower)),
                related=(Related(document.locate((*path, higher)), f"{higher} is never below {lower}"),),
                help=f"lower {lower}, or raise {higher}",
            )
