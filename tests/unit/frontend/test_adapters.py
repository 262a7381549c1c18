"""Adapters of PEFT become a part of the weights: the merged model answers as PyTorch does with the adapter."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.adapters import IDS, LABELS, write_adapter, write_base

from ortc.common.errors import StageError
from ortc.execution.action_cache import Store
from ortc.frontend.fetch import fetch
from ortc.frontend.reference.adapter import class_count, trained_names
from ortc.frontend.reference.huggingface import load
from ortc.frontend.reference.model import Reference
from ortc.plan.plan import AxisPlan, ExportPlan
from ortc.spec.model_sources import HuggingFaceSource

peft = pytest.importorskip("peft", reason="pip install 'ortc[adapters]'")
AXES = (AxisPlan(name="batch", min=1, typical=2, max=4), AxisPlan(name="sequence", min=1, typical=9, max=16))
EXPORT = ExportPlan(opset=20, ir_version=10, exporter="auto", axes=AXES, inputs=None, outputs=None)
ADAPTERS: dict[str, tuple[str, Any]] = {
    "lora-bert": ("bert", lambda: peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "dense"])),
    "lora-llama": ("llama", lambda: peft.LoraConfig(task_type="SEQ_CLS", r=2, use_rslora=True)),
    "dora-bert": ("bert", lambda: peft.LoraConfig(task_type="SEQ_CLS", use_dora=True, target_modules=["value"])),
    "ia3-bert": (
        "bert",
        lambda: peft.IA3Config(
            task_type="SEQ_CLS", target_modules=["key", "output.dense"], feedforward_modules=["output.dense"]
        ),
    ),
}


def merged(root: Path, **more: Any) -> Reference:
    source = HuggingFaceSource.model_validate(
        {
            "source": "huggingface",
            "path": "base",
            "task": "text-classification",
            "interface": "tensors",
            "adapter": {"path": "adapter", **more},
        }
    )
    (root / "work").mkdir()
    fetched = fetch(source, root, Store(root / "cache"), root / "work")
    assert [file.name for file in fetched.files if file.name.startswith(".adapter/")] == [
        ".adapter/adapter_config.json",
        ".adapter/adapter_model.safetensors",
    ]
    with torch.no_grad():
        return load(source, fetched.directory, EXPORT)


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_merged_adapter_answers_as_pytorch_with_it(name: str, tmp_path: Path) -> None:
    kind, config = ADAPTERS[name]
    base = write_base(tmp_path / "base", kind)
    expected = write_adapter(tmp_path / "adapter", base, config())
    reference = merged(tmp_path)
    assert [tensor.name for tensor in reference.inputs][:2] == ["input_ids", "attention_mask"]
    types = [torch.zeros_like(IDS) for _ in reference.inputs[2:]]
    with torch.no_grad():
        (found,) = reference.module(IDS, torch.ones_like(IDS), *types)
    assert reference.outputs == ("logits",)
    assert found.shape == (2, LABELS)
    assert (found - expected).abs().max() < 1e-5
    assert not any("lora" in key or "ia3" in key for key in reference.module.state_dict())
    assert class_count(tmp_path / "adapter") == LABELS


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_adapter(tmp_path / "adapter", write_base(tmp_path / "base", "bert"), ADAPTERS["lora-bert"][1]())
    return tmp_path


def change(root: Path, **values: Any) -> None:
    path = root / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | values), "utf-8")


def test_names_of_a_new_head_are_those_of_the_base(project: Path) -> None:
    assert trained_names(project / "adapter") == {"classifier.weight": (LABELS, 16), "classifier.bias": (LABELS,)}


def test_adapters_that_are_no_part_of_the_weights_are_refused(project: Path) -> None:
    change(project, peft_type="PROMPT_TUNING")
    with pytest.raises(StageError, match="the adapter is PROMPT_TUNING, which does not become a part"):
        merged(project)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (
            lambda tensors: tensors.pop("base_model.model.bert.encoder.layer.1.attention.self.query.lora_B.weight"),
            "lacks",
        ),
        (
            lambda tensors: tensors.update({"base_model.model.other.lora_A.weight": torch.zeros(4, 16)}),
            "the model has no place for 1 tensors of the adapter, first `base_model.model.other.lora_A.weight`",
        ),
    ],
    ids=["one missing", "one too many"],
)
def test_every_tensor_of_an_adapter_has_its_place(edit: Any, said: str, project: Path) -> None:
    file = project / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file)
    with pytest.raises(StageError, match=said):
        merged(project)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("megatron_config", {"a": 1}),
        ("init_lora_weights", "loftq"),
        ("init_lora_weights", "corda"),
        ("alora_invocation_tokens", [1]),
        ("layer_replication", [[0, 1]]),
        ("arrow_config", {"top_k": 1}),
        ("a_field_of_next_year", 1),
    ],
)
def test_fields_with_which_peft_does_more_than_change_weights_are_refused(
    field: str, value: Any, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one makes PEFT import any module that is installed, by the name in the file."""
    path = project / "adapter" / "adapter_config.json"
    config = json.loads(path.read_bytes())
    path.write_text(json.dumps({**config, "megatron_core": "antigravity", field: value}), "utf-8")
    monkeypatch.delitem(sys.modules, "antigravity", raising=False)
    with pytest.raises(StageError, match=f"adapter_config.json sets `{field}`"):
        merged(project)
    assert "antigravity" not in sys.modules


def test_an_adapter_of_another_base_is_refused(project: Path) -> None:
    change(project, target_modules=["q_proj"])
    with pytest.raises(StageError, match="the LoRA adapter cannot be merged into the model") as caught:
        merged(project)
    assert "the base that the adapter was trained on" in str(caught.value.help)


def test_without_peft_the_message_says_how_to_install_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(StageError, match="merging an adapter needs PEFT") as caught:
        merged(project)
    assert caught.value.help == "install it: pip install 'ortc[adapters]'"


def test_an_adapter_has_the_declared_digest(project: Path) -> None:
    with pytest.raises(StageError, match=r"`adapter/adapter_model.safetensors` was refused: its sha256 is"):
        merged(project, files={"adapter_model.safetensors": "0" * 64})


def test_a_pickled_adapter_gets_a_way_out(project: Path) -> None:
    (project / "adapter" / "adapter_model.safetensors").rename(project / "adapter" / "adapter_model.bin")
    with pytest.raises(StageError, match=r"has no `adapter_model.safetensors`") as caught:
        merged(project)
    assert "save_pretrained" in str(caught.value.help)
