"""Inputs and outputs of ONNX files: which of them a bundle can have, and what to do about the others.

`ortc init`, `ortc check` and the import ask the same questions here, of a parsed model or of a file that is not parsed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ortc.common.errors import StageError
from ortc.common.texts import shown
from ortc.inspection.tensor_names import NAME_HELP, name_problem
from ortc.spec.onnx_header import DEFAULTS_IR

if TYPE_CHECKING:
    import onnx

DTYPES = {
    "FLOAT": "float32",
    "DOUBLE": "float64",
    "FLOAT16": "float16",
    "INT64": "int64",
    "INT32": "int32",
    "INT16": "int16",
    "INT8": "int8",
    "UINT64": "uint64",
    "UINT32": "uint32",
    "UINT16": "uint16",
    "UINT8": "uint8",
    "BOOL": "bool",
}
"""Types of elements that a bundle takes and gives, by ONNX's names for them."""
ELEMENTS = (
    *("UNDEFINED", "FLOAT", "UINT8", "INT8", "UINT16", "INT16", "INT32", "INT64", "STRING"),
    *("BOOL", "FLOAT16", "DOUBLE", "UINT32", "UINT64", "COMPLEX64", "COMPLEX128", "BFLOAT16", "FLOAT8E4M3FN"),
    *("FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "UINT4", "INT4", "FLOAT4E2M1", "FLOAT8E8M0", "UINT2", "INT2"),
)
"""ONNX's names for types of elements by their numbers: TensorProto.DataType of onnx.proto."""
_KINDS = {
    "sequence_type": "a sequence",
    "sequence_of_maps": "a sequence of maps",
    "map_type": "a map",
    "optional_type": "an optional value",
    "sparse_tensor_type": "a sparse tensor",
    "opaque_type": "an opaque value",
    None: "a value without a type",
}


@dataclass(frozen=True, slots=True)
class Value:
    """An input or output; `kind` is the field of its TypeProto, and `element` ONNX's name for a tensor's type."""

    name: str
    kind: str | None
    element: str = ""

    @property
    def unusable(self) -> str | None:
        """What it is that no bundle can give, in words; None for a tensor of numbers or booleans."""
        if self.kind != "tensor_type":
            return _KINDS.get(self.kind, "a value of an unknown kind")
        if self.element in DTYPES:
            return None
        return "a tensor of text" if self.is_text else f"a tensor of {self.element.lower() or 'no type'}"

    @property
    def is_text(self) -> bool:
        """Whether it is a tensor of strings, which a bundle can take and not give."""
        return self.kind == "tensor_type" and self.element == "STRING"


CLASSIFIERS = ("TreeEnsembleClassifier", "LinearClassifier", "SVMClassifier")
"""Operators of ai.onnx.ml that give the name of a class first."""
_NAMES = (*CLASSIFIERS, "LabelEncoder", "ArrayFeatureExtractor")
"""Operators that give names of classes."""
PASSES_ON = ("Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Cast")
"""Operators that names of classes may go through to an output."""
CLASS_OPERATORS = frozenset((*_NAMES, *PASSES_ON, "ZipMap"))
"""Operators of which `classes_as_numbers` has to know."""


@dataclass(frozen=True, slots=True)
class Step:
    """A node as far as names of classes go: its operator, the first of its inputs, and the first of its outputs."""

    operator: str
    reads: str
    gives: str


def classes_as_numbers(outputs: Sequence[Value], steps: Sequence[Step]) -> tuple[Value, ...]:
    """Outputs as a bundle gives them: ZipMap's maps as scores by class, and names of classes as their numbers."""
    made = {step.gives: step for step in steps if step.operator in CLASS_OPERATORS}

    def names_classes(name: str) -> bool:
        for _ in range(len(made)):
            step = made.get(name)
            if step is None or step.operator == "ZipMap":
                return False
            if step.operator in _NAMES:
                return True
            name = step.reads
        return False

    found = []
    for value in outputs:
        step = made.get(value.name)
        if value.kind == "sequence_of_maps" and step is not None and step.operator == "ZipMap":
            found.append(Value(value.name, "tensor_type", "FLOAT"))
        elif value.element == "STRING" and names_classes(value.name):
            found.append(Value(value.name, "tensor_type", "INT64"))
        else:
            found.append(value)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Interface:
    """What a graph takes and gives; `stored` are the names of its initializers."""

    ir_version: int
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    stored: frozenset[str]

    def taken(self, declared: Sequence[str] | None) -> list[Value]:
        """Inputs that a bundle will have: an initializer is the default of an input where the spec declares it."""
        kept = set(declared or ()) if self.ir_version >= DEFAULTS_IR else set()
        return [value for value in self.inputs if value.name not in self.stored or value.name in kept]


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with an input or output: with its name or its type, or that the graph does not have it."""

    about: Literal["name", "type", "missing"]
    message: str
    help: str


def interface_of(model: onnx.ModelProto) -> Interface:
    """The interface of a parsed model."""
    graph = model.graph
    return Interface(
        ir_version=model.ir_version,
        inputs=tuple(value_of(value) for value in graph.input),
        outputs=classes_as_numbers(
            [value_of(value) for value in graph.output],
            [
                Step(node.op_type, text_of(node.input[0]), text_of(node.output[0]))
                for node in graph.node
                if node.input and node.output
            ],
        ),
        stored=frozenset(text_of(tensor.name) for tensor in graph.initializer),
    )


def value_of(value: onnx.ValueInfoProto) -> Value:
    """The input or output of a parsed model."""
    kind = value.type.WhichOneof("value")
    if kind == "sequence_type" and value.type.sequence_type.elem_type.HasField("map_type"):
        kind = "sequence_of_maps"
    number = value.type.tensor_type.elem_type
    return Value(text_of(value.name), kind, ELEMENTS[number] if 0 < number < len(ELEMENTS) else "")


def text_of(name: str | bytes) -> str:
    """A name of a parsed model; protobuf gives bytes for a name that is not UTF-8."""
    return name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name


def problems(
    interface: Interface, outputs: Sequence[str] | None, declared: Sequence[str] | None = None
) -> Iterator[Problem]:
    """What keeps a graph from being a bundle's.

    Args:
        interface: of the graph.
        outputs: that are kept; all when None.
        declared: names in `export.inputs`; None where the file's own are taken.
    """
    inputs = interface.taken(declared)
    kept = [value for value in interface.outputs if outputs is None or value.name in outputs]
    yield from _named_twice("input", inputs)
    yield from _named_twice("output", kept)
    for value in inputs:
        if (why := name_problem(value.name)) is not None:
            yield Problem("name", f"the graph's input `{shown(value.name)}` {why}", NAME_HELP)
        elif (what := value.unusable) is not None and not value.is_text:
            yield Problem(
                "type",
                f"the graph's input `{shown(value.name)}` is {what}, which a bundle cannot take",
                "export the model again with tensors of numbers, booleans or strings as inputs",
            )
    for value in kept:
        if (why := name_problem(value.name)) is not None:
            yield Problem("name", f"the graph's output `{shown(value.name)}` {why}", _instead(interface, NAME_HELP))
        elif (what := value.unusable) is not None:
            yield Problem(
                "type",
                f"the graph's output `{shown(value.name)}` is {what}, which a bundle cannot give",
                _instead(interface, "export the model again with tensors of numbers or booleans as outputs"),
            )
    yield from _missing(interface, inputs, outputs, declared)


def usable_outputs(interface: Interface) -> list[str]:
    """Outputs that a bundle can give, each once."""
    usable = (value for value in interface.outputs if value.unusable is None and name_problem(value.name) is None)
    return list(dict.fromkeys(value.name for value in usable))


def keep_usable(model: onnx.ModelProto, outputs: tuple[str, ...] | None, declared: Sequence[str] | None = None) -> None:
    """Check what the bundle will take and give, and remove what computes other outputs alone.

    Args:
        model: changed in place.
        outputs: that are kept; all when None.
        declared: names in `export.inputs`; None where the file's own are taken.

    Raises:
        StageError: an input is no tensor of numbers, booleans or strings, an output that is kept none of numbers or
            booleans, or one of them is not there or has a name that no bundle can have.
    """
    graph = model.graph
    for problem in problems(interface_of(model), outputs, declared):
        raise StageError(problem.message, help=problem.help)
    kept = [value for value in graph.output if outputs is None or value.name in outputs]
    if outputs is not None and len(kept) < len(graph.output):
        del graph.output[:]
        graph.output.extend(kept)
        _prune(graph)


def _named_twice(side: str, values: Sequence[Value]) -> Iterator[Problem]:
    for name, count in Counter(value.name for value in values).items():
        if count > 1:
            yield Problem("name", f"the graph has {count} {side}s that are called `{shown(name)}`", NAME_HELP)


def _missing(
    interface: Interface, inputs: Sequence[Value], outputs: Sequence[str] | None, declared: Sequence[str] | None
) -> Iterator[Problem]:
    given = [value.name for value in interface.outputs]
    for name in outputs or ():
        if name not in given:
            yield Problem("missing", f"the graph has no output `{shown(name)}`", f"it has: {_names(given)}")
    taken = [value.name for value in inputs]
    if declared is not None and set(taken) != set(declared):
        yield Problem(
            "missing",
            f"the graph's inputs are {_names(taken)}; `export.inputs` declares {_names(declared)}",
            "declare every input of the graph under its name, or leave out `export.inputs`",
        )


def _names(names: Sequence[str]) -> str:
    first = ", ".join(shown(name) for name in names[:16]) or "none"
    return first if len(names) <= 16 else f"{first} and {len(names) - 16} more"


def _instead(interface: Interface, advice: str) -> str:
    others = usable_outputs(interface)
    return f"keep only the others: `export.outputs: [{_names(others)}]`; or {advice}" if others else advice


def _prune(graph: onnx.GraphProto) -> None:
    """Remove nodes that no output needs, last to first, and what was noted of inner values."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(_reads(node))
    del graph.node[:]
    graph.node.extend(reversed(kept))
    del graph.value_info[:]


def _reads(node: onnx.NodeProto) -> set[str]:
    """Names that a node reads, those that its branches and bodies read from outside included."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            names.update(value.name for value in graph.output)
            for inner in graph.node:
                names |= _reads(inner)
    return names
