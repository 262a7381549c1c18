"""The least size that `ortc check` knows of: below what is really built, and not far below."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support.builds import Build

from ortc.inspection.pt2_archive import read_program
from ortc.inspection.weights import least_bytes
from ortc.inspection.weights.graph import graph_weights
from ortc.inspection.weights.model import Found
from ortc.inspection.weights.program import program_weights
from ortc.spec.load import load_profile
from ortc.spec.profile import Variant

pytestmark = pytest.mark.integration


def shipped(bundle: Path) -> tuple[str, int]:
    """Name of the variant of a bundle, and bytes of its model."""
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    return manifest["variant"]["name"], manifest["model"]["bytes"]


@pytest.mark.parametrize(("build", "name", "share"), [("digits", "digits", 0.75), ("built", "bert", 0.9)])
def test_bundles_are_larger_than_the_least(build: str, name: str, share: float, request: pytest.FixtureRequest) -> None:
    made: Build = request.getfixturevalue(build)
    # What fp32 ships is what INT8 is made from, but for what the optimizer fused.
    weights = graph_weights(made.succeeded().bundle(name, "cpu") / "model" / "model.onnx", None)
    assert weights is not None
    for target in sorted(path.name for path in made.bundle(name, "cpu").parent.iterdir() if path.is_dir()):
        variants: dict[str, Variant] = {variant.name: variant for variant in load_profile(target).variants}
        variant, size = shipped(made.bundle(name, target))
        assert share * size <= least_bytes(Found(weights), variants[variant]) <= size


def test_a_program_as_torch_saves_it(models: Path) -> None:
    program = read_program(models / "program.pt2")
    assert [(entry.name, entry.dtype, entry.shape[1:]) for entry in program.inputs] == [("x", "float32", (4,))]
    (symbol,) = {str(entry.shape[0]) for entry in program.inputs}
    assert program.ranges[symbol] == (1, 16)
    assert [(part.elements, part.itemsize) for part in program_weights(program, None)] == [(12, 4)]
