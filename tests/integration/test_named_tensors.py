"""Inputs go to the parameters of their names, and every tensor of an output ships, through either exporter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import pytest
import torch

from ortc.frontend.export import export
from ortc.frontend.reference.model import Reference, finish
from ortc.plan.plan import AxisPlan, ExportPlan, InputPlan

pytestmark = pytest.mark.integration


class Nested(torch.nn.Module):
    """Parameters in another order than the spec's inputs, one by keyword only; tensors inside of a mapping."""

    def forward(self, b: torch.Tensor, scale: float = 2.0, *, a: torch.Tensor) -> dict[str, Any]:
        inner = b - scale * a
        return {"y": inner, "states": (a + 1, [b + 2, None]), "cache": None, "same": inner}


def reference() -> tuple[Reference, ExportPlan]:
    axes = (AxisPlan(name="batch", min=1, typical=2, max=4),)
    inputs = tuple(InputPlan(name=name, dtype="float32", shape=("batch", 3)) for name in ("a", "b"))
    plan = ExportPlan(opset=18, ir_version=8, exporter="auto", axes=axes, inputs=inputs, outputs=None)
    return finish(Nested(), inputs, plan), plan


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_names_reach_the_graph(exporter: str, tmp_path: Path) -> None:
    made, plan = reference()
    exported = export(made, plan, exporter, tmp_path)
    assert [tensor.name for tensor in exported.inputs] == ["a", "b"]
    names = ["y", "states.0", "states.1.0", "same"]
    assert [tensor.name for tensor in exported.outputs] == names
    a, b = np.full((2, 3), 1, np.float32), np.full((2, 3), 10, np.float32)
    session = onnx.reference.ReferenceEvaluator(onnx.load(tmp_path / "model.onnx"))
    answers = session.run(names, {"a": a, "b": b})
    assert isinstance(answers, list)
    for answer, expected in zip(answers, (8, 2, 12, 8), strict=True):
        np.testing.assert_array_equal(answer, np.full((2, 3), expected, np.float32))
