"""Check a target's variants: each in its own runtime, at the highest graph level that is right."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ortc.build.answer_proof import prove_in_page
from ortc.build.context import Context
from ortc.build.environments import Environments
from ortc.build.instruction_sets import check_on_avx2
from ortc.build.model import ModelBuild
from ortc.build.stages import VERIFY
from ortc.build.task_metric import answers_verdicts
from ortc.build.tried import Tried
from ortc.build.variant_graph import GraphBuilder
from ortc.bundle.assemble import Made, assemble
from ortc.common.values import digest
from ortc.evaluation.accuracy import check_bundle
from ortc.evaluation.accuracy_gates import worst_case
from ortc.evaluation.budget_gates import run_verdicts
from ortc.evaluation.gate_table import ACCURACY_GATES, EMBEDDING_GATES
from ortc.evaluation.gates import describe
from ortc.evaluation.report import Check
from ortc.execution.worker_pool import Loaded
from ortc.plan.plan import TargetPlan

REAL = "samples"
"""All batches of real samples, where else the name of a case is given."""


class VariantBuilder:
    """Makes the variants of one target with `graphs`, and checks them in `environments`."""

    def __init__(self, context: Context, model: ModelBuild, target: TargetPlan) -> None:
        self.context = context
        self.model = model
        self.target = target
        self.environments = Environments(context, target)
        self.graphs = GraphBuilder(context, model, target, self.environments)
        self.make = self.graphs.make
        self.runner = self.environments.runner
        self.platform = self.environments.platform
        self.runnable = self.environments.runnable
        self.promised = self.environments.promised
        self.loaded = Loaded()
        self._bundles: dict[str, Path] = {}

    def environment_bytes(self, entry: Tried) -> int:
        """Bytes of a variant's unpacked packages; 0 where this host cannot run the target."""
        packages = self.environments.installed(entry.made)
        return 0 if packages is None else packages.unpacked

    def key(self, entry: Tried) -> dict[str, Any]:
        """What decides how a made variant runs here, for cache keys."""
        return {
            "variant": entry.key,
            "session": entry.made.session.model_dump(mode="json"),
            "runtime": entry.made.variant.runtime.model_dump(mode="json"),
            "host": self.context.host.fingerprint(),
            "max_cpu_nodes": self.target.budgets.limit("max_cpu_nodes"),
            "variables": {**self.context.variables, **self.environments.variables},
        }

    def glance(self, entry: Tried) -> Tried:
        """Run a made variant once, at the shape of the budget: what does not load is not raced.

        What runs and is wrong there is verified at once, since a lower graph level may make it right.
        """
        cases = self.context.plan.cases
        case = next((c for c in cases if c.shape == self.target.measure_at and not c.padded), cases[0])
        seen = self._checked(entry, only=str(case))
        if seen.check is not None and seen.check.error is not None:
            return replace(entry, verdicts=seen.verdicts)
        return entry if self.is_right(seen) else self.verify(entry)

    def verify(self, entry: Tried) -> Tried:
        """Check a made variant, and lower its graph level where that is what makes it wrong."""
        first = self.judge(entry)
        levels = self.target.graph_levels
        if self.is_right(first) or first.check is None or len(levels) == 1:
            return first
        if first.failed is not None and first.failed.gate in EMBEDDING_GATES:
            # Rounding to integers moves embeddings; an optimization that is wrong breaks more.
            return first
        # When it is wrong without any optimization too, no level is to blame; the worst case alone tells.
        variant, tuning = entry.made.variant, entry.made.tuning
        worst = worst_case(first.check, variant.precision)
        if worst is not None and not self.is_right(self._checked(self.make(variant, levels[-1], tuning), only=worst)):
            return first
        lowest = self._checked(self.make(variant, levels[-1], tuning))
        if not self.is_right(lowest):
            return first
        reason = f"graph level `{levels[0]}`: {describe(first.failed)}"
        for level in levels[1:-1]:
            attempt = self._checked(self.make(variant, level, tuning))
            if self.is_right(attempt):
                return _lowered(attempt, reason)
        return _lowered(lowest, reason)

    def judge(self, entry: Tried) -> Tried:
        """A made variant judged at its own graph level: by the real samples, which is cheap, then at every case."""
        is_rounded = entry.made.variant.quantization is not None
        if is_rounded and any(case.is_sample for case in self.model.material.cases):
            seen = self._checked(entry, only=REAL)
            if not self.is_right(seen):
                return seen
        return self._checked(entry)

    def is_right(self, tried: Tried) -> bool:
        """Whether the accuracy gates hold; a budget is not a matter of graph levels."""
        return not any(v.outcome != "pass" and v.gate in {*ACCURACY_GATES, "runs"} for v in tried.verdicts)

    def _checked(self, entry: Tried, only: str | None = None) -> Tried:
        """A made variant judged at every case, at one, or at the real samples."""
        if entry.failed is not None:
            # Too large is too large: no need to run it.
            return entry
        variant = entry.made.variant
        accuracy = self.context.plan.accuracy
        plan = self.context.plan
        if only not in (None, REAL):
            # One case is not the samples, and has no spread.
            lenient = {"embeddings": None, "nrmse": float("inf"), "spearman": -1.0}
            plan = plan.model_copy(update={"accuracy": accuracy.model_copy(update=lenient)})
        check = self._check(entry, only)
        verdicts = (
            *answers_verdicts(plan, self.model.metric, check, variant.precision, self.platform),
            *entry.verdicts,
            *(() if check.error else run_verdicts(check, self.target, accuracy, self.platform)),
        )
        found = Tried(made=entry.made, key=entry.key, check=check, verdicts=verdicts, lowered=None)
        return found if only else check_on_avx2(self, found)

    def _check(self, entry: Tried, only: str | None) -> Check:
        made = entry.made
        interpreter, metric = self.runner(made), None if only else self.model.metric
        embeddings = None if only not in (None, REAL) else self.context.plan.accuracy.embeddings
        # Not of what is only glanced at: that costs a second session.
        is_limited = self.target.budgets.limit("max_memcpy_nodes") is not None
        measured_at = str(self.target.measure_at) if only is None else None
        copies = only is None and (self.target.requires_gpu or is_limited)
        inputs = {
            **self.key(entry),
            "model": self.model.key,
            "metric": None if metric is None else metric.code,
            "embeddings": None if embeddings is None else embeddings.model_dump(mode="json"),
            "only": only,
            "copies": copies,
            "measured at": measured_at,
        }

        def work(_: Path) -> Check:
            function = None if metric is None else metric.function
            cases = tuple(
                case
                for case in self.model.material.cases
                if only in (None, case.name) or (only == REAL and case.is_sample)
            )
            answers = self.model.answers_of(self.target)
            judged = () if answers is None else answers.judged
            # What is only glanced at is raced next. Of what is verified at every case, memory is measured besides.
            loaded = self.loaded if only not in (None, REAL) else None
            return check_bundle(
                interpreter,
                self.bundle(made),
                cases,
                self.model.factory(),
                function,
                loaded,
                embeddings,
                answers=judged if only in (None, REAL) else (),
                proof=None if answers is None or not self.target.is_javascript else partial(prove_in_page, answers),
                copies=copies,
                measured_at=measured_at,
            )

        name = f"{self.target.name}: {made.variant.name} at {made.level}"
        return self.context.run(VERIFY.action(f"{name}, {only}" if only else name, inputs), work).result

    def bundle(self, made: Made) -> Path:
        """A directory where a variant can be run."""
        session = made.tuning.name if made.tuning else "default"
        packed = "-prepacked" if made.prepacked else ""
        # Mixes of one variant have its name.
        mix = digest([made.variant.blocks, made.variant.exclude])[:12]
        name = f"{self.target.name}-{made.variant.name}-{mix}-{made.level}-{session}{packed}"
        if name not in self._bundles:
            bundle = self.context.workspace.work / name
            bundle.mkdir()
            assemble(bundle, self.model.material, self.target, made)
            self._bundles[name] = bundle
        return self._bundles[name]


def _lowered(tried: Tried, reason: str) -> Tried:
    return Tried(tried.made, tried.key, tried.check, tried.verdicts, f"{reason}, so `{tried.made.level}` was taken")
