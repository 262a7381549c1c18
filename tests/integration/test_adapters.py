"""A LoRA over a tiny BERT, from `ortc build` to the bill of materials: base and adapter with digest and licence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.support.adapters import IDS, write_adapter, write_base
from tests.support.builds import PLAIN, Compiler

peft = pytest.importorskip("peft", reason="pip install 'ortc[adapters]'")
pytestmark = pytest.mark.integration


def test_an_adapter_ships_merged_and_named(ortc: Compiler, write_spec: Callable[..., Path], tmp_path: Path) -> None:
    lora = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "value"])
    expected = write_adapter(tmp_path / "adapter", write_base(tmp_path / "base", "bert"), lora).numpy()
    adapter = {"path": "adapter", "license": "mit"}
    model = {"source": "huggingface", "path": "base", "task": "text-classification", "license": "apache-2.0"}
    export = {"dynamic_axes": {"batch": {"min": 1, "max": 2}, "sequence": {"min": 1, "max": 9}}}
    export["exporter"] = "torchscript"
    spec = write_spec(tmp_path, {**model, "interface": "tensors", "adapter": adapter}, export)
    bundle = ortc.build(spec, *PLAIN, output=tmp_path / "dist", cwd=tmp_path).succeeded().bundle("small", "cpu")

    import onnxruntime as ort

    session = ort.InferenceSession(bundle / "model/model.onnx", providers=["CPUExecutionProvider"])
    ids = IDS.numpy()
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    (found,) = session.run(["logits"], feeds)
    assert np.abs(found - expected).max() < 1e-5

    names = {".adapter/adapter_config.json", ".adapter/adapter_model.safetensors"}
    provenance = json.loads((bundle / "manifest.json").read_bytes())["provenance"]
    assert provenance["licenses"] == {"model": "apache-2.0", "adapter": "mit"}
    assert {file["name"] for file in provenance["files"]} == {"config.json", "model.safetensors", *names}
    components = {entry["name"]: entry for entry in json.loads((bundle / "sbom.cdx.json").read_bytes())["components"]}
    licenses = {name: components[name]["licenses"] for name in ("model.safetensors", *names)}
    assert {entry["license"]["id"] for name in names for entry in licenses[name]} == {"MIT"}
    assert [entry["license"]["id"] for entry in licenses["model.safetensors"]] == ["Apache-2.0"]
    statement = json.loads((bundle / "attestations/provenance.intoto.json").read_bytes())
    resolved = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    notes = {entry["name"]: entry["annotations"] for entry in resolved if entry["annotations"]["role"] == "adapter"}
    assert notes == {name: {"role": "adapter", "license": "mit"} for name in names}
