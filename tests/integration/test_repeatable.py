"""Modules with a state, or with dice, are named before they are exported."""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.integration.conftest import MakeCache
from tests.support.builds import PLAIN, Compiler
from torch.nn import functional

from ortc.frontend.reference.repeatable import NotRepeatableError, check_repeatable

INPUTS = (torch.arange(12.0).reshape(3, 4),)


class Base(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)


class Plain(Base):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.layer(x), self.layer(x) / 0)


class Counter(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.calls += 1
        return (self.layer(x),)


class Replaced(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", torch.zeros(3, 4), persistent=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        before, self.last = self.last, self.layer(x)
        return (before,)


class Hidden(Base):
    steps = 0

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.steps += 1
        return (self.layer(x), self.layer(x) * self.steps)


class Noise(Base):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.layer(x) + torch.rand_like(x),)


class Dropping(Base):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (functional.dropout(self.layer(x), 0.5, training=True),)


class Shuffled(Base):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.layer(x)[:, np.random.permutation(4)],)


class Rarely(Base):
    """Draws always, and answers differently once in a while."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.layer(x) * (2 if random.random() < 0.3 else 1),)  # noqa: S311


class Stubborn(Base):
    """Keeps its dropout and its normalization in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(4)

    def train(self, mode: bool = True) -> Stubborn:
        super().train(mode)
        self.norm.training = True
        return self

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.norm(self.layer(x)),)


class LayerDrop(Base):
    """Draws a number that only training uses, as models of transformers do."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        skips = torch.rand([]) < 0.5
        return (x if self.training and skips else self.layer(x),)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Counter, "forward() changes `calls`"),
        (Replaced, "forward() changes `last`"),
        (Hidden, "output `second` differs between two runs on equal inputs: forward() keeps something between calls"),
        (Noise, "output `first` differs between two runs on equal inputs: forward() draws random numbers"),
        (Dropping, "output `first` differs between two runs on equal inputs: forward() draws random numbers"),
        (Shuffled, "output `first` differs between two runs on equal inputs: forward() draws random numbers"),
        (Rarely, "output `first` differs between two runs on equal inputs: forward() draws random numbers"),
        (Stubborn, "forward() changes `norm.num_batches_tracked` and 2 more"),
    ],
)
def test_state_and_dice_are_named(kind: type[Base], said: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(NotRepeatableError) as caught, torch.no_grad():
        check_repeatable(kind().eval(), INPUTS, ("first", "second") if kind is Hidden else ("first",))
    assert said in caught.value.message
    assert caught.value.help is not None
    assert "self.training" in caught.value.help or "as an input" in caught.value.help
    if kind is Stubborn:
        assert "in training mode in spite of eval(): `norm` (BatchNorm1d)" in caught.value.help


class Sticky(Base):
    """Switches to another way of computing at short inputs, for good."""

    short = False

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.short = self.short or len(x) < 2
        return (self.layer(x) * (2 if self.short else 1),)


def test_a_switch_that_other_shapes_turn_is_named() -> None:
    others = [[torch.ones(1, 4)]]
    with pytest.raises(NotRepeatableError, match="differs after a run on inputs of other shapes") as caught:
        check_repeatable(Sticky().eval(), [torch.ones(3, 4)], ("first",), others)
    assert "([[1, 4]]): forward() keeps something between calls, and changes `short`" in caught.value.message
    assert caught.value.help is not None
    assert "decide by the inputs of each call alone" in caught.value.help
    # What fails at another shape is for the reference to say.
    check_repeatable(Sticky().eval(), [torch.ones(3, 4)], ("first",), [[torch.ones(3, 5)]])


@pytest.mark.parametrize("kind", [Plain, LayerDrop])
def test_what_answers_equally_passes_and_leaves_the_dice_alone(kind: type[Base]) -> None:
    before = torch.get_rng_state(), random.getstate()
    module = kind()
    drawn = torch.get_rng_state()
    with torch.no_grad():
        check_repeatable(module.eval(), INPUTS, ("first", "second") if kind is Plain else ("first",))
    assert torch.equal(torch.get_rng_state(), drawn)
    assert random.getstate() == before[1]


ENTRY = """\
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
        self.register_buffer("mean", torch.zeros(3))
    def forward(self, x):
        answer = self.layer(x)
        self.mean.mul_(0.9).add_(answer.mean(0), alpha=0.1)
        return answer - self.mean
def build():
    return Net()
"""


@pytest.mark.parametrize("source", ["pytorch", "exported_program"])
def test_a_build_says_so_before_it_exports(source: str, make_cache: MakeCache, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "net.py").write_text(ENTRY)
    model = {"source": "pytorch", "entrypoint": "net:build", "weights": "random"}
    if source == "exported_program":
        scope: dict[str, type[torch.nn.Module]] = {}
        exec(ENTRY, scope)  # noqa: S102
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            batch = torch.export.Dim("batch", min=2, max=4)
            program = torch.export.export(scope["Net"]().eval(), (torch.zeros(2, 4),), dynamic_shapes=({0: batch},))
            torch.export.save(program, tmp_path / "net.pt2")
        model = {"source": "exported_program", "path": "net.pt2"}
    document = {
        "apiVersion": "ortc/v1alpha1",
        "kind": "ModelDeployment",
        "name": "small",
        "version": "1.0.0",
        "model": model,
        "export": {
            "inputs": {"x": {"dtype": "float32", "shape": ["batch", 4]}},
            "dynamic_axes": {"batch": {"min": 1, "max": 4}},
        },
        "targets": {"cpu": {"latency_budget": {"p99": "60s"}}},
    }
    (tmp_path / "spec.yaml").write_text(json.dumps(document))
    compiler = Compiler(make_cache(tmp_path / "cache"))
    build = compiler.build(tmp_path / "spec.yaml", *PLAIN, output=tmp_path / "dist", cwd=tmp_path)
    assert "forward() changes `mean`: what the model answers depends on earlier calls" in build.failed(4)
    assert "max_abs" not in build.stderr
