"""What an ONNX file says about itself: opset, inputs, axes and outputs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ortc.common.digests import sha256_file
from ortc.common.errors import StageError
from ortc.common.texts import shown
from ortc.inspection.draft_spec import Draft, spec_name
from ortc.inspection.draft_spec import Value as Written
from ortc.inspection.external_data import has_default_domain, load_graph, refuse_pointer
from ortc.inspection.findings import KNOWN_AXES, OUTSIDE, UNKNOWN_AXIS, InspectionError
from ortc.inspection.onnx_interface import DTYPES, Value, interface_of, problems, usable_outputs, value_of
from ortc.inspection.string_examples import Example, string_examples
from ortc.inspection.tensor_names import name_problem
from ortc.spec.onnx_header import DEFAULTS_IR
from ortc.spec.relations import Relation, split_sum
from ortc.spec.vocabulary import LEAST_INT8_OPSET, LEAST_OPSET, STRING

if TYPE_CHECKING:
    import onnx

_ALIASES = {
    "batch_size": "batch",
    "n": "batch",
    "sequence_length": "sequence",
    "seq_len": "sequence",
    "seq": "sequence",
}


_NO_NAME = re.compile(r"\s*(-1|0|\?|\*|none|null|unk(nown)?(_*\d+)?|(p2o\.)?DynamicDimension\.\d+)\s*", re.IGNORECASE)
"""How writers call dimensions of which they know nothing: two of that name need not have one size."""
_CHANNELS = (1, 3, 4)
"""Numbers of channels that images have."""
_WITHOUT_SAMPLES = frozenset(("MatMul", "Gemm", "Gather", "LSTM", "GRU", "RNN", "ConvTranspose"))
"""Operators with weights that become INT8 without real inputs."""
_PLACEHOLDER = "a string"
"""The example of string inputs of which the graph knows none."""
_STEPS = "\nMany models take sides in steps alone: `multiple_of: 32`."
_PIXELS = frozenset(("float32", "float16", "float64", "uint8"))
"""Types that pixels have."""


def inspect_onnx(path: Path, place: str, max_opset: int, least_opset: int = LEAST_OPSET) -> Draft:
    """A draft for an ONNX file.

    Args:
        path: The file; weights beside it are not read.
        place: The file as the spec will name it.
        max_opset: What the runtimes of all targets load; a newer graph is converted by the build.
        least_opset: What the precisions of all targets need; an older graph is converted by the build.

    Raises:
        InspectionError: not an ONNX file, or one with inputs that a spec cannot describe.
    """
    try:
        refuse_pointer(path, path.name)
        model = load_graph(path)
    except StageError as error:
        raise InspectionError(f"{error.message}; {error.help}" if error.help else error.message) from error
    except (OSError, ValueError) as error:
        raise InspectionError(f"`{path}` cannot be read as ONNX: {error}") from error
    opset = max((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), default=0)
    if not model.graph.node or (not opset and has_default_domain(model)):
        raise InspectionError(f"`{path}` holds no graph of the ONNX operators")
    shipped = min(max(opset, least_opset), max_opset)
    axes = _Axes(model.graph)
    interface = interface_of(model)
    outputs = usable_outputs(interface)
    others = [f"{shown(value.name)} {what}" for value in interface.outputs if (what := _lacks(value)) is not None]
    if not outputs:
        # Advice about inputs would help with nothing that the message names.
        help_ = next((found.help for found in problems(replace(interface, inputs=()), None)), "the graph has none")
        raise InspectionError(f"a bundle can give no output of the graph: {', '.join(others)}; {help_}")
    for problem in problems(interface, outputs):
        raise InspectionError(f"{problem.message}; {problem.help}")
    inputs = _inputs(model.graph, axes)
    notes = _notes(model, place, inputs, axes, others, is_int8=least_opset >= LEAST_INT8_OPSET)
    found = f"opset {opset}" if opset else "no opset of ONNX's own operators"
    converted = f", converted to opset {shipped}" if opset and shipped != opset else ""
    return Draft(
        about=f"Written by `ortc init` from {place} ({found}{converted}).",
        name=spec_name(path.stem),
        model={"source": "onnx", "path": place, "sha256": sha256_file(path)},
        opset=shipped,
        axes=axes.bounds,
        inputs=inputs,
        # A spec would take `${` for a reference to a variable; without a list every output is kept.
        outputs=() if any("${" in name for name in outputs) else tuple(outputs),
        notes=notes,
    )


def _notes(
    model: onnx.ModelProto,
    place: str,
    inputs: dict[str, dict[str, Written]],
    axes: _Axes,
    others: list[str],
    *,
    is_int8: bool,
) -> dict[str, str]:
    """Comments of the draft by its keys; `others` are outputs that a bundle cannot give, and why."""
    notes = {"outputs": "Outputs to keep, in this order."}
    if others:
        notes["outputs"] += f"\nA bundle cannot give the others: {', '.join(others)}."
    if place.startswith("../"):
        notes["path"] = OUTSIDE
    if axes.bounds:
        steps = "" if axes.bounds.keys().isdisjoint(("height", "width")) else _STEPS
        notes["dynamic_axes"] = f"The file names its axes and not their bounds: set those that you promise.{steps}"
    if is_int8 and _needs_calibration(model.graph):
        notes["samples"] = "INT8 of convolutions needs real inputs, and this graph has no other weights."
    if inputs:
        notes["inputs"] = "`range` and `fill` make synthetic inputs that mean something to the model."
    if any(entry["dtype"] == STRING for entry in inputs.values()):
        notes["inputs"] = "`range`, `fill` and `examples` make synthetic inputs that mean something to the model."
    if _PLACEHOLDER in str([entry.get("examples") for entry in inputs.values()]):
        notes["inputs"] += (
            f"\nThe graph knows no strings: replace `{_PLACEHOLDER}` by some that the model was trained on."
        )
    if optional := _optional(model):
        notes["inputs"] = "\n".join(
            (*([notes["inputs"]] if inputs else ()), f"Constants unless declared here: {', '.join(optional)}.")
        )
    return notes


class _Axes:
    """Axes of a graph: each name of the file becomes one name of the spec, and two never become one."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.bounds: dict[str, dict[str, Written]] = {}
        self._names: dict[str, str] = {}
        stored = {tensor.name for tensor in graph.initializer}
        shapes = (value.type.tensor_type.shape for value in graph.input if value.name not in stored)
        self._written = {dim.dim_param.strip() for shape in shapes for dim in shape.dim if dim.HasField("dim_param")}

    def name(self, written: str) -> str:
        """The axis of a dimension that the file calls `written`."""
        if written not in self._names and (relation := self._relation(written)) is not None:
            plain = re.sub(r"\W+", "_", written.strip(), flags=re.ASCII)[:60]
            name = self._free(f"_{plain}" if plain[0].isdigit() else plain)
            self._names[written] = name
            self.bounds[name] = {bound: relation.size(self._sizes(bound)) for bound in ("min", "typical", "max")}
            self.bounds[name]["equals"] = str(relation)
        if written not in self._names:
            plain = re.sub(r"\W", "_", written, flags=re.ASCII)[:60]
            plain = f"_{plain}" if not plain or plain[0].isdigit() else plain
            known = _ALIASES.get(plain.lower(), plain)
            # `batch_size` is batch, unless the file has a `batch` too.
            name = self._free(known if known not in self.bounds else plain)
            self._names[written] = name
            self.bounds[name] = KNOWN_AXES.get(name, UNKNOWN_AXIS)
        return self._names[written]

    def _free(self, base: str) -> str:
        """The name, or the name with a number where another axis has it."""
        name, number = base, 2
        while name in self.bounds:
            name, number = f"{base[:56]}_{number}", number + 1
        return name

    def _relation(self, written: str) -> Relation | None:
        """The sum of other dimensions of the graph's inputs that a dimension is called; None for any other name."""
        try:
            terms, constant = split_sum(written)
        except ValueError:
            return None
        plain = len(terms) == 1 and terms[0][1] == 1 and not constant
        if plain or not all(name in self._written for name, _ in terms):
            return None
        factors: dict[str, int] = {}
        for name, factor in terms:
            factors[self.name(name)] = factors.get(self.name(name), 0) + factor
        found = Relation(terms=tuple(factors.items()), constant=constant)
        return None if any("equals" in self.bounds[name] for name in found.names) else found

    def _sizes(self, bound: str) -> dict[str, int]:
        return {name: size for name, entry in self.bounds.items() if isinstance(size := entry[bound], int)}

    def own(self, written: str) -> str:
        """An axis that no other dimension has, with a number where another one has its name."""
        number = 1
        while (known := written if number == 1 else f"{written}_{number}") in self._names:
            number += 1
        return self.name(known)


