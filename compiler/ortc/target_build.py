"""One target's part of a build: try the variants, gate them, race the survivors, judge the winner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ortc.arrays import write_arrays
from ortc.candidate import Made, assemble
from ortc.context import Context
from ortc.errors import StageError
from ortc.host import cores
from ortc.model_build import ModelBuild
from ortc.plan import CasePlan, TargetPlan, VariantPlan
from ortc.publish import seal
from ortc.report import Check, Decision, Numbers, Race, TargetReport, Verdict
from ortc.stages import measure
from ortc.stages.optimize import VariantGraph, make_variant
from ortc.stages.quantize import NotApplicable
from ortc.stages.select import Candidate, choose, time_verdicts
from ortc.stages.verify import accuracy_verdicts, budget_verdicts, check_bundle, size_verdicts, worst_case
from ortc.store import code_digest, loader_digest
from ortc.target import GraphLevel
from ortc.target_bundle import TargetBuild, Tried

EXIT_STAGE, EXIT_ACCURACY, EXIT_BUDGET, EXIT_UNMEASURED = 4, 5, 6, 7
_ACCURACY_GATES = {"outputs", "max_abs", "cosine", "top1_agreement", "metric"}
SCREENING_ROUNDS, SCREENING_RUNS = 8, 6


def build_target(context: Context, model: ModelBuild, target: TargetPlan) -> TargetBuild:
    """Everything of one target but the writing of its bundle; a failure is a report, not an exception."""
    try:
        return TargetBuilder(context, model, target).build()
    except StageError as error:
        context.progress.note(f"{target.name}: {error.message}")
        text = "\n".join([error.message, *error.details, *([f"help: {error.help}"] if error.help else [])])
        report = TargetReport(target=target.name, status="failed", error=text, exit_code=error.exit_code)
        return TargetBuild(plan=target, report=report, winner=None, race=None, interpreter=None)


class TargetBuilder:
    """The steps of one target."""

    def __init__(self, context: Context, model: ModelBuild, target: TargetPlan) -> None:
        self.context = context
        self.model = model
        self.target = target
        self.platform = context.host.platform
        self.runnable = not target.requires_gpu or bool(context.host.gpus)
        self.promised = self.runnable and self.platform in target.platforms
        self.interpreter: Path | None = None
        self._bundles: dict[str, Path] = {}

    def build(self) -> TargetBuild:
        self.prepare()
        return self.finish([self.attempt(variant) for variant in self.target.variants])

    def prepare(self) -> None:
        """Make the runtime environment, where this host can run the target."""
        if self.runnable:
            # On a host that is none of the target's platforms the same runtime still checks numerics, as evidence.
            platforms = self.target.platforms if self.promised else (*self.target.platforms, self.platform)
            self.interpreter = self.context.interpreter(self.target.runtime.pins, platforms)

    def finish(self, tried: list[Tried]) -> TargetBuild:
        """Race what passed, and judge the winner."""
        passed = [entry for entry in tried if entry.failed is None]
        decisions = {entry.made.variant.name: _rejection(entry) for entry in tried if entry.failed is not None}
        if not passed:
            return self._nothing_passed(tried, decisions)
        outcome: Race | None = None
        start: tuple[list[float], int] = ([], 0)
        winner = passed[0]
        if self.runnable:
            winner, reasons = self._select(passed)
            decisions |= reasons
            outcome, start = self._race([winner], measure.ROUNDS, measure.RUNS), self._start(winner)
        measured = None
        if outcome is not None and winner.check is not None:
            peak = max(winner.check.peak_rss_bytes, start[1])
            measured = measure.numbers(outcome, winner.made.variant.name, start[0], peak)
        verdicts = (*winner.verdicts, *self._unmeasured())
        if measured is not None and self.promised:
            verdicts += time_verdicts(measured, self.target.budgets, self.target.measure_at, self.platform)
        return self._judge(tried, winner, decisions, verdicts, measured, outcome)

    def attempt(self, variant: VariantPlan) -> Tried:
        """Make and check a variant, at the highest graph level that keeps its promise of accuracy."""
        levels = self.target.graph_levels
        first = self._at(variant, levels[0])
        if self._right(first) or first.check is None or len(levels) == 1:
            return first
        # When it is wrong without any optimization too, no level is to blame; the worst case alone tells.
        worst = None if first.check is None else worst_case(first.check, variant.precision)
        if worst is not None and not self._right(self._at(variant, levels[-1], only=worst)):
            return first
        lowest = self._at(variant, levels[-1])
        if not self._right(lowest):
            return first
        reason = f"graph level `{levels[0]}`: {_describe(first.failed)}"
        for level in levels[1:-1]:
            attempt = self._at(variant, level)
            if self._right(attempt):
                return _lowered(attempt, reason)
        return _lowered(lowest, reason)

    def _right(self, tried: Tried) -> bool:
        """Whether the accuracy gates hold; a budget is not a matter of graph levels."""
        return not any(v.outcome != "pass" and v.gate in {*_ACCURACY_GATES, "runs"} for v in tried.verdicts)

    def _at(self, variant: VariantPlan, level: GraphLevel, only: str | None = None) -> Tried:
        """Make a variant at a graph level and judge it, at every case or at one."""
        name = f"{self.target.name}: {variant.name} at {level}"
        made_key = {
            "model": self.model.key["export"],
            "variant": variant.model_dump(mode="json"),
            "level": level,
            "runtime": [self.target.runtime.package, self.target.runtime.version] if self.interpreter else None,
            "tools": {tool: self.context.tools[tool] for tool in ("onnx", "onnx-ir")},
            "code": code_digest("stages/optimize.py", "stages/quantize.py", "stages/offline.py", "stages/graph.py"),
        }

        def make(output: Path) -> dict[str, Any]:
            try:
                return make_variant(self.model.canonical, output, variant, level, self.interpreter).model_dump(
                    mode="json"
                )
            except NotApplicable as error:
                return {"skip": error.message}

        try:
            entry = self.context.run("variant", name, made_key, make)
            skip = entry.result.get("skip")
        except StageError as error:
            skip = error.message
        if skip is not None:
            # A variant that cannot be made of this model is one that loses, not the end of the build.
            verdict = Verdict(
                gate="applies", platform=self.platform, outcome="fail", observed=skip, limit="can be made"
            )
            made = Made(variant, level, self.model.canonical, VariantGraph(bytes=0, domains={}, operators={}))
            return Tried(made=made, key="", check=None, verdicts=(verdict,), lowered=None)
        made = Made(variant, level, entry.directory, VariantGraph.model_validate(entry.result))
        verdicts = size_verdicts(self.target, made.graph.bytes, self.platform)
        if self.interpreter is None or any(verdict.outcome == "fail" for verdict in verdicts):
            # Too large is too large: no need to run it.
            return Tried(made=made, key=entry.key, check=None, verdicts=verdicts, lowered=None)
        accuracy = self.context.plan.accuracy
        reference = None if self.model.metric is None else self.model.metric.reference
        check = self._check(name, made, entry.key, only)
        verdicts = (
            *accuracy_verdicts(check, variant.precision, accuracy, self.platform, reference),
            *verdicts,
            *(() if check.error else budget_verdicts(check, self.target, accuracy, self.platform)),
        )
        return Tried(made=made, key=entry.key, check=check, verdicts=verdicts, lowered=None)

    def _check(self, name: str, made: Made, key: str, only: str | None) -> Check:
        assert self.interpreter is not None  # noqa: S101  # only called on hosts that can run the target
        interpreter, metric = self.interpreter, None if only else self.model.metric
        inputs = {
            "variant": key,
            "model": self.model.key,
            "session": self.target.session.model_dump(mode="json"),
            "runtime": self.target.runtime.model_dump(mode="json"),
            "metric": None if metric is None else metric.code,
            "only": only,
            "host": self.context.host.fingerprint(),
            "code": code_digest("stages/verify.py", "compare.py", "worker.py"),
            "loader": loader_digest(),
        }

        def check(_: Path) -> dict[str, Any]:
            function = None if metric is None else metric.function
            cases = tuple(case for case in self.model.material.cases if only in (None, case.name))
            factory, bundle = self.model.factory(), self._bundle(made)
            return check_bundle(interpreter, bundle, cases, factory, function).model_dump(mode="json")

        return Check.model_validate(
            self.context.run("verify", f"{name}, {only}" if only else name, inputs, check).result
        )

    def _bundle(self, made: Made) -> Path:
        """A directory where a variant can be run."""
        name = f"{self.target.name}-{made.variant.name}-{made.level}"
        if name not in self._bundles:
            bundle = self.context.work / name
            bundle.mkdir()
            assemble(bundle, self.model.material, self.target, made)
            self._bundles[name] = bundle
        return self._bundles[name]

    def _select(self, passed: list[Tried]) -> tuple[Tried, dict[str, Decision]]:
        if len(passed) == 1:
            return passed[0], {}
        outcome = self._race(passed, SCREENING_ROUNDS, SCREENING_RUNS)
        candidates = [
            Candidate(entry.made.variant.name, entry.made.variant.precision, entry.made.graph.bytes) for entry in passed
        ]
        name, reasons = choose(candidates, outcome, self.target)
        levels = {entry.made.variant.name: entry.made.level for entry in passed}
        rejected = {
            variant: Decision(variant=variant, graph_level=levels[variant], outcome="rejected", reason=reason)
            for variant, reason in reasons.items()
        }
        return next(entry for entry in passed if entry.made.variant.name == name), rejected

    def _race(self, entries: list[Tried], rounds: int, runs: int) -> Race:
        assert self.interpreter is not None  # noqa: S101
        interpreter, target = self.interpreter, self.target
        names = [entry.made.variant.name for entry in entries]
        with_reference = self.context.has_reference
        inputs = {
            "variants": [entry.key for entry in entries],
            "model": self.model.key,
            "session": target.session.model_dump(mode="json"),
            "runtime": target.runtime.model_dump(mode="json"),
            "shape": target.measure_at.model_dump(mode="json"),
            "rounds": [rounds, runs],
            "reference": with_reference,
            "host": self.context.host.fingerprint(),
            "threads": cores(),
            "code": code_digest("stages/measure.py", "worker.py"),
            "loader": loader_digest(),
        }

        def run(output: Path) -> dict[str, Any]:
            request = output / "inputs.npz"
            case = CasePlan(shape=target.measure_at, padded=False)
            write_arrays(request, self.model.factory().case(case))
            bundles = [(entry.made.variant.name, interpreter, self._bundle(entry.made)) for entry in entries]
            # A fresh process: one that has just exported holds more memory and more threads than a user's would.
            self.context.fresh_reference()
            reference = self.context.reference() if with_reference else None
            return measure.race(
                bundles,
                reference,
                request,
                shape=str(target.measure_at),
                host=self.context.host,
                threads=cores(),
                rounds=rounds,
                runs=runs,
            ).model_dump(mode="json")

        subject = f"{target.name}: {', '.join(names)}{' and PyTorch' if with_reference else ''}"
        return Race.model_validate(self.context.run("measure", subject, inputs, run).result)

    def _start(self, winner: Tried) -> tuple[list[float], int]:
        assert self.interpreter is not None  # noqa: S101
        interpreter = self.interpreter
        inputs = {
            "variant": winner.key,
            "session": self.target.session.model_dump(mode="json"),
            "runtime": self.target.runtime.model_dump(mode="json"),
            "host": self.context.host.fingerprint(),
            "code": code_digest("stages/measure.py"),
            "loader": loader_digest(),
        }

        def run(_: Path) -> dict[str, Any]:
            bundle = self.context.work / f"{self.target.name}-start"
            bundle.mkdir()
            seal(bundle, assemble(bundle, self.model.material, self.target, winner.made))
            seconds, peak = measure.start_times(interpreter, bundle, self.target.measure_at.as_dict())
            return {"seconds": seconds, "peak_rss_bytes": peak}

        result = self.context.run("start", self.target.name, inputs, run).result
        return [float(value) for value in result["seconds"]], int(result["peak_rss_bytes"])

    def _unmeasured(self) -> tuple[Verdict, ...]:
        """What this host cannot say: every platform that it is not, and every gate on a missing GPU."""
        budgets = self.target.budgets
        gates = [f"latency {name}" for name, _ in (budgets.latency.percentiles if budgets.latency else ())]
        optional = {"start": budgets.start, "memory": budgets.memory, "speed-up": budgets.min_speedup}
        gates += [gate for gate, limit in optional.items() if limit is not None]
        missing = [p for p in self.target.platforms if p != self.platform or not self.runnable]
        why = (
            "no GPU on this host" if self.target.requires_gpu and not self.runnable else f"this host is {self.platform}"
        )
        return tuple(
            Verdict(gate=gate, platform=platform, outcome="unmeasured", observed=why, limit="measured on the target")
            for platform in missing
            for gate in ("parity", *gates)
        )

    def _nothing_passed(self, tried: list[Tried], decisions: dict[str, Decision]) -> TargetBuild:
        failures = [entry.failed for entry in tried if entry.failed is not None]
        gates = {failure.gate for failure in failures}
        # Where one variant is right and only too large or too hungry, the budget is what stands in the way.
        code = EXIT_BUDGET if gates - _ACCURACY_GATES - {"runs", "applies"} else EXIT_ACCURACY
        if gates <= {"runs", "applies"}:
            code = EXIT_STAGE
        verdicts = tuple(verdict for entry in tried for verdict in entry.verdicts if verdict.outcome != "pass")
        report = TargetReport(
            target=self.target.name,
            status="failed",
            verdicts=verdicts,
            decisions=tuple(decisions.values()),
            error="no variant passes every gate",
            exit_code=code,
        )
        return TargetBuild(plan=self.target, report=report, winner=None, race=None, interpreter=self.interpreter)

    def _judge(
        self,
        tried: list[Tried],
        winner: Tried,
        decisions: dict[str, Decision],
        verdicts: tuple[Verdict, ...],
        measured: Numbers | None,
        outcome: Race | None,
    ) -> TargetBuild:
        chosen = winner.made.variant
        reason = f"the only variant of precision `{self.target.precision}`"
        if len(tried) > 1:
            reason = "smallest that passes" if self.target.objective == "size" else "fastest that passes"
        if not self.runnable:
            reason = "not measured: this host lacks the target's hardware"
        if winner.lowered is not None:
            reason += f"; {winner.lowered}"
        selected = Decision(variant=chosen.name, graph_level=winner.made.level, outcome="selected", reason=reason)
        outcomes = {verdict.outcome for verdict in verdicts}
        allowed = self.target.unmeasured == "allow"
        code, status = 0, "published"
        if "fail" in outcomes:
            code, status = EXIT_BUDGET, "failed"
        elif outcomes & {"unmeasured", "inconclusive"}:
            code, status = (0, "provisional") if allowed else (EXIT_UNMEASURED, "failed")
        report = TargetReport.model_validate(
            {
                "target": self.target.name,
                "status": status,
                "variant": chosen.name,
                "graph_level": winner.made.level,
                "precision": chosen.precision,
                "model_bytes": winner.made.graph.bytes,
                "parity": _parity(winner.verdicts),
                "numbers": measured,
                "verdicts": verdicts,
                "decisions": (selected, *decisions.values()),
                "exit_code": code,
            }
        )
        return TargetBuild(self.target, report, winner, outcome, self.interpreter)


def _lowered(tried: Tried, reason: str) -> Tried:
    return Tried(tried.made, tried.key, tried.check, tried.verdicts, f"{reason}, so `{tried.made.level}` was taken")


def _rejection(tried: Tried) -> Decision:
    return Decision(
        variant=tried.made.variant.name,
        graph_level=tried.made.level,
        outcome="rejected",
        reason=_describe(tried.failed),
    )


def _describe(verdict: Verdict | None) -> str:
    if verdict is None:
        return "passes"
    if verdict.gate == "applies":
        return f"cannot be made: {verdict.observed}"
    where = f" at {verdict.where}" if verdict.where else ""
    return f"{verdict.gate} is {verdict.observed}, must be {verdict.limit}{where}"


def _parity(verdicts: tuple[Verdict, ...]) -> str | None:
    found = next((verdict for verdict in verdicts if verdict.gate in ("max_abs", "cosine")), None)
    return None if found is None else f"{found.gate} {found.observed}"
