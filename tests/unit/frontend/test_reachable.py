"""A module's digest covers everything that its forward() computes with, wherever the numbers are."""

from __future__ import annotations

import importlib
import logging
import random
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ortc.frontend.reachable.walk import State
from ortc.frontend.reference.randomness import other_random_numbers
from ortc.frontend.reference.state import module_state, numbers

HEAD = """
import collections, dataclasses, functools, threading, types
import numpy as np
import torch
from torch import nn
def t(): return torch.full((4,), VALUE)
"""
WAYS: dict[str, tuple[str, str]] = {
    # Definitions with VALUE, and the constructor's lines beside forward()'s expression.
    "a global": ("W = t()", "x * W"),
    "an array of the globals": ("W = np.full(4, VALUE)", "x * torch.from_numpy(W)"),
    "a number of the globals": ("SCALE = VALUE", "x * SCALE"),
    "a global of a function that is called": ("W = t()\ndef scaled(x): return x * W", "scaled(x)"),
    "globals by computed names": ("W_a = t()", "x * globals()['W_' + 'a']"),
    "a closure": ("def make():\n    w = t()\n    return lambda x: x * w", "self.f(x)|self.f = make()"),
    "a closure in a closure": (
        "def make():\n    w = t()\n    def inner(x): return x * w\n    return lambda x: inner(x)",
        "self.f(x)|self.f = make()",
    ),
    "a default": ("def scaled(x, w=t()): return x * w", "scaled(x)"),
    "a default by keyword": ("def scaled(x, *, w=t()): return x * w", "scaled(x)"),
    "a partial": ("def scaled(x, w): return x * w", "self.f(x)|self.f = functools.partial(scaled, w=t())"),
    "a bound method": (
        "class Table:\n    def __init__(self): self.w = t()\n    def look(self, x): return x * self.w",
        "self.f(x)|self.f = Table().look",
    ),
    "a plain object": (
        "class Table:\n    def __init__(self): self.w = t()\n    def __call__(self, x): return x * self.w",
        "self.table(x)|self.table = Table()",
    ),
    "a slot": (
        "class Table:\n    __slots__ = ('w',)\n    def __init__(self): self.w = t()",
        "x * self.table.w|self.table = Table()",
    ),
    "a dataclass": ("@dataclasses.dataclass\nclass Table:\n    w: object", "x * self.a.w|self.a = Table(t())"),
    "a named tuple": ("Table = collections.namedtuple('Table', 'w')", "x * self.a.w|self.a = Table(t())"),
    "a namespace": ("", "x * self.a.w|self.a = types.SimpleNamespace(w=t())"),
    "an attribute of the class": ("class Base(nn.Module):\n    W = t()", "x * self.W"),
    "an attribute of a class of the globals": ("class Config:\n    scale = VALUE", "x * Config.scale"),
    "a property": ("W = t()\nclass Base(nn.Module):\n    @property\n    def w(self): return W", "x * self.w"),
    "a method of a base class": (
        "W = t()\nclass Base(nn.Module):\n    def scaled(self, x): return x * W",
        "self.scaled(x)",
    ),
    "a static method": (
        "W = t()\nclass Base(nn.Module):\n    @staticmethod\n    def scaled(x): return x * W",
        "self.scaled(x)",
    ),
    "a method by a computed name": (
        "W = t()\nclass Base(nn.Module):\n    def scaled_a(self, x): return x * W",
        "getattr(self, 'scaled_' + 'a')(x)",
    ),
    "a decorator": (
        (
            "def by(w):\n    def around(f):\n        @functools.wraps(f)\n        def call(x): return f(x) * w\n"
            "        return call\n    return around\n@by(t())\ndef scaled(x): return x"
        ),
        "scaled(x)",
    ),
    "a function that PyTorch wraps": ("W = t()\n@torch.no_grad()\ndef scaled(x): return x * W", "scaled(x)"),
    "a function that remembers": ("W = t()\n@functools.lru_cache\ndef w(): return W", "x * w()"),
    "an attribute of a function": ("def scaled(x): return x * scaled.w\nscaled.w = t()", "scaled(x)"),
    "a hook": ("W = t()\ndef hook(module, given, out): return out * W", "x|self.register_forward_hook(hook)"),
    "forward() of the instance": ("def make(w):\n    return lambda x: x * w", "x|self.forward = make(t())"),
    "a container in containers": ("", "x * self.a['b'][0][1]|self.a = {'b': [(0, t())]}"),
    "an ordered mapping": ("", "x * self.a['b']|self.a = collections.OrderedDict(b=t())"),
    "a queue": ("", "x * self.a[0]|self.a = collections.deque([t()])"),
    "an array of objects": ("", "x * self.a[0]|self.a = np.array([t(), None], object)"),
    "a mapping that cannot be written": ("", "x * self.a['w']|self.a = types.MappingProxyType({'w': t()})"),
    "a set": ("", "x * sum(self.a)|self.a = frozenset({VALUE, 1.0})"),
    "an attribute of a tensor": ("W = torch.ones(4)\nW.scale = VALUE", "x * W.scale"),
    "a module in a plain object": (
        (
            "class Holder:\n    def __init__(self):\n        self.inner = nn.Linear(4, 4)\n"
            "        nn.init.constant_(self.inner.weight, VALUE); nn.init.zeros_(self.inner.bias)"
        ),
        "self.a.inner(x)|self.a = Holder()",
    ),
    "bytes": ("", "x * float(self.a)|self.a = str(VALUE).encode()"),
    "a buffer": ("import array", "x * self.a[0]|self.a = array.array('f', [VALUE])"),
    "a local of a thread": ("", "x * self.a.w|self.a = threading.local(); self.a.w = t()"),
    "a compiled module": (
        (
            "class Inner(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
            "        self.w = nn.Parameter(t())\n    def forward(self, x): return x * self.w"
        ),
        "self.a(x)|self.a = torch.jit.trace(Inner(), torch.ones(4))",
    ),
    "code": ("def scaled(x): return x * VALUE", "scaled(x)"),
}


