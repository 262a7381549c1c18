"""State dicts inside of checkpoints: found by `weights_key`, freed of a prefix, offered where nothing names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ortc.common.errors import StageError
from ortc.frontend.reference.custom import build_module
from ortc.frontend.reference.state_dicts import prefix_of, state_dict
from ortc.plan.checks import check_spec
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.model_sources import PyTorchSource

MODULE = """
import torch

def build(sizes=(4, 3), bias=True, extra=None):
    assert extra is None or extra == {"deep": [1, {"er": None}]}
    return torch.nn.Sequential(torch.nn.Linear(sizes[0], sizes[1], bias=bias))
"""
STATE = {"0.weight": torch.full((3, 4), 2.0), "0.bias": torch.zeros(3)}
TRAINER: dict[str, Any] = {
    "epoch": 3,
    "state_dict": {**{f"model.{name}": value for name, value in STATE.items()}, "criterion.weight": torch.ones(2)},
    "optimizer": {"state": {0: {"step": torch.ones(1)}}, "param_groups": [{"lr": 0.1}]},
}


def source(weights: str = "w.pt", **fields: Any) -> PyTorchSource:
    return PyTorchSource.model_validate(
        {"source": "pytorch", "entrypoint": "checkpointed:build", "weights": weights, **fields}
    )


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "checkpointed.py").write_text(MODULE)
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "checkpointed", raising=False)
    return tmp_path


def load(root: Path, held: Any, **fields: Any) -> tuple[torch.nn.Module, tuple[str, ...]]:
    torch.save(held, root / "w.pt")
    return build_module(source(**fields), root, root)


@pytest.mark.parametrize(
    ("held", "fields"),
    [
        (STATE, {}),
        ({"state_dict": STATE, "epoch": 3}, {"weights_key": "state_dict"}),
        ({"ema": {"model": STATE}, "model": {"0.weight": torch.ones(1)}}, {"weights_key": "ema.model"}),
        ({"a.b": {"c.d": STATE}}, {"weights_key": "a.b.c.d"}),
        ({f"module.{name}": value for name, value in STATE.items()}, {"strip_prefix": "module."}),
        ({f"_orig_mod.module.{name}": value for name, value in STATE.items()}, {"strip_prefix": "_orig_mod.module."}),
        (TRAINER, {"weights_key": "state_dict", "strip_prefix": "model."}),
    ],
    ids=["plain", "a key", "keys in keys", "keys with dots", "a prefix", "two prefixes", "a trainer's"],
)
def test_a_state_dict_is_found(root: Path, held: Any, fields: dict[str, Any]) -> None:
    module, notes = load(root, held, **fields)
    assert {name: value.tolist() for name, value in module.state_dict().items()} == {
        name: value.tolist() for name, value in STATE.items()
    }
    left = "1 tensor is left out of `w.pt`, without the prefix `model.`: `criterion.weight`"
    assert notes == ((left,) if held is TRAINER else ())


@pytest.mark.parametrize(
    ("held", "fields", "said", "way"),
    [
        (TRAINER, {}, "`w.pt` is no state dict (names to tensors): it has `epoch`, `state_dict`, `opt", "key: state"),
        ({"a": STATE, "b": {"c": STATE}}, {}, "no state dict", "write `weights_key` with one of `a`, `b.c`"),
        (TRAINER, {"weights_key": "model"}, "`w.pt` has no `model`, which `weights_key`", "`weights_key: state_dict`"),
        (TRAINER, {"weights_key": "optimizer"}, "`optimizer` of `w.pt` is no state dict", "torch.save(model.state"),
        (TRAINER, {"weights_key": "epoch"}, "it is of the type int", "torch.save"),
        (torch.ones(2), {}, "it is one tensor", "torch.save"),
        ({}, {}, "it is empty", "torch.save"),
        ({**STATE, "epoch": 1}, {}, "it has `epoch`", "torch.save"),
        (TRAINER, {"weights_key": "state_dict"}, "2 weights missing, 3 unknown", "write `strip_prefix: model.`"),
        (
            {"m": {f"a._orig_mod.{name}": value for name, value in STATE.items()}},
            {"weights_key": "m", "strip_prefix": "a."},
            "2 weights missing, 2 unknown",
            "write `strip_prefix: a._orig_mod.`",
        ),
        (STATE, {"strip_prefix": "module."}, "no name in `w.pt` begins with `module.`", "names begin with `0.`"),
        ({"x.1.weight": torch.ones(1)}, {}, "does not fit", "must build the module that was trained"),
    ],
)  # fmt: skip
def test_what_does_not_fit_says_what_would(root: Path, held: Any, fields: dict[str, Any], said: str, way: str) -> None:
    with pytest.raises(StageError) as caught:
        load(root, held, **fields)
    assert said in str(caught.value)
    assert way in str(caught.value.help)


def test_arguments_may_be_null_and_hold_others(root: Path) -> None:
    args = {"sizes": [4, 5], "bias": False, "extra": {"deep": [1, {"er": None}]}}
    module, _ = load(root, {"0.weight": torch.ones(5, 4)}, args=args)
    assert module.state_dict()["0.weight"].shape == (5, 4)
    assert load(root, STATE, args={"extra": None})[1] == ()


def test_a_prefix_in_safetensors(root: Path) -> None:
    save_file({f"module.{name}": value for name, value in STATE.items()}, root / "w.safetensors")
    found, notes = state_dict(source("w.safetensors", strip_prefix="module."), root / "w.safetensors")
    assert found.keys() == STATE.keys()
    assert notes == ()


def test_a_prefix_is_one_for_all() -> None:
    assert prefix_of(["module.a.w", "module.b.w"], ["a.w", "b.w"]) == "module."
    assert prefix_of(["x.module.a.w", "x.module.b.w", "y.a.w"], ["a.w", "b.w"]) == "x.module."
    assert prefix_of(["module.a.w"], ["a.w", "b.w"]) is None
    assert prefix_of(["modulea.w"], ["a.w"]) is None
    assert prefix_of(["a"], []) is None


@pytest.mark.parametrize("row", [3, 100, 10**9])
def test_sparse_tensors_with_places_beyond_their_sizes_are_refused(root: Path, row: int) -> None:
    """PyTorch would write there when it copies them into a parameter."""
    places, values = torch.tensor([[row], [0]]), torch.tensor([1.5])
    wrong = torch.sparse_coo_tensor(places, values, (3, 4), check_invariants=False)
    torch.sparse.check_sparse_tensor_invariants.disable()  # type: ignore[no-untyped-call]
    with pytest.raises(StageError, match=r"cannot read the weights `w\.pt`: .*size is inconsistent with indices"):
        load(root, {**STATE, "0.weight": wrong})


SPEC = """
apiVersion: ortc/v1alpha1
kind: ModelDeployment
name: example
version: 1.0.0
model: {source: pytorch, entrypoint: "checkpointed:build", weights: w.pt}
export: {opset: 20, inputs: {x: {dtype: float32, shape: [1, 4]}}}
targets: {cpu: {}}
"""


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript_is_refused_with_a_way_out(root: Path) -> None:
    """By the check of the spec and by the build, and never with PyTorch's advice to run what the file carries."""
    torch.jit.save(torch.jit.script(torch.nn.Linear(4, 3)), root / "w.pt")
    with pytest.raises(StageError, match=r"`w\.pt` is TorchScript") as refused:
        build_module(source(), root, root)
    assert "torch.jit.load(path)" in str(refused.value.help)
    (root / "spec.yaml").write_text(SPEC)
    with pytest.raises(SpecError) as checked:
        check_spec(root / "spec.yaml")
    (found,) = checked.value.diagnostics
    assert (found.rule.code, found.message) == ("ORTC309", "`w.pt` is TorchScript, and no state dict")
    torch.save(STATE, root / "w.pt")
    check_spec(root / "spec.yaml")
