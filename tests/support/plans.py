"""Plans, targets and manifests made by hand, for tests of what is done with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ortc.bundle.manifest import (
    AxisInfo,
    InputInfo,
    Manifest,
    ModelInfo,
    OutputInfo,
    PlacementInfo,
    Promises,
    Provenance,
    RuntimeInfo,
    VariantInfo,
    promise_of,
)
from ortc.plan.checks import check_spec
from ortc.plan.plan import AccuracyPlan, AxisPlan, BudgetPlan, ExportPlan, Plan, Search, TargetPlan, VariantPlan
from ortc.plan.plan_file import plan_file_text
from ortc.plan.resolve import resolve
from ortc.spec.budgets import Budgets

ROOT = Path(__file__).parents[2]
SPECS = sorted((ROOT / "specs").glob("*.yaml"))


def plan(spec: Path, *overrides: str, targets: tuple[str, ...] = (), search: Search = "full") -> Plan:
    """The plan of a spec, as the command line makes it."""
    checked = check_spec(spec, overrides)
    return resolve(checked.loaded.spec, checked.profiles, targets, search=search)


def plan_text(spec: Path, *overrides: str, targets: tuple[str, ...] = (), **choices: Any) -> str:
    """The plan file of a spec, as `ortc plan --print` writes it."""
    return plan_file_text(check_spec(spec, overrides), targets, **choices)


EXPORT = ExportPlan(
    opset=17,
    ir_version=8,
    exporter="auto",
    axes=(AxisPlan(name="batch", min=1, typical=1, max=4),),
    inputs=None,
    outputs=None,
)
"""An import of a graph with a batch axis, without anything that a spec may say besides."""

_TARGET: list[TargetPlan] = []


def target(**changes: Any) -> TargetPlan:
    """A CPU target without budgets, with fields replaced.

    Budgets go by their own names, latency as {percentile: seconds}.
    """
    if not _TARGET:
        _TARGET.append(plan(ROOT / "specs" / "bert.yaml", targets=("cpu",)).targets[0])
    limits = {key: changes.pop(promise_of(key), None) for key in Budgets.model_fields}
    limits |= {f"latency_budget.{name}": limit for name, limit in (changes.pop("latency", None) or {}).items()}
    budgets = BudgetPlan(limits={key: limit for key, limit in limits.items() if limit is not None})
    return _TARGET[0].model_copy(update={"budgets": budgets, **changes})


def variant(name: str, precision: str, **changes: Any) -> VariantPlan:
    """A variant on the plain CPU runtime, with fields replaced."""
    return target().variants[0].model_copy(update={"name": name, "precision": precision, **changes})


def accuracy(**changes: Any) -> AccuracyPlan:
    """Promises of accuracy, with fields replaced."""
    fields = {
        "max_abs": 1e-4,
        "cosine": 0.98,
        "relative_error": 0.2,
        "nrmse": 0.3,
        "spearman": 0.9,
        "top1_agreement": None,
        "samples": None,
        "metric": None,
        "embeddings": None,
    }
    return AccuracyPlan(**(fields | changes))


def manifest(**changes: Any) -> Manifest:
    """A manifest of a small encoder, with fields replaced."""
    fields: dict[str, Any] = {
        "name": "bert",
        "version": "1.0.0",
        "target": "cpu",
        "platforms": ("linux/amd64",),
        "fit_to_serve": True,
        "unfit_reason": None,
        "provisional": False,
        "stamp": 315532800,
        "model": ModelInfo(
            file="model/model.onnx",
            bytes=3,
            opset=17,
            ir_version=10,
            domains={},
            exporter="dynamo",
            exporter_reason=None,
        ),
        "inputs": (InputInfo(name="input_ids", dtype="int64", shape=("batch", "sequence"), range=(0, 99)),),
        "outputs": (OutputInfo(name="hidden", dtype="float32", shape=("batch", None, 8)),),
        "axes": (
            AxisInfo(name="batch", min=1, typical=1, max=16),
            AxisInfo(name="sequence", min=1, typical=8, max=64, multiple_of=1),
        ),
        "runtime": RuntimeInfo(
            package="onnxruntime", version="1.31.1", minimum_version="1.31.0", python=("3.11", "3.12")
        ),
        "variant": VariantInfo(name="fp32", precision="fp32", graph_level="all", tuning=None, batch_invariant=True),
        "placement": PlacementInfo(max_cpu_nodes=None),
        "promises": Promises(at={}, latency={}, limits={}),
        "golden": (),
        "warmup": ({"batch": 1, "sequence": 8},),
        "decisions": (),
        "provenance": Provenance(plan_sha256="0" * 64, source="huggingface:x/y", revision="abc", files=(), tools={}),
        "files": (),
    }
    return Manifest(**(fields | changes))