def _lacks(value: Value) -> str | None:
    """Why a bundle cannot give an output, in words."""
    return f"is {what}" if (what := value.unusable) is not None else name_problem(value.name)


def _optional(model: onnx.ModelProto) -> tuple[str, ...]:
    """Inputs that have a default value; before IR version 4 every initializer was listed as an input."""
    stored = {tensor.name for tensor in model.graph.initializer}
    names = [value.name for value in model.graph.input if value.name in stored and model.ir_version >= DEFAULTS_IR]
    return tuple(map(shown, names))


def _inputs(graph: onnx.GraphProto, axes: _Axes) -> dict[str, dict[str, Written]]:
    stored = {tensor.name: tensor for tensor in graph.initializer}
    rows = {
        node.input[1]: stored[node.input[0]].dims[0]
        for node in graph.node
        if node.op_type == "Gather"
        and len(node.input) == 2
        and node.input[0] in stored
        and stored[node.input[0]].dims
        and all(attribute.i == 0 for attribute in node.attribute if attribute.name == "axis")
    }
    examples = string_examples(graph)
    inputs: dict[str, dict[str, Written]] = {}
    for value in graph.input:
        if value.name in stored:
            continue
        tensor, described = value.type.tensor_type, value_of(value)
        dtype = STRING if described.is_text else DTYPES[described.element]
        if not tensor.HasField("shape"):
            raise InspectionError(f"the input `{value.name}` has no shape; export the model again with shapes")
        names = _conventional(tensor.shape, dtype)
        shape: list[Written] = [
            _dimension(dim, axes, names.get(index, f"{value.name}_dim{index}"))
            for index, dim in enumerate(tensor.shape.dim)
        ]
        inputs[value.name] = {"dtype": dtype, "shape": shape}
        if dtype in {"int64", "int32"} and rows.get(value.name, 0) > 0:
            inputs[value.name]["range"] = [0, rows[value.name] - 1]
        elif dtype in {"int64", "int32"} and "mask" in value.name:
            inputs[value.name]["fill"] = 1
        elif dtype == STRING:
            inputs[value.name]["examples"] = _written(examples.get(value.name) or _unknown(shape))
    return inputs


