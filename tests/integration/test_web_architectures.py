"""Architectures that are large for a page, built for browsers and Node."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.support.builds import PLAIN, ROOT, Compiler
from tests.support.shared import shared

from ortc.execution.browser.chromium import INSTALL, find_chromium

pytestmark = pytest.mark.integration


@pytest.mark.proof("test_every_gate_is_judged_in_the_browser")
@pytest.mark.parametrize(("target", "platform"), [("web", "web/wasm"), ("node", "linux/amd64")])
def test_resnet_50_passes_its_gates(
    ortc: Compiler, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, target: str, platform: str
) -> None:
    """With seeded weights: its architecture in the browser and in Node, as PyTorch computes it."""

    if target == "web" and find_chromium() is None:
        pytest.skip(INSTALL)

    def make(root: Path) -> None:
        program = ROOT / "tests" / "benchmarks" / "contenders" / "make_model.py"
        subprocess.run([sys.executable, str(program), "resnet-50", str(root / "model")], check=True)
        (root / ".git").mkdir()

    place = shared(tmp_path_factory, "resnet-50", make)
    spec = yaml.safe_load((ROOT / "tests" / "benchmarks" / "specs" / "resnet-50.yaml").read_text("utf-8"))
    spec["model"]["path"], spec["targets"] = "model", {target: {"precision": "fp32"}}
    (place / f"{target}.yaml").write_text(json.dumps(spec), "utf-8")
    built = ortc.build(place / f"{target}.yaml", *PLAIN, output=tmp_path).succeeded()
    (found,) = built.report("bench-resnet-50")["targets"]
    outcomes = {(verdict["gate"], verdict["platform"]): verdict["outcome"] for verdict in found["verdicts"]}
    assert outcomes["max_abs", platform] == "pass", outcomes
