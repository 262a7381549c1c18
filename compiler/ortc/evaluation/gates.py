"""What verdicts mean for a build: which gates are about accuracy, and how a broken one reads."""

from __future__ import annotations

from collections import Counter

from ortc.evaluation.report import Verdict
from ortc.passes.kernel_tables import Forecast, counted
from ortc.plan.plan import TargetPlan

EXIT_STAGE, EXIT_ACCURACY, EXIT_BUDGET, EXIT_UNMEASURED = 4, 5, 6, 7
ON_CPU = " on CPU"
"""Ends the name of a gate that was judged on the CPU provider, for a target that this host cannot run."""
ON_AVX2 = " on AVX2"
"""Ends the name of a gate that was judged on an emulated processor without VNNI."""
EMBEDDING_GATES = ("cosine_mean", "cosine_min", "rank_correlation")
_ANSWERS = ("outputs", "max_abs", "cosine", "relative_error", "nrmse", "spearman", "top1_agreement", "metric")
ACCURACY_GATES = frozenset({*_ANSWERS, *EMBEDDING_GATES, *(f"teacher {gate}" for gate in _ANSWERS)})


def plain_gate(gate: str) -> str:
    """The name of a gate, wherever it was judged."""
    return gate.removesuffix(ON_CPU).removesuffix(ON_AVX2)


def describe(verdict: Verdict | None) -> str:
    """One line for people."""
    if verdict is None:
        return "passes"
    if verdict.gate == "applies":
        return f"cannot be made: {verdict.observed}"
    where = f" at {verdict.where}" if verdict.where else ""
    return f"{verdict.gate} is {verdict.observed}, must be {verdict.limit}{where}"


def foreseen_verdicts(target: TargetPlan, placement: Forecast | None) -> tuple[Verdict, ...]:
    """The budget of nodes on the CPU, where it is sure to be broken though nothing ran: for want of kernels."""
    limit = target.budgets.max_cpu_nodes
    if limit is None or placement is None or len(placement.cpu_nodes) <= limit:
        return ()
    counts = Counter(node.operator for node in placement.cpu_nodes)
    return tuple(
        Verdict(
            gate="cpu_nodes",
            platform=platform,
            outcome="fail",
            interval=(counts.total(), None),
            comparison="<=",
            bound=limit,
            unit="nodes",
            where=f"no kernel of {placement.provider}: {counted(counts)}",
        )
        for platform in target.platforms
    )


def unmeasured_verdicts(target: TargetPlan, platform: str, runnable: bool) -> tuple[Verdict, ...]:
    """List what a host cannot say: every platform that it is not, and every gate on a missing GPU.

    Args:
        target: whose gates.
        platform: of the host.
        runnable: whether the host can run the target.
    """
    budgets = target.budgets
    gates = [f"latency {name}" for name, _ in (budgets.latency.percentiles if budgets.latency else ())]
    optional = {
        "start": budgets.start,
        "memory": budgets.memory,
        "speed-up": budgets.min_speedup,
        "cpu_nodes": budgets.max_cpu_nodes,
        "memcpy_nodes": budgets.max_memcpy_nodes,
    }
    gates += [gate for gate, limit in optional.items() if limit is not None]
    missing = [name for name in target.platforms if name != platform or not runnable]
    why = "no GPU on this host" if target.requires_gpu and not runnable else f"this host is {platform}"
    return tuple(
        Verdict(gate=gate, platform=name, outcome="unmeasured", said=why, required="measured on the target")
        for name in missing
        for gate in ("parity", *gates)
    )


def parity(verdicts: tuple[Verdict, ...]) -> str | None:
    """The accuracy that a variant is shown with."""
    found = next(
        (verdict for verdict in verdicts if verdict.gate in ("max_abs", "cosine", "nrmse", "top1_agreement")), None
    )
    return None if found is None else f"{found.gate} {found.observed}"


def failure_code(gates: set[str]) -> int:
    """Exit code when no variant passes, from the gates that they failed."""
    gates = {plain_gate(gate) for gate in gates}
    if gates <= {"runs", "applies"}:
        return EXIT_STAGE
    # Where one variant is right and only too large or too hungry, the budget is what stands in the way.
    return EXIT_BUDGET if gates - ACCURACY_GATES - {"runs", "applies"} else EXIT_ACCURACY
