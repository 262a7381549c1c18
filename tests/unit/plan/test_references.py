"""What a spec takes from the environment is printed by its name: plans, JSON, manifests, and values with quotes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ortc.__main__ import run
from ortc.bundle.assemble import _source_name
from ortc.common.permissions import masked, remember, withdraw
from ortc.execution.action_cache import Store
from ortc.frontend.fetch import fetch
from ortc.plan.checks import check_spec
from ortc.plan.checks.plan import check_plan
from ortc.plan.plan_file import plan_file_text
from ortc.plan.resolve import resolve
from ortc.spec.diagnostics.errors import SpecError

GRAPH = Path(__file__).parents[2] / "diagnostics" / "onnx" / "plain.onnx"
SPEC = """apiVersion: ortc/v1alpha1
kind: ModelDeployment
name: small
version: ${env:ORTC_VERSION}
model:
  source: onnx
  path: ${env:ORTC_PLACE}/model.onnx
export:
  dynamic_axes: {batch: {min: 1, max: 2}}
targets:
  cpu: {}
"""


@pytest.fixture(params=["hunter2", "hunter2/", 'hun"ter2\\x'])
def value(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A directory that the environment names."""
    found = str(request.param)
    (tmp_path / found).mkdir()
    shutil.copyfile(GRAPH, tmp_path / found / "model.onnx")
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "spec.yaml").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORTC_PLACE", found)
    monkeypatch.setenv("ORTC_VERSION", "7.7.7")
    monkeypatch.setenv("ORTC_CACHE_DIR", str(tmp_path / "cache"))
    withdraw()
    return found


@pytest.mark.parametrize("option", ["--print", "--json"])
def test_plans_are_printed_with_references(value: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "spec.yaml", option]) == 0
    printed = capsys.readouterr().out
    assert "ter2" not in printed
    assert "${env:ORTC_PLACE}/model.onnx" in printed
    assert '"version": "7.7.7"' in printed


def test_plans_are_read_with_the_values(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = check_spec(tmp_path / "spec.yaml")
    plan = resolve(checked.loaded.spec, checked.profiles, ())
    printed = plan_file_text(checked).encode()
    withdraw()
    assert check_plan(printed, tmp_path).plan == plan
    assert masked(f"{value}/x") == "${env:ORTC_PLACE}/x"
    monkeypatch.delenv("ORTC_PLACE")
    with pytest.raises(SpecError) as refused:
        check_plan(printed, tmp_path)
    assert [entry.code for entry in refused.value.diagnostics] == ["ORTC157"]
    with pytest.raises(SpecError) as refused:
        check_plan(printed.replace(b"ORTC_PLACE", b"HOME"), tmp_path)
    assert [entry.code for entry in refused.value.diagnostics] == ["ORTC158"]


def test_manifests_name_the_variable(value: str, tmp_path: Path) -> None:
    checked = check_spec(tmp_path / "spec.yaml")
    plan = resolve(checked.loaded.spec, checked.profiles, ())
    work = tmp_path / "work"
    work.mkdir()
    fetched = fetch(plan.model, tmp_path, Store(tmp_path / "cache"), work)
    assert [file.origin for file in fetched.files] == ["path:${env:ORTC_PLACE}/model.onnx"]
    assert _source_name(plan) == "onnx:${env:ORTC_PLACE}/model.onnx"


def test_values_are_found_in_json() -> None:
    withdraw()
    remember("ORTC_X", 'se"cret\\é/')
    for ascii_ in (True, False):
        assert "cret" not in masked(json.dumps({"a": 'se"cret\\é/', "b": 'x se"cret\\é'}, ensure_ascii=ascii_))
    withdraw()
