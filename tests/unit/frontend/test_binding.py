"""A model's inputs by the names of forward()'s parameters, and its outputs by names that stay the same."""

from __future__ import annotations

import functools
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from ortc.common.errors import StageError
from ortc.frontend.reference.binding import bind
from ortc.frontend.reference.custom import load_program
from ortc.frontend.reference.model import Reference, finish
from ortc.frontend.reference.outputs import flatten, named_alike
from ortc.plan.plan import AxisPlan, ExportPlan, InputPlan
from ortc.spec.model_sources import ExportedProgramSource

A, B, C = (torch.full((2,), float(value)) for value in (1, 10, 100))
EXPECTED = torch.full((2,), 8.0)
"""`b - 2 * a`."""


class Swapped(torch.nn.Module):
    def forward(self, b: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return b - 2 * a


class Keyword(torch.nn.Module):
    def forward(self, b: torch.Tensor, *, a: torch.Tensor) -> torch.Tensor:
        return b - 2 * a


class Between(torch.nn.Module):
    def forward(self, mask: torch.Tensor | None = None, b: Any = None, scale: int = 2, a: Any = None) -> torch.Tensor:
        assert mask is None
        return b - scale * a  # type: ignore[no-any-return]


class Mapped(torch.nn.Module):
    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        return inputs["b"] - 2 * inputs["a"]


class Partly(torch.nn.Module):
    def forward(self, b: torch.Tensor, **others: torch.Tensor) -> torch.Tensor:
        return b - 2 * others["a"]


class PositionalOnly(torch.nn.Module):
    def forward(self, n: int = 2, b: Any = None, a: Any = None, /) -> torch.Tensor:
        return b - n * a  # type: ignore[no-any-return]


class PassesOn(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Swapped()

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self.inner(*args, **kwargs)  # type: ignore[no-any-return]


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def renaming(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(self: Any, a: torch.Tensor, b: torch.Tensor) -> Any:
        return function(self, b, a)

    return wrapper


class Wrapped(torch.nn.Module):
    @logged
    def forward(self, b: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return b - 2 * a


class Renamed(torch.nn.Module):
    @renaming
    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return first - 2 * second


MODULES: dict[str, Callable[[], Any]] = {
    "swapped": Swapped,
    "keyword": Keyword,
    "between": Between,
    "mapped": Mapped,
    "partly": Partly,
    "positional": PositionalOnly,
    "passes on": PassesOn,
    "wrapped": Wrapped,
    "renamed": Renamed,
    "scripted": lambda: torch.jit.script(Swapped()),
    "traced": lambda: torch.jit.trace(Swapped(), (B, A)),
    "parallel": lambda: torch.nn.DataParallel(Swapped()),
    "compiled": lambda: torch.compile(Swapped(), backend="eager"),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_inputs_are_bound_by_name(name: str, names: tuple[str, ...]) -> None:
    module = MODULES[name]()
    binding = bind(module, names)
    tensors = {"a": A, "b": B}
    assert torch.equal(binding.call(module, [tensors[entry] for entry in names]), EXPECTED)
    assert binding.notes == ()


class Three(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return x - 2 * y if mask is None else x - 2 * y + mask


class Starred(torch.nn.Module):
    def forward(self, *parts: torch.Tensor) -> torch.Tensor:
        return parts[0] - 2 * parts[1]


@pytest.mark.parametrize(
    ("module", "said"), [(Three(), "first, second to x, y"), (Starred(), "first, second to *parts")]
)
def test_inputs_of_other_names_are_passed_in_order_and_that_is_reported(module: torch.nn.Module, said: str) -> None:
    binding = bind(module, ("first", "second"))
    assert torch.equal(binding.call(module, [B, A]), EXPECTED)
    assert binding.notes[0].endswith(said)


@pytest.mark.parametrize(
    ("module", "names", "message"),
    [
        (Swapped(), ("a", "x"), r"has no parameter `x`: it takes b, a, and `export.inputs` declares a, x"),
        (Swapped(), ("a",), r"needs `b`, which `export.inputs` does not declare"),
        (Swapped(), ("x",), r"declares x, and none is a parameter of forward\(\)"),
        (Swapped(), ("x", "y", "z"), r"none is a parameter of forward\(\)"),
        (Keyword(), ("x", "y"), r"none is a parameter of forward\(\)"),
        (Partly(), ("a",), r"needs `b`"),
        (torch.nn.Identity(), (), r"needs `input`"),
    ],
)
def test_names_that_do_not_fit_are_refused(module: torch.nn.Module, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(StageError, match=message):
        bind(module, names)


def test_optional_parameters_that_get_nothing_are_named() -> None:
    assert bind(Three(), ("x", "y")).left_out == ("mask",)


Pair = namedtuple("Pair", "first second")


@dataclass
class Answer:
    logits: torch.Tensor
    states: tuple[torch.Tensor, ...]
    loss: torch.Tensor | None = None
    step: int = 3


@pytest.mark.parametrize(
    ("result", "names", "others"),
    [
        (A, ["output"], []),
        ((A, B), ["output_0", "output_1"], []),
        ([A, (B, [C])], ["output_0", "output_1.0", "output_1.1.0"], []),
        ({"y": A, "h": [B, {"c": C}]}, ["y", "h.0", "h.1.c"], []),
        (OrderedDict(logits=A, hidden_states=(B, C)), ["logits", "hidden_states.0", "hidden_states.1"], []),
        (Answer(A, (B, C)), ["logits", "states.0", "states.1"], ["step (int)"]),
        (Pair(A, {"x": None, "z": B}), ["first", "second.z"], []),
        ((A, None, "text", 3.5), ["output_0"], ["output_2 (str)", "output_3 (float)"]),
        ({0: A, "inner": Answer(B, ())}, ["0", "inner.logits"], ["inner.step (int)"]),
    ],
)
def test_every_tensor_of_an_output_has_a_name(result: Any, names: list[str], others: list[str]) -> None:
    found = flatten(result, None)
    assert (list(found.tensors), list(found.others)) == (names, others)


def test_a_plain_sequence_takes_the_names_of_the_spec() -> None:
    assert list(flatten((A, (B, C)), ("y", "h", "c")).tensors) == ["y", "h", "c"]
    assert list(flatten(A, ("y",)).tensors) == ["y"]
    assert list(flatten((A, B), ("output_1", "output_0")).tensors) == ["output_0", "output_1"]
    assert list(flatten({"a": A, "b": B}, ("x", "y")).tensors) == ["a", "b"]


def test_two_outputs_of_one_name_are_refused() -> None:
    with pytest.raises(StageError, match=r"two outputs of the name `a\.0`"):
        flatten({"a": [A], "a.0": B}, None)


class Sometimes(torch.nn.Module):
    """An output that is there only for some batches."""

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        return {"y": x, "many": [x] if x.shape[0] > 2 else [None]}


def finished(module: torch.nn.Module, *names: str) -> Reference:
    inputs = tuple(InputPlan(name=name, dtype="float32", shape=("batch",)) for name in names)
    axes = (AxisPlan(name="batch", min=1, typical=3, max=4),)
    plan = ExportPlan(opset=20, ir_version=9, exporter="auto", axes=axes, inputs=inputs, outputs=None)
    return finish(module, inputs, plan)


def test_an_output_that_is_missing_sometimes_is_named() -> None:
    reference = finished(Sometimes(), "x")
    assert reference.outputs == ("y", "many.0")
    with pytest.raises(ValueError, match=r"gives no output `many\.0` here"):
        reference.module(A)


def test_what_is_not_exported_is_reported() -> None:
    class Several(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[Any, ...]:
            return x, None, "text"

    assert finished(Several(), "x").notes == ("outputs that are no tensors, and not exported: output_2 (str)",)


class Calls(torch.nn.Module):
    def forward(self, batch: dict[str, torch.Tensor], flag: Any = None, *, k: torch.Tensor, n: int = 1) -> torch.Tensor:
        return batch["b"] - n * k + 0 * batch["c"]


def test_a_program_with_keywords_constants_and_mappings(tmp_path: Path) -> None:
    made = torch.export.export(Calls(), ({"c": C, "b": B}, None), {"n": 2, "k": A})
    torch.export.save(made, tmp_path / "p.pt2")
    source = ExportedProgramSource(source="exported_program", path="p.pt2")
    plan = ExportPlan(opset=20, ir_version=9, exporter="auto", axes=(), inputs=None, outputs=None)
    reference = load_program(source, tmp_path, plan)
    tensors = {"batch_b": B, "batch_c": C, "k": A}
    assert {tensor.name for tensor in reference.inputs} == set(tensors)
    (answer,) = reference.module(*(tensors[tensor.name] for tensor in reference.inputs))
    assert torch.equal(answer, EXPECTED)
    declared = tuple(InputPlan(name=name, dtype="float32", shape=(2,)) for name in ("k", "batch_c", "batch_b"))
    reference = load_program(source, tmp_path, plan.model_copy(update={"inputs": declared}))
    assert torch.equal(reference.module(A, C, B)[0], EXPECTED)
    wrong = plan.model_copy(update={"inputs": declared[:2]})
    with pytest.raises(StageError, match=r"takes the tensors .*batch_b.*declares k, batch_c"):
        load_program(source, tmp_path, wrong)


def test_outputs_of_a_file_are_those_of_its_model_by_name_or_in_order() -> None:
    assert named_alike(None, ("a", "b")) == {"a": 0, "b": 1}
    assert named_alike(["b"], ("a", "b")) == {"b": 1}
    assert named_alike(["y", "z"], ("a", "b")) == {"y": 0, "z": 1}
    with pytest.raises(StageError, match=r"the ONNX file gives y, and the PyTorch model a, b") as error:
        named_alike(["y"], ("a", "b"))
    assert "model.reference.outputs" in str(error.value.help)