def _unknown(shape: list[Written]) -> list[Example]:
    """Examples of a string input of which the graph knows no strings."""
    last = shape[-1] if len(shape) > 1 else 1
    columns = last if isinstance(last, int) else 1
    return [_PLACEHOLDER] if columns == 1 else [[_PLACEHOLDER] * columns]


def _written(examples: list[Example]) -> list[Written]:
    """Examples as a draft writes them."""
    return [example if isinstance(example, str) else [*example] for example in examples]


def _needs_calibration(graph: onnx.GraphProto) -> bool:
    """Whether a graph has nothing to quantize but convolutions."""
    operators = {node.op_type for node in graph.node}
    return "Conv" in operators and operators.isdisjoint(_WITHOUT_SAMPLES)


def _conventional(shape: onnx.TensorShapeProto, dtype: str) -> dict[int, str]:
    """How dimensions without a name are called by convention: the first is the batch, and images have sides."""
    fixed = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in shape.dim]
    names = {0: "batch"}
    if len(fixed) == 4 and dtype in _PIXELS:
        if fixed[1] in _CHANNELS:
            names |= {2: "height", 3: "width"}
        elif fixed[3] in _CHANNELS:
            names |= {1: "height", 2: "width"}
    return names


def _dimension(dim: onnx.TensorShapeProto.Dimension, axes: _Axes, name: str) -> str | int:
    """The size of a dimension, or its axis; `name` is for one that has none of its own."""
    if dim.HasField("dim_value") and dim.dim_value > 0:
        return dim.dim_value
    if dim.HasField("dim_param") and dim.dim_param and not _NO_NAME.fullmatch(dim.dim_param):
        return axes.name(dim.dim_param)
    # A dimension without a name is its own; only the batch is one for all inputs by convention.
    return axes.name(name) if name == "batch" else axes.own(name)
