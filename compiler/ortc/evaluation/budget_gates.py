"""Judge every budget of a target by what one host knows of the bundle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ortc.evaluation.evidence import Evidence, Placed
from ortc.evaluation.footprint import loader_bytes
from ortc.evaluation.gate_table import BUDGETS, EMBEDDING_GATES, Bounds, Budget, Gate, Observation, gate_of
from ortc.evaluation.report import Check, Outcome, Verdict
from ortc.passes.kernel_tables import Forecast, counted
from ortc.passes.variant_graph import VariantGraph
from ortc.plan.plan import AccuracyPlan, BudgetPlan, TargetPlan, VariantPlan


def budget_verdicts(
    seen: Evidence,
    budgets: BudgetPlan,
    platform: str,
    gates: Sequence[Budget] = BUDGETS,
    absent: tuple[str, str] | None = None,
) -> tuple[Verdict, ...]:
    """Judge each budget of which something is known; the rest is `unmeasured` where `absent` says why.

    Args:
        seen: What this host knows of the bundle.
        budgets: The limits.
        platform: Where the bundle ran.
        gates: The budgets to look at.
        absent: Why a quantity is unknown here, and what would measure it. None: such budgets have no verdict.
    """
    return tuple(_verdicts(seen, budgets, platform, gates, absent))


def _verdicts(
    seen: Evidence, budgets: BudgetPlan, platform: str, gates: Sequence[Budget], absent: tuple[str, str] | None
) -> Iterator[Verdict]:
    for gate in gates:
        if (limit := budgets.limit(gate.key)) is None:
            continue
        observations = tuple(gate.observe(seen))
        for observation in observations:
            yield _judged(gate, observation, limit, platform)
        if not observations and absent is not None and gate.scope != "anywhere":
            said, required = absent
            yield Verdict(gate=gate.name, platform=platform, outcome="unmeasured", said=said, required=required)


def _judged(gate: Budget, found: Observation, limit: float, platform: str) -> Verdict:
    """Judge an observation; a busy machine proves nothing.

    The verdict of a busy machine is `inconclusive`. It is `fail` where the control workload was undisturbed, and the
    best of all samples breaks the budget.
    """
    breaks = found.best is not None and not gate.holds(found.best, limit)
    return Verdict(
        gate=gate.name,
        platform=found.platform or platform,
        outcome=under_noise(outcome_of(gate, found, limit), found.noise, is_sure=found.is_quiet and breaks),
        value=found.value,
        interval=found.interval,
        comparison=gate.comparison,
        bound=limit,
        unit=gate.unit,
        said=found.said,
        where=found.where,
    )


def outcome_of(gate: Gate, found: Observation, limit: float) -> Outcome:
    """Compare an observation with a limit: by the whole interval, else by the value alone."""
    if found.value is None:
        return "unmeasured"
    if found.interval is None:
        return "pass" if gate.holds(found.value, limit) else "fail"
    best, worst = found.interval if gate.comparison == "<=" else found.interval[::-1]
    if worst is not None and gate.holds(worst, limit):
        return "pass"
    return "fail" if best is not None and not gate.holds(best, limit) else "inconclusive"


def under_noise(outcome: Outcome, noise: Sequence[str], *, is_sure: bool) -> Outcome:
    """Return an outcome where the machine was not quiet: nothing passes, and only a sure failure fails.

    Args:
        outcome: By the observation.
        noise: Why the machine was not quiet, if it was not.
        is_sure: The control workload was undisturbed, and the best of all samples breaks the limit.
    """
    if not noise or outcome == "unmeasured":
        return outcome
    return "fail" if outcome == "fail" and is_sure else "inconclusive"


def size_verdicts(target: TargetPlan, variant: VariantPlan, model_bytes: int, platform: str) -> tuple[Verdict, ...]:
    """Judge the size of the model's files, and on every promised platform the download with them."""
    seen = Evidence(model_bytes=model_bytes, wheels=loader_bytes(variant, target))
    return budget_verdicts(seen, target.budgets, platform)


