"""What a .pt2 archive says about its program: inputs, axes with their bounds, and outputs."""

from __future__ import annotations

import re
from pathlib import Path

from ortc.common.digests import sha256_file
from ortc.common.errors import StageError
from ortc.common.texts import shown
from ortc.inspection.draft_spec import Draft, Value, spec_name
from ortc.inspection.findings import BOUNDS, KNOWN_AXES, OUTSIDE, UNKNOWN_AXIS, InspectionError
from ortc.inspection.pt2_archive import Input, Program, ProgramError, read_program
from ortc.inspection.pt2_safety import refuse_code
from ortc.spec.vocabulary import MAX_AXES, MAX_SIZE

_DTYPES = frozenset(
    "float64 float32 float16 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool".split()  # noqa: SIM905
)
_MULTIPLE = re.compile(r"Mul\(Integer\((\d{1,9})\), (\w+)\)")
_SYMBOL = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_SPECIALIZED = 2
"""torch.export writes this least size wherever nobody set one, because it treats 0 and 1 apart."""
_EMBEDDING = "torch.ops.aten.embedding.default"


def inspect_program(path: Path, place: str, opset: int) -> Draft:
    """A draft for an exported program.

    Args:
        path: The file; nothing in it is run, and its weights are not read.
        place: The file as the spec will name it.
        opset: What to ship.

    Raises:
        InspectionError: not such an archive, one that carries code, or one with inputs that a spec cannot describe.
    """
    try:
        program = read_program(path)
        refuse_code(path)
    except (StageError, ProgramError) as error:
        raise InspectionError(str(error)) from error
    _check(program)
    axes = _Axes(program)
    inputs = {entry.name: _input(entry, axes, program) for entry in program.inputs}
    if len(axes.bounds) > MAX_AXES:
        raise InspectionError(f"the program has {len(axes.bounds)} dynamic dimensions; a spec has at most {MAX_AXES}")
    outputs = program.output_names
    usable = len(set(outputs)) == len(outputs) and all(
        name.isprintable() and name and "${" not in name for name in outputs
    )
    notes = {"inputs": "In the order of forward(). `range` and `fill` make synthetic inputs that mean something."}
    if program.constants:
        notes["inputs"] += (
            f"\nOther arguments keep the values of the export: {', '.join(map(shown, program.constants))}."
        )
    if place.startswith("../"):
        notes["path"] = OUTSIDE
    if axes.bounds:
        notes["dynamic_axes"] = BOUNDS
    if axes.open:
        notes["dynamic_axes"] += f"\nThe file sets no end to {', '.join(axes.open)}: set those that you promise."
    if outputs:
        notes["outputs"] = "Outputs to keep, in this order."
    return Draft(
        about=f"Written by `ortc init` from {place}.",
        name=spec_name(path.stem),
        model={"source": "exported_program", "path": place, "sha256": sha256_file(path)},
        opset=opset,
        axes=axes.bounds,
        inputs=inputs,
        outputs=outputs if usable else (),
        notes=notes,
    )


def _check(program: Program) -> None:
    """Refuse what the build could not call.

    Raises:
        InspectionError: the program takes no tensors, or something that is neither a tensor nor a constant.
    """
    if program.others:
        raise InspectionError(
            f"the program's input `{shown(program.others[0])}` is no tensor and has no constant value; export it again "
            "with a tensor in its place, or with a constant"
        )
    if not program.inputs:
        raise InspectionError(
            "the program takes no tensors; export it again with the tensors as arguments of forward()"
        )
    for entry in program.inputs:
        if entry.dtype not in _DTYPES:
            raise InspectionError(f"the input `{entry.name}` is no tensor of numbers or booleans that a bundle takes")
        if not entry.name.isprintable() or "${" in entry.name:
            raise InspectionError(f"the program has an input {entry.name!r}, which a spec cannot name")


class _Axes:
    """Axes of a program: each symbol becomes one, named by where it occurs first."""

    def __init__(self, program: Program) -> None:
        self.bounds: dict[str, dict[str, Value]] = {}
        self.open: list[str] = []
        """Those whose greatest size the program does not say."""
        self._program = program
        self._names: dict[str, str] = {}

    def name(self, size: str, usual: str) -> str:
        """The axis of a dynamic size; `usual` is what it is called unless that is taken."""
        if size not in self._names:
            name, number = usual, 2
            while name in self.bounds:
                name, number = f"{usual[:56]}_{number}", number + 1
            self._names[size] = name
            self.bounds[name] = self._bounds(size, name)
        return self._names[size]

    def _bounds(self, size: str, name: str) -> dict[str, Value]:
        step, symbol = 1, size
        if (match := _MULTIPLE.fullmatch(size)) is not None:
            step, symbol = max(1, int(match[1])), match[2]
        least, most = self._program.ranges.get(symbol, (None, None))
        if least is not None and least * step > MAX_SIZE:
            raise InspectionError(f"the program's axis `{name}` begins beyond {MAX_SIZE}, the greatest size of a spec")
        least = least if least is not None and least > _SPECIALIZED else 1
        known = KNOWN_AXES.get(name, UNKNOWN_AXIS)
        if most is None or most * step > MAX_SIZE:
            self.open.append(name)
            most = max(least, int(str(known["max"])) // step)
        most = max(least, most)
        typical = min(max(least, int(str(known["typical"])) // step), most)
        bounds: dict[str, Value] = {"min": least * step, "typical": typical * step, "max": most * step}
        return bounds if step == 1 else {**bounds, "multiple_of": step}


def _input(entry: Input, axes: _Axes, program: Program) -> dict[str, Value]:
    shape: list[Value] = []
    for index, size in enumerate(entry.shape):
        if isinstance(size, int):
            if not 1 <= size <= MAX_SIZE:
                raise InspectionError(f"the input `{entry.name}` has the size {size}, which a spec cannot declare")
            shape.append(size)
        else:
            shape.append(axes.name(size, _usual(entry, index)))
    whole = entry.dtype in {"int64", "int32"}
    rows = _rows(entry.name, program)
    if whole and rows:
        return {"dtype": str(entry.dtype), "shape": shape, "range": [0, rows - 1]}
    if whole and "mask" in entry.name:
        return {"dtype": str(entry.dtype), "shape": shape, "fill": 1}
    return {"dtype": str(entry.dtype), "shape": shape}


def _usual(entry: Input, index: int) -> str:
    """What a dynamic dimension is called by convention; the file has only symbols."""
    if index == 0:
        return "batch"
    if index == 1 and len(entry.shape) == 2 and str(entry.dtype).startswith("int"):
        return "sequence"
    if len(entry.shape) == 4 and index >= 2:
        return ("height", "width")[index - 2]
    plain = re.sub(r"\W", "_", entry.name, flags=re.ASCII)[:50]
    return f"{plain if _SYMBOL.fullmatch(plain) else 'input'}_dim{index}"


def _rows(name: str, program: Program) -> int:
    """Rows of the embedding that an input chooses from; 0 for none."""
    shapes = {weight.name: weight.shape for weight in program.weights}
    tables = [
        shapes.get(table, ())
        for call in program.calls
        if call.target == _EMBEDDING and call.inputs.get("indices") == (name,)
        for table in call.inputs.get("weight", ())
    ]
    return min((shape[0] for shape in tables if shape), default=0)
