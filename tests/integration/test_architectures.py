"""A handful of architectures that are unlike each other; `make architectures` tries all of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.builds import ROOT, TIMEOUT, Compiler

pytestmark = pytest.mark.integration

HERE = ROOT / "tests" / "architectures"
NAMES, MORE = ("xlnet",), ("clip", "nystromformer")


@pytest.fixture(scope="module")
def found(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, make_cache: Callable[[Path], Path]
) -> dict[str, dict[str, Any]]:
    """What became of each, as it was exported; in `make proofs` of the others."""
    names = MORE if request.config.getoption("--proofs") else NAMES
    place = tmp_path_factory.mktemp("architectures")
    output = place / "found.json"
    command = [sys.executable, str(HERE / "run.py"), *names, "--opsets", "20", "--jobs", "1", "--plain"]
    done = subprocess.run(
        [*command, "--output", str(output)],
        env=Compiler(make_cache(place / "cache")).environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {entry["name"]: entry for entry in json.loads(output.read_bytes())["results"]}


@pytest.mark.parametrize(
    ("name", "exporter", "inputs"),
    [
        # What dynamo cannot, TorchScript can.
        ("xlnet", "torchscript", {"input_ids", "attention_mask", "token_type_ids"}),
        # Two modalities, found by trial.
        pytest.param(
            "clip",
            "dynamo",
            {"input_ids", "attention_mask", "pixel_values"},
            marks=pytest.mark.proof("test_two_modalities derives its inputs; test_the_answers_stay exports encoders"),
        ),
    ],
)
def test_right_over_the_shape_matrix(
    found: dict[str, dict[str, Any]], name: str, exporter: str, inputs: set[str]
) -> None:
    entry = found[name]
    assert "error" not in entry, entry
    assert entry["exporter"] == exporter
    assert set(entry["inputs"]) == inputs
    assert 0 <= entry["max_abs"] <= 1e-4
    assert entry["cases"] >= 2
    assert (entry["reason"] is not None) == (exporter == "torchscript"), "a fallback says why"


@pytest.mark.proof("test_a_branch_on_a_value: a refusal names the place in the model's code and shows its line")
def test_a_refusal_names_the_cause(found: dict[str, dict[str, Any]]) -> None:
    """Nyströmformer's approximation has no place for a mask of the whole length."""
    entry = found["nystromformer"]
    assert "The size of tensor a (8) must match the size of tensor b (16)" in entry["error"]
    assert any("modeling_nystromformer.py" in line and "attention_mask" in line for line in entry["details"])


def test_the_page_is_that_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    from page import page

    document, placement = (
        json.loads((HERE / "data" / f"{name}.json").read_bytes()) for name in ("architectures", "placement")
    )
    text = (ROOT / "docs" / "architectures.md").read_text("utf-8")
    assert text == page(document, placement), (
        "run `make architectures`, or of one of them `make architectures ARGS=bert`"
    )
    # What is foreseen on the CPU is there: the provider itself said so.
    for entry in placement["results"]:
        wanted = Counter()
        for operator, count in entry["foreseen"].items():
            wanted[operator.partition(" ")[0]] += count
        assert entry["on_cpu"] is None or wanted <= Counter(entry["on_cpu"])
    newest = [entry for entry in document["results"] if entry["opset"] == 20]
    assert len(newest) >= 40
    assert sum("error" not in entry for entry in newest) >= 38
