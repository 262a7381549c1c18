"""The report of one target: every verdict on the variant that ships, or why none does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ortc.build.instruction_sets import missing_verdicts
from ortc.build.races import footprint_of
from ortc.build.search.outcome import Outcome, Rejected
from ortc.build.search.ranking import rejected
from ortc.build.target_result import TargetBuild
from ortc.build.tried import Tried
from ortc.build.variant import VariantBuilder
from ortc.evaluation.budget_gates import foreseen_verdicts, unmeasured_verdicts
from ortc.evaluation.details import case_differences, histogram
from ortc.evaluation.gate_table import ACCURACY_GATES, plain_gate
from ortc.evaluation.gates import (
    EXIT_BUDGET,
    EXIT_STAGE,
    EXIT_UNMEASURED,
    answers_of,
    describe,
    failure_code,
    parity,
)
from ortc.evaluation.latency import samples_of
from ortc.evaluation.report import Decision, TargetReport, Verdict
from ortc.evaluation.unproven import unproven
from ortc.plan.precision_mix import mix_of

WRONG = ACCURACY_GATES | {"runs", "applies"}
"""Gates that no budget can make up for."""


def passed_report(builder: VariantBuilder, outcome: Outcome, against: Rejected) -> TargetBuild:
    """Judge what was found, by every gate of the spec."""
    target, winner = builder.target, outcome.winner
    chosen, made = winner.made.variant, winner.made
    verdicts = _verdicts(builder, outcome)
    selected = Decision(
        variant=chosen.name,
        graph_level=made.level,
        outcome="selected",
        reason=outcome.reason,
        bytes=made.graph.bytes,
        p50_ms=None if outcome.ranking is None else outcome.ranking.milliseconds(chosen.name),
        accuracy=answers_of(winner.verdicts),
    )
    status, code = _status(verdicts, is_provisional=target.unmeasured == "allow")
    report = TargetReport.model_validate(
        {
            "target": target.name,
            "status": status,
            "variant": chosen.name,
            "mix": mix_of(chosen),
            "graph_level": made.level,
            "tuning": None if made.tuning is None else made.tuning.name,
            "precision": chosen.precision,
            "model_bytes": made.graph.bytes,
            "operators": made.graph.operators,
            "placement": made.graph.placement,
            "parity": parity(winner.verdicts),
            "numbers": outcome.numbers,
            "verdicts": verdicts,
            "decisions": (selected, *against.decisions.values()),
            "tied": tuple(name for name, entry in against.decisions.items() if entry.outcome == "tied"),
            "footprint": footprint_of(builder, winner, outcome.numbers),
            "elsewhere": outcome.elsewhere,
            "latencies": None if outcome.race is None else histogram(samples_of(outcome.race)),
            **_details(winner),
            "tensors": made.graph.tensors,
            "trades": tuple(against.trades),
            "calibration_requests": builder.graphs.calibrated or None,
            "exit_code": code,
        }
    )
    return TargetBuild(target, report, winner, outcome.race, builder.environments.interpreter(chosen))


def failed_report(builder: VariantBuilder, against: Rejected) -> TargetBuild:
    """Report that no variant passes every gate, and which is the smallest that only budgets stand against."""
    failed = against.failed
    gates = {entry.failed.gate for entry in failed if entry.failed is not None}
    report = TargetReport(
        target=builder.target.name,
        status="failed",
        verdicts=tuple(verdict for entry in failed for verdict in entry.verdicts if verdict.outcome != "pass"),
        decisions=tuple(against.decisions.values()),
        trades=tuple(against.trades),
        calibration_requests=builder.graphs.calibrated or None,
        smallest_right=_smallest_right(builder, failed),
        error="no variant passes every gate" if failed else "no variant of the profile can be tried",
        exit_code=failure_code(gates) if failed else EXIT_STAGE,
    )
    return TargetBuild(plan=builder.target, report=report, winner=None, race=None, interpreter=None)


def _details(winner: Tried) -> dict[str, Any]:
    """What was seen of the answers of the variant that ships, wherever its graph was run."""
    check = winner.check or winner.on_cpu
    if check is None:
        return {}
    return {
        "cases": case_differences((result.case, result.differences) for result in check.cases),
        "embeddings": check.embeddings,
        "answers": check.answers,
        "times": check.times,
    }


def _verdicts(builder: VariantBuilder, outcome: Outcome) -> tuple[Verdict, ...]:
    target, winner = builder.target, outcome.winner
    foreseen = () if builder.runnable else foreseen_verdicts(target, winner.made.graph.placement)
    known = {verdict.gate for verdict in foreseen}
    absent = unmeasured_verdicts(target, builder.context.plan.accuracy, builder.platform, builder.runnable)
    unmeasured = (verdict for verdict in absent if verdict.gate not in known)
    check = winner.check or winner.on_cpu
    blind = () if check is None else unproven(check, builder.platform)
    return (*winner.verdicts, *blind, *missing_verdicts(builder, winner), *unmeasured, *foreseen, *outcome.timed)


def _status(verdicts: Iterable[Verdict], *, is_provisional: bool) -> tuple[str, int]:
    """The status of a report and its exit code; `is_provisional`: the spec allows what was not measured."""
    outcomes = {verdict.outcome for verdict in verdicts}
    if "fail" in outcomes:
        return "failed", EXIT_BUDGET
    if outcomes & {"unmeasured", "inconclusive"}:
        return ("provisional", 0) if is_provisional else ("failed", EXIT_UNMEASURED)
    return "published", 0


def _smallest_right(builder: VariantBuilder, failed: Sequence[Tried]) -> Decision | None:
    """The smallest variant that only its budgets stand against: what the spec could have instead."""
    if not builder.runnable:
        return None
    made = [entry for entry in failed if entry.key and entry.failed is not None]
    budgets = [entry for entry in made if entry.failed is not None and plain_gate(entry.failed.gate) not in WRONG]
    for entry in sorted(budgets, key=lambda entry: entry.made.graph.bytes):
        judged = entry if entry.check is not None else builder.judge(replace(entry, verdicts=()))
        if builder.is_right(judged):
            reason = f"the smallest that is right, and {describe(entry.failed)}"
            return rejected(entry, reason)
    return None