def run_verdicts(check: Check, target: TargetPlan, accuracy: AccuracyPlan, platform: str) -> tuple[Verdict, ...]:
    """Judge memory, placement and batch invariance of a variant that ran."""
    seen = Evidence(peak_rss_bytes=check.peak_rss_bytes, placed=Placed.of(check))
    verdicts = budget_verdicts(seen, target.budgets, platform)
    if target.batch_invariance != "require":
        return verdicts
    gate = gate_of("batch_invariance")
    invariance = Verdict(
        gate=gate.name,
        platform=platform,
        outcome="pass" if check.is_invariant(accuracy.max_abs) else "fail",
        value=check.invariance,
        comparison=gate.comparison,
        bound=accuracy.max_abs,
        said="no batch axis" if check.invariance is None else "",
    )
    return (*verdicts, invariance)


def weight_verdicts(variant: VariantPlan, graph: VariantGraph, platform: str) -> tuple[Verdict, ...]:
    """Refuse a quantized graph with more weights than the canonical one: a tied table may have to be there twice.

    A graph that came quantized is not compared: ONNX Runtime gives its blocks scales of their own, an eighth more.
    """
    exact = graph.exact_weights
    if variant.quantization is None or exact is None or graph.weights <= exact:
        return ()
    gate = gate_of("weights")
    return (
        Verdict(
            gate=gate.name,
            platform=platform,
            outcome="fail",
            value=graph.weights,
            comparison=gate.comparison,
            bound=exact,
            unit=gate.unit,
            required="the weights of fp32",
        ),
    )


def foreseen_verdicts(target: TargetPlan, placement: Forecast | None) -> tuple[Verdict, ...]:
    """Fail the budget of nodes on the CPU where missing kernels are sure to break it, though nothing ran."""
    limit = target.budgets.limit("max_cpu_nodes")
    if limit is None or placement is None or len(placement.cpu_nodes) <= limit:
        return ()
    gate = gate_of("cpu_nodes")
    counts = Counter(node.operator for node in placement.cpu_nodes)
    interval: Bounds = (counts.total(), None)
    return tuple(
        Verdict(
            gate=gate.name,
            platform=platform,
            outcome="fail",
            interval=interval,
            comparison=gate.comparison,
            bound=limit,
            unit=gate.unit,
            where=f"no kernel of {placement.provider}: {counted(counts)}",
        )
        for platform in target.platforms
    )


def _promised(accuracy: AccuracyPlan) -> Iterator[str]:
    """Gates of answers that a spec declares besides those that every build has."""
    if accuracy.top1_agreement is not None:
        yield "top1_agreement"
    if accuracy.embeddings is not None:
        yield from (gate for gate in EMBEDDING_GATES if getattr(accuracy.embeddings, gate) is not None)
    if accuracy.metric is not None:
        yield "metric"


def absent_here(target: TargetPlan) -> str:
    """What a host that cannot run a target is without."""
    if target.is_web:
        return "no Chromium on this host"
    if target.is_node:
        return "no Node.js on this host"
    return "no GPU on this host" if target.requires_gpu else "this host lacks the target's hardware"


def unmeasured_verdicts(
    target: TargetPlan, accuracy: AccuracyPlan, platform: str, runnable: bool
) -> tuple[Verdict, ...]:
    """List what a host cannot say: every platform that it is not, and every gate on a missing GPU.

    Args:
        target: Whose gates.
        accuracy: The promises, of which those of samples and of the task metric are listed by name.
        platform: Of the host.
        runnable: Whether the host can run the target.
    """
    why = f"this host is {platform}"
    if target.is_web or (not runnable and (target.requires_gpu or platform in target.platforms)):
        why = absent_here(target)
    absent = (why, "measured on the target")
    verdicts: list[Verdict] = []
    for name in (name for name in target.platforms if name != platform or not runnable):
        said, required = absent
        verdicts += [
            Verdict(gate=gate, platform=name, outcome="unmeasured", said=said, required=required)
            for gate in ("parity", *_promised(accuracy))
        ]
        verdicts += budget_verdicts(Evidence(), target.budgets, name, absent=absent)
    return tuple(verdicts)
