"""The table of gates has a row for every number that a spec promises."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.plans import accuracy, manifest, target

from ortc.bundle.manifest import PLACEMENT_KEYS, PROMISE_KEYS, Manifest, promise_of
from ortc.bundle.verify import budgets_of
from ortc.evaluation.budget_gates import budget_verdicts, unmeasured_verdicts
from ortc.evaluation.evidence import Evidence
from ortc.evaluation.gate_table import ACCURACY_GATES, BUDGETS, GATES, gate_of
from ortc.plan.plan import BudgetPlan
from ortc.spec.accuracy import Accuracy, Embeddings, Metric
from ortc.spec.budgets import Budgets
from ortc.spec.deployment import LatencyBudget
from ortc.spec.model_sources import Teacher

PERCENTILES = [f"latency_budget.{name}" for name in LatencyBudget.model_fields if name != "at"]
EVERY = BudgetPlan(limits={gate.key: 1 for gate in BUDGETS})


def test_every_budget_of_a_spec_has_one_row() -> None:
    assert sorted(gate.key for gate in BUDGETS) == sorted([*Budgets.model_fields, *PERCENTILES])
    assert len({gate.name for gate in GATES}) == len(GATES)


def numbers_of(model: Any) -> set[str]:
    """The fields of a spec's model that are numbers, besides those of the metric."""
    return {name for name, field in model.model_fields.items() if "float" in str(field.annotation)} - {"max_drop"}


@pytest.mark.parametrize("model", [Accuracy, Embeddings])
def test_every_number_about_accuracy_has_a_row(model: Any) -> None:
    assert numbers_of(model) <= ACCURACY_GATES


def test_the_gates_of_a_teacher_are_those_of_the_reference() -> None:
    assert {f"teacher {name}" for name in numbers_of(Teacher)} <= ACCURACY_GATES
    assert gate_of("teacher max_abs on CPU") is gate_of("max_abs")
    assert (gate_of("of a newer ortc").comparison, gate_of("of a newer ortc").kind) == ("<=", "other")


def test_what_nobody_saw_has_no_verdict_or_is_unmeasured() -> None:
    """Neither passes: sizes are known on every host, and the rest is `unmeasured` where the reason is given."""
    assert budget_verdicts(Evidence(), EVERY, "linux/amd64") == ()
    absent = budget_verdicts(Evidence(), EVERY, "linux/amd64", absent=("no host", "a host"))
    assert [verdict.gate for verdict in absent] == [gate.name for gate in BUDGETS if gate.scope != "anywhere"]
    assert {verdict.outcome for verdict in absent} == {"unmeasured"}
    promised = target(platforms=("linux/amd64", "linux/arm64")).model_copy(update={"budgets": EVERY})
    found = unmeasured_verdicts(promised, accuracy(), "linux/amd64", runnable=True)
    assert [verdict.gate for verdict in found] == ["parity", *(verdict.gate for verdict in absent)]
    assert {verdict.platform for verdict in found} == {"linux/arm64"}


def test_every_declared_promise_about_answers_is_unmeasured_elsewhere() -> None:
    """A metric with a minimum has a verdict on a host that cannot run the target, and it is no pass."""
    declared = accuracy(
        metric=Metric(entrypoint="m:f", max_drop=0.1, minimum=0.9),
        embeddings=Embeddings(cosine_min=0.9, rank_correlation=0.9),
        top1_agreement=0.9,
    )
    gpu = target(platforms=("linux/amd64",)).model_copy(update={"budgets": BudgetPlan(), "requires_gpu": True})
    found = unmeasured_verdicts(gpu, declared, "linux/amd64", runnable=False)
    gates = ["parity", "top1_agreement", "cosine_min", "rank_correlation", "metric"]
    assert [(verdict.gate, verdict.outcome) for verdict in found] == [(gate, "unmeasured") for gate in gates]
    assert {verdict.observed for verdict in found} == {"no GPU on this host"}
    assert unmeasured_verdicts(gpu, declared, "linux/amd64", runnable=True) == ()


def test_a_bundle_promises_every_budget_of_its_plan() -> None:
    limits = {promise_of(key): EVERY.limit(key) for key in PROMISE_KEYS}
    made = manifest()
    promises = made.promises.model_copy(update={"latency": EVERY.latency, "limits": limits})
    placement = made.placement.model_copy(update={key: EVERY.limit(key) for key in PLACEMENT_KEYS})
    promised = made.model_copy(update={"promises": promises, "placement": placement})
    assert budgets_of(promised) == EVERY
    written = promised.model_dump(mode="json")
    assert {"at", "latency", "size", "download", "memory", "start", "min_speedup"} <= written["promises"].keys()
    assert budgets_of(Manifest.model_validate(written)) == EVERY
    assert budgets_of(made) == BudgetPlan()


def test_a_manifest_with_another_promise_is_refused() -> None:
    written = manifest().model_dump(mode="json")
    written["promises"]["energy"] = 3
    with pytest.raises(ValueError, match="energy"):
        Manifest.model_validate(written)
