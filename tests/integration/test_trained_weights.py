"""Weights that were forgotten ship nowhere: not as a bundle, or as one that is not fit to serve."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.builds import PLAIN, Build, Compiler

pytestmark = pytest.mark.integration

ENTRY = """\
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
    def forward(self, x):
        return self.layer(x)
def build():
    return Net()
"""
EXPORT: dict[str, Any] = {
    "inputs": {"x": {"dtype": "float32", "shape": ["batch", 4]}},
    "dynamic_axes": {"batch": {"min": 1, "max": 2}},
    # The exporter that takes less time: what is exported has no part in this.
    "exporter": "torchscript",
}
WriteSpec = Callable[..., Path]


@pytest.fixture
def build(ortc: Compiler, write_spec: WriteSpec, tmp_path: Path) -> Callable[..., Build]:
    """Builds a module with parameters, by what its spec says of their values."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").touch()
    (project / "net.py").write_text(ENTRY)

    def run(weights: str | None, *options: str) -> Build:
        model = {"source": "pytorch", "entrypoint": "net:build", **({} if weights is None else {"weights": weights})}
        spec = write_spec(project, model, EXPORT)
        return ortc.build(spec, *PLAIN, *options, output=tmp_path / "dist", cwd=project)

    return run


def test_random_weights_are_measured_and_reach_nobody(
    build: Callable[..., Build], ortc: Compiler, tmp_path: Path
) -> None:
    registry = f"file://{tmp_path}/registry"
    assert "not to be deployed: it would not be fit to serve" in build("random", "--emit", "k8s").failed(4)
    made = build("random", "--register", registry).succeeded()
    assert "unfit; pass" in " ".join(made.stdout.split())
    assert made.report("small")["unfit_reason"] is not None
    bundle = made.bundle("small", "cpu")

    def refused(*arguments: str) -> str:
        command = [sys.executable, "-m", "ortc", *arguments]
        done = subprocess.run(command, env=ortc.environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 4, done.stdout + done.stderr
        return done.stderr

    told = refused("registry", "promote", "small@1.0.0", "production", "--registry", registry)
    assert "is not fit to serve (cpu): its weights are random" in told
    assert "is not to be packed for a release" in refused("pack", str(bundle), "-o", str(tmp_path / "packed"))
    assert "is not to be deployed" in refused("emit", str(bundle), "-o", str(tmp_path / "deploy"))


def test_weights_that_nothing_gives_are_refused(build: Callable[..., Build]) -> None:
    assert "needs `weights`: without them, what the constructor draws would ship" in build(None).failed(3)
    told = build("none").failed(4)
    assert "has 2 parameters and buffers: `layer.weight`, `layer.bias`" in told
    told = build("entrypoint").failed(4)
    assert "draws `layer.weight`, `layer.bias` at random: the function loads none for them" in told
