"""A module has the weights that its spec says: loaded, its own, none at all, or random ones."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ortc.common.errors import StageError
from ortc.frontend.reference.custom import NOTHING_TO_LOAD, build_module, load_module
from ortc.frontend.reference.randomness import ANOTHER_SEED, _OtherNumbers, other_random_numbers
from ortc.frontend.reference.state import module_state, numbers
from ortc.frontend.reference.trained import refuse_drawn
from ortc.plan.plan import AxisPlan, ExportPlan, InputPlan
from ortc.spec.model_sources import PyTorchSource

EXPORT = ExportPlan(
    opset=20,
    ir_version=10,
    exporter="auto",
    axes=(AxisPlan(name="batch", min=1, typical=1, max=4),),
    inputs=(InputPlan(name="x", dtype="float32", shape=("batch", 4)),),
    outputs=None,
)
LAYER = "        self.layer = torch.nn.Linear(4, 4)"
PARTS: dict[str, tuple[str, list[str]]] = {
    "a layer": (LAYER, ["layer.weight", "layer.bias"]),
    "a buffer": ("        self.register_buffer('scale', torch.ones(4))", ["scale"]),
    "a buffer that no state dict has": (
        "        self.register_buffer('scale', torch.ones(4), persistent=False)",
        ["scale"],
    ),
    "a layer in a list": (
        "        self.layers = [torch.nn.Linear(4, 4)]",
        ["layers[0].weight", "layers[0].bias"],
    ),
    "a parameter in a mapping": (
        "        self.own = {'a': torch.nn.Parameter(torch.ones(4))}",
        ["own['a']"],
    ),
    "a layer in a private mapping": (
        "        self._own = {'a': (torch.nn.Linear(4, 4),)}",
        ["_own['a'][0].weight", "_own['a'][0].bias"],
    ),
    "a plain tensor": ("        self.own = torch.ones(4)", ["own"]),
    "an array in a private tuple": ("        self._own = (torch.ones(4).numpy(),)", ["_own[0]"]),
    "nothing": ("        self.size = 4", []),
}


@pytest.fixture
def module(tmp_path: Path) -> Callable[..., str]:
    """Writes a module whose class has the given lines in its constructor, and whose function has some more."""

    def write(parts: str, body: str = "    return Net()") -> str:
        name = f"trained_{uuid.uuid4().hex}"
        (tmp_path / f"{name}.py").write_text(
            "import random\nimport numpy\nimport torch\nclass Net(torch.nn.Module):\n    def __init__(self):\n"
            f"        super().__init__()\n{parts}\n    def forward(self, x):\n        return x * 2\n"
            f"def build():\n{body}\n"
        )
        return f"{name}:build"

    return write


def source(entrypoint: str, weights: str | None) -> PyTorchSource:
    return PyTorchSource(source="pytorch", entrypoint=entrypoint, weights=weights)


@pytest.mark.parametrize("name", PARTS)
def test_none_is_for_modules_without_numbers(name: str, tmp_path: Path, module: Callable[..., str]) -> None:
    lines, expected = PARTS[name]
    declared = source(module(lines), "none")
    if name == "nothing":
        assert list(numbers(build_module(declared, tmp_path, tmp_path)[0])) == []
        return
    with pytest.raises(StageError, match="`weights: none`, but the module of") as caught:
        build_module(declared, tmp_path, tmp_path)
    assert caught.value.message.endswith(", ".join(f"`{entry}`" for entry in expected))
    assert "weights: entrypoint" in str(caught.value.help)


def test_the_first_few_are_named_and_all_are_counted(tmp_path: Path, module: Callable[..., str]) -> None:
    lines = "        self.layers = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(5))"
    with pytest.raises(StageError, match=r"has 10 parameters and buffers: `layers.0.weight`, .* and 7 more$"):
        build_module(source(module(lines), "none"), tmp_path, tmp_path)


def test_what_says_nothing_is_not_built(tmp_path: Path, module: Callable[..., str]) -> None:
    with pytest.raises(StageError, match="nothing says where the weights of"):
        build_module(source(module(LAYER), None), tmp_path, tmp_path)


def test_a_hint_where_a_function_has_nothing_to_load(tmp_path: Path, module: Callable[..., str]) -> None:
    found = load_module(source(module("        pass"), "entrypoint"), tmp_path, tmp_path, EXPORT)
    assert NOTHING_TO_LOAD in found.notes
    assert load_module(source(module(LAYER), "entrypoint"), tmp_path, tmp_path, EXPORT).notes == ()


def test_weights_of_another_size_are_refused(tmp_path: Path, module: Callable[..., str]) -> None:
    save_file({"layer.weight": torch.ones(3, 4), "layer.bias": torch.ones(3)}, tmp_path / "w.safetensors")
    with pytest.raises(StageError, match=r"`w.safetensors` does not fit the module: size mismatch for layer") as caught:
        build_module(source(module(LAYER), "w.safetensors"), tmp_path, tmp_path)
    assert "must build the module that was trained" in str(caught.value.help)


def state(declared: PyTorchSource, root: Path, seed: int) -> dict[str, str]:
    torch.manual_seed(seed)
    return module_state(build_module(declared, root, root)[0]).parts


LOADS = "    net = Net()\n    net.load_state_dict(torch.load({place!r}))\n    return net"
DRAWN: dict[str, tuple[str, str, str, str | None]] = {
    # Parts, the function's body, `weights`, and what the error names.
    "nothing is loaded": (LAYER, "    return Net()", "entrypoint", "`layer.weight`, `layer.bias` at random"),
    "all is loaded": (LAYER, LOADS, "entrypoint", None),
    "the function has a seed of its own": (
        LAYER,
        "    torch.manual_seed(7)\n    return Net()",
        "entrypoint",
        "`layer.weight`, `layer.bias` at random",
    ),
    "a seed under another name": (
        LAYER,
        "    from torch import manual_seed as fixed\n    fixed(7)\n    return Net()",
        "entrypoint",
        "`layer.weight`, `layer.bias` at random",
    ),
    "a generator of its own": (
        LAYER,
        (
            "    net = Net()\n"
            "    torch.nn.init.normal_(net.layer.weight, generator=torch.Generator().manual_seed(3))\n"
            "    torch.nn.init.zeros_(net.layer.bias)\n    return net"
        ),
        "entrypoint",
        "`layer.weight` at random",
    ),
    "numbers of NumPy": (
        (
            "        self.register_buffer('a', torch.from_numpy(numpy.random.default_rng(3).random(4)))\n"
            "        self.register_buffer('b', torch.from_numpy(numpy.random.RandomState(3).random_sample(4)))\n"
            "        numpy.random.seed(3)\n        random.seed('x')\n"
            "        self.register_buffer('c', torch.from_numpy(numpy.random.rand(4)))\n"
            "        self.register_buffer('d', torch.tensor(random.random()))"
        ),
        "    return Net()",
        "entrypoint",
        "`a`, `b`, `c` and 1 more at random",
    ),
    "a generator by another name": (
        (
            "        from numpy.random import PCG64, Generator, default_rng\n"
            "        from torch import Generator as Dice\n"
            "        self.register_buffer('a', torch.from_numpy(Generator(PCG64(7)).standard_normal(4)))\n"
            "        self.register_buffer('b', torch.from_numpy(default_rng([1, 2]).standard_normal(4)))\n"
            "        self.register_buffer('c', torch.randn(4, generator=Dice().manual_seed(0)))\n"
            "        self.register_buffer('d', torch.tensor(random.Random(5).gauss(0, 1)))"
        ),
        "    return Net()",
        "entrypoint",
        "`a`, `b`, `c` and 1 more at random",
    ),
    "operators of PyTorch": (
        (
            "        torch.default_generator.manual_seed(3)\n"
            "        self.register_buffer('a', torch.randperm(32))\n"
            "        self.register_buffer('b', torch.randint(1000, (4,)))\n"
            "        self.register_buffer('c', torch.bernoulli(torch.full((64,), 0.5)))\n"
            "        self.register_buffer('d', torch.nn.init.trunc_normal_(torch.empty(4)))\n"
            "        self.register_buffer('e', torch.multinomial(torch.ones(64), 16))"
        ),
        "    return Net()",
        "entrypoint",
        "`a`, `b`, `c` and 2 more at random",
    ),
    "a state that is set": (
        (
            "        numpy.random.set_state(numpy.random.RandomState(numpy.random.MT19937(1)).get_state())\n"
            "        self.register_buffer('a', torch.from_numpy(numpy.random.rand(4)))\n"
            "        torch.set_rng_state(torch.Generator().manual_seed(4).get_state())\n"
            "        self.register_buffer('b', torch.rand(4))"
        ),
        "    return Net()",
        "entrypoint",
        "`a`, `b` at random",
    ),
    "a plain object and a closure": (
        (
            "        class Table:\n            def __init__(self): self.t = torch.randn(4)\n"
            "        own = torch.randn(4)\n"
            "        self.table, self.scaled = Table(), lambda x: x * own"
        ),
        "    return Net()",
        "entrypoint",
        "`table.t`, `scaled.own` at random",
    ),
    "numbers in the code": (
        "        self.register_buffer('sobel', torch.tensor([1.0, 0.0, -1.0]))",
        "    torch.manual_seed(7)\n    return Net()",
        "entrypoint",
        None,
    ),
    "a head is forgotten": (
        f"{LAYER}\n        self.head = torch.nn.Linear(4, 2)",
        LOADS.replace("))", "), strict=False)"),
        "entrypoint",
        "`head.weight`, `head.bias` at random",
    ),
    "a layer in a list": (
        "        self.layers = [torch.nn.Linear(4, 4)]",
        "    return Net()",
        "entrypoint",
        "`layers[0].weight`, `layers[0].bias` at random",
    ),
    "a tensor that is no parameter": (
        "        self.own = torch.randn(4)",
        "    return Net()",
        "entrypoint",
        "`own` at random",
    ),
    "a private tensor that is no parameter": (
        f"{LAYER}\n        self._own = [torch.randn(4)]",
        "    return Net()",
        "w.pt",
        "`_own[0]` at random: `w.pt` has none",
    ),
    "a buffer that no state dict has": (
        f"{LAYER}\n        self.register_buffer('noise', torch.randn(4), persistent=False)",
        "    return Net()",
        "w.pt",
        "`noise` at random: `w.pt` has none",
    ),
    "a table that is computed": (
        f"{LAYER}\n        self.register_buffer('table', torch.arange(4.0), persistent=False)",
        "    return Net()",
        "w.pt",
        None,
    ),
}


@pytest.mark.parametrize("name", DRAWN)
def test_numbers_that_nothing_loads_are_refused(name: str, tmp_path: Path, module: Callable[..., str]) -> None:
    parts, body, weights, named = DRAWN[name]
    layer: dict[str, Any] = torch.nn.Linear(4, 4).state_dict()
    torch.save({f"layer.{key}": value for key, value in layer.items()}, tmp_path / "w.pt")
    declared = source(module(parts, body.format(place=str(tmp_path / "w.pt"))), weights)
    drawn = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    with other_random_numbers():
        again = state(declared, tmp_path, 0)
    assert torch.equal(torch.get_rng_state(), drawn[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == drawn[1:]
    found = state(declared, tmp_path, 0)
    if named is None:
        refuse_drawn(declared, found, again)
        return
    with pytest.raises(StageError, match="draws") as caught:
        refuse_drawn(declared, found, again)
    assert f"`weights: {weights}`, but `{declared.entrypoint}` draws {named}" in caught.value.message
    assert "weights: random" in str(caught.value.help)


@pytest.mark.parametrize("name", [name for name in PARTS if name != "nothing"])
def test_the_digests_of_a_module_cover_all_that_it_computes_with(
    name: str, tmp_path: Path, module: Callable[..., str]
) -> None:
    lines, expected = PARTS[name]
    before = state(source(module(lines), "random"), tmp_path, 0)
    changed = lines.replace("torch.ones(4)", "torch.zeros(4)")
    after = state(source(module(changed), "random"), tmp_path, ANOTHER_SEED)
    assert [part for part in before if not part.endswith("()") and before[part] != after[part]] == expected


def test_a_module_that_is_held_in_a_circle_is_digested_once() -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = [torch.nn.Linear(2, 2)]
            self.inner[0].owner = [self]  # type: ignore[assignment]

    parts = module_state(Net()).parts
    assert [part for part in parts if part.startswith("inner")] == ["inner[0].weight", "inner[0].bias", "inner[0]()"]


ENDS = {
    "import sys; sys.exit(0)": "ended the process in which it runs: SystemExit(0)",
    "import os; os._exit(0)": "ended the process in which it runs: SystemExit(0)",
    "raise KeyboardInterrupt": "ended the process in which it runs: KeyboardInterrupt()",
    "return build()": "calls itself without end",
}


@pytest.mark.parametrize("line", ENDS)
def test_a_function_that_ends_its_process_is_named(line: str, tmp_path: Path, module: Callable[..., str]) -> None:
    declared = source(module(LAYER, f"    {line}"), "random")
    with pytest.raises(StageError) as caught:
        build_module(declared, tmp_path, tmp_path)
    assert caught.value.message.startswith(f"`{declared.entrypoint}` {ENDS[line]}")
    assert [line in detail for detail in caught.value.details] == [True]


def test_to_draw_other_numbers_imports_no_compiler_of_pytorch() -> None:
    """PyTorch's base class excludes the method of a mode from compilation, which takes an import of seconds."""
    assert not hasattr(_OtherNumbers.__torch_dispatch__, "__wrapped__")
