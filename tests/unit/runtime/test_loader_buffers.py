"""Buffers that stay where they are, sessions that capture their runs, and the record of what ran."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support import bundles

loader = bundles.runtime_module("loader")
settings = bundles.runtime_module("loading.settings")

WARM = {"batch": 2, "sequence": 5}
# Any value of any option of the CPU provider is taken by ONNX Runtime without a word, and captures nothing there.
GRAPHS = {"name": "CPUExecutionProvider", "options": {"enable_cuda_graph": "1"}}
PLAIN = {"name": "CPUExecutionProvider", "options": {}}


@pytest.fixture(autouse=True)
def _cpu_takes_the_option_of_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a bundle ask the CPU provider for graphs, which loaders refuse: it stands in for CUDA's here."""
    options = settings.PROVIDER_OPTIONS
    monkeypatch.setitem(options, PLAIN["name"], options[PLAIN["name"]] | {"enable_cuda_graph"})


def bundle_with(root: Path, provider: dict[str, Any]) -> Path:
    recipe = bundles.text()
    recipe.session["providers"] = [provider]
    recipe.manifest["warmup"] = [WARM]
    return recipe.write(root / "bundle")


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("provider", [PLAIN, GRAPHS])
def test_buffers_give_the_answers_of_a_plain_run(tmp_path: Path, provider: dict[str, Any]) -> None:
    with loader.Model.load(bundle_with(tmp_path, provider)) as model:
        inputs = model.example(WARM)
        others = {name: array[::-1].copy() for name, array in inputs.items()}
        wanted = [model.run(given) for given in (inputs, others)]
        assert not same(*wanted)
        bound = model.bind(inputs)
        assert same(bound.answer(), wanted[0])
        bound.update(others)
        assert same(bound.answer(), wanted[0])
        bound.run()
        assert same(bound.answer(), wanted[1])
        # What was copied out stays what it was.
        kept = bound.answer()
        bound.update(inputs)
        bound.run()
        assert same(kept, wanted[1])


def test_what_does_not_fit_the_buffers_is_refused(tmp_path: Path) -> None:
    with loader.Model.load(bundle_with(tmp_path, PLAIN)) as model:
        bound = model.bind(model.example(WARM))
        with pytest.raises(loader.InputError, match=r"has shape \[3, 5\], its buffer \[2, 5\]\. Bind again"):
            bound.update(model.example({**WARM, "batch": 3}))
        with pytest.raises(loader.InputError, match=r"int32, the model takes int64"):
            bound.update({name: array.astype(np.int32) for name, array in model.example(WARM).items()})
        with pytest.raises(loader.InputError, match="is missing"):
            model.bind({})
    with pytest.raises(loader.SessionError, match="was closed"):
        model.bind(bundles.text().golden[0])


def test_the_shapes_of_the_manifest_are_captured_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which run has which gpu_graph_id: a captured shape its own after one run without, all others none."""
    asked: list[str] = []

    class Options(ort_options()):  # type: ignore[misc]
        def add_run_config_entry(self, name: str, value: str) -> None:
            assert name == "gpu_graph_id"
            asked.append(value)
            super().add_run_config_entry(name, value)

    monkeypatch.setattr("onnxruntime.RunOptions", Options)
    with loader.Model.load(bundle_with(tmp_path, GRAPHS), selftest=False) as model:
        assert asked == ["-1", "1"], "the warm-up captures"
        asked.clear()
        answers = [model.run(model.example(WARM)) for _ in range(2)]
        assert asked == ["1", "1"]
        assert same(*answers)
        asked.clear()
        assert model.run(model.example({"batch": 3, "sequence": 4}))["hidden"].shape == (3, 4, 8)
        assert asked == ["-1"]
        asked.clear()
        model.bind(model.example({"batch": 3, "sequence": 4})).run()
        assert asked == ["-1", "-1", "-1"]
        # Those of a captured shape are the buffers that were captured: a graph reads and writes no others.
        assert model.bind(model.example(WARM)) is model.bind(model.example(WARM))


def ort_options() -> Any:
    import onnxruntime

    return onnxruntime.RunOptions


@pytest.mark.parametrize(("option", "serial"), [({}, False), ({"enable_cuda_graph": "0"}, False)])
def test_sessions_without_graphs_serve_many_at_once(tmp_path: Path, option: dict[str, str], serial: bool) -> None:
    with loader.Model.load(bundle_with(tmp_path, {**PLAIN, "options": option})) as model:
        assert model._graphs.enabled is serial
        assert model._graphs._captured == {}


def test_every_node_that_ran_is_told(tmp_path: Path) -> None:
    with loader.Model.load(
        bundle_with(tmp_path, PLAIN), selftest=False, warmup=False, profile=tmp_path / "profile"
    ) as model:
        model.run(model.example(WARM))
        found = model.executed()
        assert {(node["op_type"], node["provider"], node["runs"]) for node in found} == {
            (op_type, "CPUExecutionProvider", 1) for op_type in ("Gather", "Cast", "Unsqueeze", "Mul")
        }
        assert len(list(tmp_path.glob("profile*"))) == 1
        with pytest.raises(loader.SessionError, match="not loaded with profile"):
            model.executed()
        # It goes on answering.
        assert model.run(model.example(WARM))["hidden"].shape == (2, 5, 8)