class Scripted(torch.nn.Module):
    """Tensors in attributes that are neither parameters nor buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.state, self.context, self.layer = torch.zeros(0), torch.zeros(0), torch.nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + self.state.sum()  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_loaded_torchscript_module_has_one_digest_under_all_random_numbers(tmp_path: Path) -> None:
    """What drew other numbers holds tensors for longer, and PyTorch writes what others hold in another way."""
    torch.jit.save(torch.jit.script(Scripted()), tmp_path / "m.pt")
    module = torch.jit.load(tmp_path / "m.pt").eval()
    with other_random_numbers():
        again = torch.jit.load(tmp_path / "m.pt").eval()
    assert module_state(module) == module_state(again)


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., torch.nn.Module]]:
    """Writes the module of a user's project, and builds its model anew."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def make(definitions: str, how: str, value: float) -> torch.nn.Module:
        expression, _, constructor = how.partition("|")
        base = "" if "class Base" in definitions else "class Base(nn.Module): pass"
        lines = (
            f"{HEAD}\n{definitions}\n{base}\nclass Net(Base):\n    def __init__(self):\n        super().__init__()\n"
        )
        lines += f"        {constructor or 'pass'}\n    def forward(self, x): return {expression}\n"
        (tmp_path / "user_net.py").write_text(lines.replace("VALUE", str(value)))
        sys.modules.pop("user_net", None)
        importlib.invalidate_caches()
        found: torch.nn.Module = importlib.import_module("user_net").Net()
        return found

    yield make
    sys.modules.pop("user_net", None)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("way", WAYS)
def test_what_forward_computes_with_is_digested(way: str, build: Callable[..., torch.nn.Module]) -> None:
    def state(value: float) -> tuple[State, Any]:
        module = build(*WAYS[way], value)
        return module_state(module), module(torch.ones(4))

    (one, first), (again, same), (other, second) = state(2.0), state(2.0), state(3.0)
    assert torch.equal(first, same)
    assert not torch.equal(first, second)
    assert one == again
    assert one.opaque == other.opaque == ()
    assert [part for part in one.parts if one.parts[part] != other.parts.get(part)]
    has_tensor = "t()" in "".join(WAYS[way]) or "np.full" in "".join(WAYS[way])
    assert bool(one.numbers) >= has_tensor


def test_what_cannot_be_seen_into_is_said() -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.file = Path(__file__).open("rb")  # noqa: SIM115
            self.lock = threading.Lock()

    module = Net()
    assert module_state(module).opaque == ("file (_io.BufferedReader)",)
    module.file.close()


def test_dice_locks_and_loggers_are_no_numbers() -> None:
    class Net(torch.nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.dice = (random.Random(seed), np.random.default_rng(seed), np.random.RandomState(seed))  # noqa: S311
            self.more = torch.Generator().manual_seed(seed)
            self.lock, self.log = threading.Lock(), logging.getLogger(__name__)

    one, other = module_state(Net(1)), module_state(Net(2))
    assert one == other
    assert (one.numbers, one.opaque) == ((), ())


def test_neither_the_order_of_sets_nor_the_place_of_the_project_counts(tmp_path: Path) -> None:
    class Named:
        def __init__(self, name: str) -> None:
            self.name, self.owner = name, None

    def net(root: Path, names: str) -> torch.nn.Module:
        module = torch.nn.Linear(1, 1)
        torch.nn.init.ones_(module.weight), torch.nn.init.ones_(module.bias)
        module.named = {Named(name) for name in names}  # type: ignore[assignment]
        module.places = {str(root / "a"), root / "b"}  # type: ignore[assignment]
        return module

    one, two = tmp_path / "one", tmp_path / "two"
    states = [module_state(net(root, names), root) for root, names in ((one, "abcdef"), (two, "fedcba"))]
    assert states[0] == states[1]
    assert module_state(net(one, "abcdeg"), one) != states[0]


def test_what_holds_itself_and_what_is_deep_is_digested_once() -> None:
    module = torch.nn.Linear(1, 1)
    circle: list[Any] = [module]
    circle.append((circle, {"circle": circle}))
    module.circle = circle  # type: ignore[assignment]
    module.tower = nested = []  # type: ignore[assignment]
    for _ in range(3000):
        nested.append([nested := []])  # type: ignore[func-returns-value]
    shared: Any = (1.0,)
    for _ in range(64):
        shared = (shared, shared)
    module.shared = shared
    assert module_state(module) == module_state(module)


def test_methods_that_forward_does_not_call_do_not_count() -> None:
    source = "import torch\nclass Net(torch.nn.Module):\n    def forward(self, x): return x\n"
    source += "    def training_step(self): return DATA\n"

    def state(data: int) -> State:
        known: dict[str, Any] = {"__name__": "user_code", "DATA": data}
        exec(compile(source, "user_code.py", "exec"), known)  # noqa: S102
        return module_state(known["Net"]())

    assert state(1) == state(2)


def test_numbers_are_named_where_they_are() -> None:
    table = torch.ones(2)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.own = torch.nn.Linear(1, 1), [np.ones(2)]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * table

    found = numbers(Net())
    assert found[:1] == ("own[0]",)
    assert {"layer.weight", "layer.bias"} < set(found)
    assert [name for name in found if name.endswith("forward.table")]
