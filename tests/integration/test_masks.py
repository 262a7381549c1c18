"""Evidence of parity: a mask excludes what PyTorch treats as padding, and zeros or nothing prove nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.support.builds import PLAIN, Compiler

pytestmark = pytest.mark.integration

IGNORED = """
import torch
from torch import nn

class Model(nn.Module):
    '''The mask is that of torch.nn.Transformer: 1 where a position is ignored, and its answer is 0.'''
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.tensor([1e4] + [1.0] * 63))
        self.a = nn.Linear(64, 64, bias=False)
        self.b = nn.Linear(64, 16, bias=False)
        # Nothing depends on the large channel, and one scale for all leaves nothing of the others.
        with torch.no_grad():
            self.a.weight[:, 0] = 0.0

    def forward(self, x, attention_mask):
        return self.b(torch.tanh(self.a(x * self.scale))).masked_fill(attention_mask.bool().unsqueeze(-1), 0.0)

def build():
    return Model()
"""
PADDED = """
import torch
from torch import nn

class Model(nn.Module):
    '''The mask is 1 where a position is real. One output is 0, and one is empty.'''
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(8, 8)

    def forward(self, x, attention_mask):
        scores = (x @ x.transpose(1, 2)).masked_fill(attention_mask.unsqueeze(1) == 0, -1e9)
        hidden = self.a(x + torch.softmax(scores, -1) @ x)
        return {"hidden": hidden, "zero": torch.relu(-hidden * hidden), "none": hidden[:, :, 8:]}

def build():
    return Model()
"""


OPPOSITE = """
import torch
from torch import nn

class Model(nn.Module):
    '''The mask is true where a position is padding, as in torch.nn.MultiheadAttention.'''
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(8, 8)

    def forward(self, x, pad):
        scores = (x @ x.transpose(1, 2)).masked_fill(pad.unsqueeze(1), -1e9)
        return self.a(x + torch.softmax(scores, -1) @ x)

def build():
    return Model()
"""


def spec_of(root: Path, name: str, code: str, width: int, target: dict[str, str], inputs: dict[str, int]) -> Path:
    (root / "pyproject.toml").touch()
    (root / f"{name}.py").write_text(code, "utf-8")
    shape = ["batch", "sequence"]
    spec = {
        "apiVersion": "ortc/v1alpha1",
        "kind": "ModelDeployment",
        "name": name,
        "version": "1.0.0",
        "model": {"source": "pytorch", "entrypoint": f"{name}:build", "weights": "random"},
        "export": {
            "dynamic_axes": {axis: {"min": 2, "typical": 6, "max": 6} for axis in shape},
            # The exporter that takes less time: graphs of either have the same answers.
            "exporter": "torchscript",
            "inputs": {
                "x": {"dtype": "float32", "shape": [*shape, width]},
                "attention_mask": {"dtype": "int64", "shape": shape, **inputs},
            },
        },
        "targets": {"cpu": target},
    }
    path = root / f"{name}.yaml"
    path.write_text(json.dumps(spec), "utf-8")
    return path


def test_answers_at_ignored_positions_do_not_stand_for_all(ortc: Compiler, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "ignored", IGNORED, 64, {"precision": "int8"}, {})
    done = ortc.build(spec, "--variant", "int8-dynamic", *PLAIN, output=tmp_path / "dist")
    done.failed(5)
    (target,) = done.report("ignored")["targets"]
    failed = {verdict["gate"] for verdict in target["verdicts"] if verdict["outcome"] == "fail"}
    assert failed >= {"cosine"}


def test_outputs_that_no_case_shows_are_unmeasured(ortc: Compiler, tmp_path: Path) -> None:
    target = {"precision": "fp32", "unmeasured": "allow"}
    spec = spec_of(tmp_path, "padded", PADDED, 8, target, {})
    done = ortc.build(spec, *PLAIN, output=tmp_path / "dist").succeeded()
    (report,) = done.report("padded")["targets"]
    unmeasured = {
        verdict["where"]: verdict["observed"] for verdict in report["verdicts"] if verdict["outcome"] == "unmeasured"
    }
    assert report["status"] == "provisional"
    assert unmeasured.keys() == {"output `zero`", "output `none`"}
    assert unmeasured["output `zero`"].startswith("the reference is 0 at all")
    assert unmeasured["output `none`"].startswith("no finite value at all")
    bundle = done.bundle("padded", "cpu")
    golden = json.loads((bundle / "manifest.json").read_bytes())["golden"]
    assert {(case["mask"], *case["masked_outputs"]) for case in golden} == {("attention_mask", "hidden")}
    masks = [np.load(bundle / case["inputs"])["attention_mask"] for case in golden]
    assert any(mask.all() for mask in masks)
    assert all(mask.any() for mask in masks)


def test_a_declared_mask_with_the_opposite_meaning_excludes_padding(ortc: Compiler, tmp_path: Path) -> None:
    path = spec_of(tmp_path, "opposite", OPPOSITE, 8, {"precision": "fp32"}, {})
    spec = json.loads(path.read_bytes())
    inputs = spec["export"]["inputs"]
    del inputs["attention_mask"]
    inputs["pad"] = {"dtype": "bool", "shape": ["batch", "sequence"]}
    path.write_text(json.dumps(spec | {"export": spec["export"] | {"mask": {"input": "pad", "padded": True}}}), "utf-8")
    done = ortc.build(path, *PLAIN, output=tmp_path / "dist").succeeded()
    bundle = done.bundle("opposite", "cpu")
    golden = json.loads((bundle / "manifest.json").read_bytes())["golden"]
    padded = [case for case in golden if case["masked_outputs"]]
    assert padded
    assert {(case["mask"], case["mask_is_padding"]) for case in padded} == {("pad", True)}
    masks = [np.load(bundle / case["inputs"])["pad"] for case in padded]
    assert any(mask.any() for mask in masks)
    checked = subprocess.run(
        [sys.executable, str(bundle / "runtime/loader.py"), "selftest"], capture_output=True, text=True, check=True
    )
    assert len(json.loads(checked.stdout)["result"]["golden"]) == len(golden)
