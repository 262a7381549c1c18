"""A distilled student is verified against its teacher."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.support.builds import PLAIN, ROOT, Build, Compiler
from tests.support.students import make_student, teacher

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a student of three layers beside its teacher of six."""
    root = tmp_path_factory.mktemp("distilled")
    (root / "pyproject.toml").touch()
    make_student(root / "student")
    (root / "teacher").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(teacher() / name, root / "teacher" / name)
    lines = (ROOT / "examples" / "bert" / "sentences.txt").read_text("utf-8").splitlines()
    (root / "sentences.txt").write_text("\n".join(lines[:4]) + "\n", "utf-8")
    return root


def build(ortc: Compiler, project: Path, output: Path, *options: str, **limits: Any) -> Build:
    """Build the student with limits to its teacher."""
    document = {
        "apiVersion": "ortc/v1alpha1",
        "kind": "ModelDeployment",
        "name": "student",
        "version": "1.0.0",
        "model": {
            "source": "huggingface",
            "path": "student",
            "interface": "tensors",
            "teacher": {"model": {"source": "huggingface", "path": "teacher"}, **limits},
        },
        "export": {
            "dynamic_axes": {"batch": {"max": 2}, "sequence": {"typical": 8, "max": 16}},
            "outputs": ["last_hidden_state"],
            # The exporter that takes less time: what is compared with a teacher is PyTorch's own answers.
            "exporter": "torchscript",
        },
        "accuracy": {"samples": "sentences.txt"},
        "targets": {"cpu": {"latency_budget": {"p99": "60s"}}},
    }
    path = project / "student.yaml"
    # JSON is YAML.
    path.write_text(json.dumps(document), "utf-8")
    return ortc.build(path, *PLAIN, *options, output=output, cwd=project)


@pytest.mark.proof(
    "test_another_width_is_told compares with a teacher; test_the_worst_case_decides; test_agreement_is_the_mean"
)
def test_thresholds(ortc: Compiler, project: Path, tmp_path: Path) -> None:
    """Three of six layers are not the teacher: refused at 0.99, and built at what they reach."""
    refused = build(ortc, project, tmp_path / "strict", cosine=0.99)
    told = refused.failed(5)
    assert refused.bundles() == []
    found = re.search(r"the student is too far from its teacher: teacher cosine (\S+), must be >= 0.99, output", told)
    assert found is not None, told
    reached = float(found[1])
    assert 0.2 < reached < 0.95, "three layers share most of what they compute with the six that they are taken from"
    assert "at samples " in told, "real samples decide, not random numbers"

    limits = {"cosine": reached - 1e-4, "top1_agreement": 0.01}
    built = build(ortc, project, tmp_path / "reached", **limits).succeeded()
    assert built.bundles() == ["student/1.0.0/cpu"]
    (target,) = built.report("student")["targets"]
    verdicts = {verdict["gate"]: verdict for verdict in target["verdicts"]}
    assert verdicts["max_abs"]["outcome"] == "pass", "the student is still itself"
    assert verdicts["teacher cosine"]["outcome"] == "pass"
    assert float(verdicts["teacher cosine"]["observed"]) == pytest.approx(reached, abs=1e-4)
    assert verdicts["teacher top1_agreement"]["outcome"] == "pass"


def test_another_width_is_told(ortc: Compiler, project: Path, tmp_path: Path) -> None:
    """A teacher whose outputs are of another shape cannot be compared with, and says so."""
    config = json.loads((project / "teacher" / "config.json").read_bytes())
    wide = {"hidden_size": 96, "num_attention_heads": 4, "num_hidden_layers": 1, "intermediate_size": 64}
    (project / "wide").mkdir()
    (project / "wide" / "config.json").write_text(json.dumps({**config, **wide}), "utf-8")
    options = ("--set", "model.teacher.model.path=wide", "--set", "model.teacher.model.weights=random")
    told = build(ortc, project, tmp_path, *options, cosine=0.2).failed(5)
    assert "teacher outputs shape [" in told
    assert "the shape and kind of the teacher's" in told
