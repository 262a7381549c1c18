"""Make a target's variants and check them: each in its own runtime, at the highest graph level that is right."""

from __future__ import annotations

import sys
import tempfile
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ortc.build.context import Context
from ortc.build.instruction_sets import check_on_avx2
from ortc.build.model import CHECK_PINS, ModelBuild
from ortc.build.target_result import Tried
from ortc.build.task_metric import answers_verdicts
from ortc.bundle.assemble import Made, assemble
from ortc.common.arrays import write_arrays
from ortc.common.disk import DiskFullError
from ortc.common.errors import NotApplicable, StageError
from ortc.common.values import digest
from ortc.evaluation.accuracy import budget_verdicts, check_bundle, size_verdicts, weight_verdicts
from ortc.evaluation.accuracy_gates import worst_case
from ortc.evaluation.footprint import Installed, installed
from ortc.evaluation.gates import ACCURACY_GATES, EMBEDDING_GATES, describe
from ortc.evaluation.report import Check, Verdict
from ortc.execution.code_closure import code_of
from ortc.execution.graph_workers import Makers
from ortc.execution.worker_pool import Loaded
from ortc.passes.placement import table_for
from ortc.passes.rewrite import rewrite_variant
from ortc.passes.variant_graph import VariantGraph
from ortc.plan.plan import TargetPlan, TuningPlan, VariantPlan
from ortc.spec.profile import GraphLevel
from ortc.spec.runtimes import pins

RANGES = "ranges.npz"
REAL = "samples"
"""All batches of real samples, where else the name of a case is given."""
LEAST_CALIBRATION = 32
"""Samples below which ranges are taken to say little."""


class VariantBuilder:
    """Makes and checks the variants of one target."""

    def __init__(self, context: Context, model: ModelBuild, target: TargetPlan) -> None:
        self.context = context
        self.model = model
        self.target = target
        self.platform = context.host.platform
        self.runnable = not target.requires_gpu or bool(context.host.gpus)
        self.promised = self.runnable and self.platform in target.platforms
        self.calibrated = 0
        self._bundles: dict[str, Path] = {}
        self._interpreters: dict[str, Path] = {}
        self._lock = threading.Lock()
        self.makers = Makers()
        self.loaded = Loaded()

    def interpreter(self, variant: VariantPlan) -> Path | None:
        """Of the variant's runtime environment; None where this host cannot run the target."""
        if not self.runnable:
            return None
        name = variant.runtime.pins
        # Two variants that are made at the same time share the one that is made for them.
        with self._lock:
            if name not in self._interpreters:
                self._interpreters[name] = self._environment(name)
        return self._interpreters[name]

    def _environment(self, name: str) -> Path:
        # On a host that is none of the target's platforms the same runtime still checks numerics, as evidence.
        platforms = self.target.platforms if self.promised else (*self.target.platforms, self.platform)
        return self.context.interpreter(name, platforms)

    def runner(self, made: Made) -> Path:
        """The interpreter of a variant on a host that can run it."""
        interpreter = self.interpreter(made.variant)
        if interpreter is None:
            raise StageError(f"{self.platform} without the target's hardware cannot run {made.variant.name}")
        return interpreter

    def installed(self, made: Made) -> Installed | None:
        """Bytes of the packages that a variant runs on; None where this host cannot run the target."""
        interpreter = self.interpreter(made.variant)
        return None if interpreter is None else installed(interpreter, made.session.providers[0].name)

    def environment_bytes(self, entry: Tried) -> int:
        """Bytes of a variant's unpacked packages; 0 where this host cannot run the target."""
        packages = self.installed(entry.made)
        return 0 if packages is None else packages.unpacked

    def key(self, entry: Tried) -> dict[str, Any]:
        """What decides how a made variant runs here, for cache keys."""
        return {
            "variant": entry.key,
            "session": entry.made.session.model_dump(mode="json"),
            "runtime": entry.made.variant.runtime.model_dump(mode="json"),
            "host": self.context.host.fingerprint(),
            "max_cpu_nodes": self.target.budgets.max_cpu_nodes,
            "variables": self.context.variables,
        }

    def make(self, variant: VariantPlan, level: GraphLevel, tuning: TuningPlan | None = None) -> Tried:
        """Make a variant at a graph level and judge its size; a variant that cannot be made is one that loses."""
        if (reason := self._no_wheels(variant)) is not None:
            return self._not_made(variant, level, tuning, reason)
        interpreter = self.interpreter(variant)
        name = f"{self.target.name}: {variant.name} at {level}"
        table, runtime = table_for(variant), variant.runtime
        inputs = {
            "model": self.model.key["export"],
            "variant": variant.model_dump(mode="json", exclude={"session", "runtime"}),
            "config": variant.session.config_entries,
            "level": level,
            "runtime": [runtime.package, runtime.version, runtime.pins_sha256] if interpreter else None,
            "ranges": digest(self._ranges_key(variant)) if variant.is_calibrated else None,
            "kernels": None if table is None else table.sha256,
            "tools": {tool: self.context.tools[tool] for tool in ("onnx", "onnx-ir", "onnxscript")},
            "variables": self.context.variables,
            "code": code_of("variant"),
        }

        def action(output: Path) -> dict[str, Any]:
            return self.makers.make(
                canonical=str(self.model.canonical()),
                output=str(output),
                variant=variant.model_dump(mode="json"),
                level=level,
                interpreter=None if interpreter is None else str(interpreter),
                ranges=None if ranges is None else str(ranges),
            )

        try:
            ranges = self.ranges(variant)
            entry = self.context.run("variant", name, inputs, action)
            skip = entry.result.get("skip")
        except DiskFullError:
            # Nothing about the variant.
            raise
        except StageError as error:
            skip = error.message
        if skip is not None:
            return self._not_made(variant, level, tuning, skip)
        files = partial(self.context.store.proven, entry)
        made = Made(variant, level, files, VariantGraph.model_validate(entry.result), tuning)
        verdicts = (
            *weight_verdicts(variant, made.graph, self.platform),
            *size_verdicts(self.target, variant, made.graph.bytes, self.platform),
        )
        return Tried(made=made, key=entry.key, check=None, verdicts=verdicts, lowered=None)

    def _no_wheels(self, variant: VariantPlan) -> str | None:
        """Why the variant's runtime cannot be installed here: a runtime of another variant may well be."""
        pinned, python = pins(variant.runtime.pins), ".".join(map(str, sys.version_info[:2]))
        if not self.runnable or pinned.serves(self.platform, python):
            return None
        return f"{variant.runtime.package} {variant.runtime.version} has no wheels for {self.platform}, Python {python}"

    def _not_made(self, variant: VariantPlan, level: GraphLevel, tuning: TuningPlan | None, reason: str) -> Tried:
        verdict = Verdict(gate="applies", platform=self.platform, outcome="fail", observed=reason, limit="can be made")
        made = Made(variant, level, dict, VariantGraph(bytes=0, domains={}, operators={}), tuning)
        return Tried(made=made, key="", check=None, verdicts=(verdict,), lowered=None)

    def ranges(self, variant: VariantPlan) -> Path | None:
        """Calibrated ranges of the activations of a graph that will be smoothed or quantized by them.

        Raises:
            NotApplicable: nothing can be calibrated, or not here.
        """
        if not variant.is_calibrated:
            return None
        if not self.runnable:
            raise NotApplicable("calibration runs the model, and this host lacks the target's hardware")
        # The ranges are those of the graph in fp32, whatever runs it later: the plain runtime finds them for all.
        plain = self.context.interpreter(CHECK_PINS, (self.platform,))
        inputs = self._ranges_key(variant)

        def action(output: Path) -> dict[str, Any]:
            from ortc.passes.quantization.calibration import calibrate

            try:
                with (
                    rewrite_variant(self.model.canonical(), variant.rewrites) as graph,
                    tempfile.TemporaryDirectory(prefix="samples-", dir=self.context.work) as scratch,
                ):
                    files = []
                    for index, arrays in enumerate(self.model.factory().calibration()):
                        files.append(Path(scratch) / f"{index}.npz")
                        write_arrays(files[-1], arrays)
                    calibrate(
                        plain,
                        graph,
                        files,
                        output / RANGES,
                        operators=variant.operators,
                        method=variant.calibration,
                    )
                    return {"samples": len(files)}
            except NotApplicable as error:
                return {"skip": error.message}

        subject = f"{self.target.name}: {', '.join(variant.operators)}"
        entry = self.context.run("calibrate", subject, inputs, action)
        if (skip := entry.result.get("skip")) is not None:
            raise NotApplicable(skip)
        self._tell_samples(int(entry.result.get("samples", 0)))
        # Of one that `ortc plan` foresees there is no file yet, and nothing is made of it.
        return entry.files.get(RANGES)

    def _ranges_key(self, variant: VariantPlan) -> dict[str, Any]:
        """What decides the ranges of a variant, for cache keys."""
        return {
            "model": self.model.key["export"],
            "rewrites": variant.rewrites,
            "operators": variant.operators,
            "method": variant.calibration,
            "samples": self.model.calibration_key,
            "runtime": pins(CHECK_PINS).sha256,
            "variables": self.context.variables,
            "code": code_of("calibrate"),
        }

    def _tell_samples(self, requests: int) -> None:
        """Warn, once, where ranges rest on few samples; `requests` counts the longest and the shortest one, too."""
        if self.model.key["split"] and not self.calibrated and 0 < requests < LEAST_CALIBRATION + 2:
            self.context.progress.note(
                f"{self.target.name}: calibrated on {requests - 2} samples, and few show little of what activations "
                f"reach: give {2 * LEAST_CALIBRATION} or more in `accuracy.samples`, half of which only judge"
            )
        self.calibrated = max(self.calibrated, requests)

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
        is_rounded = entry.made.variant.quantization != "none"
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
            *(() if check.error else budget_verdicts(check, self.target, accuracy, self.platform)),
        )
        found = Tried(made=entry.made, key=entry.key, check=check, verdicts=verdicts, lowered=None)
        return found if only else check_on_avx2(self, found)

    def _check(self, entry: Tried, only: str | None) -> Check:
        made = entry.made
        interpreter, metric = self.runner(made), None if only else self.model.metric
        embeddings = None if only not in (None, REAL) else self.context.plan.accuracy.embeddings
        # Not of what is only glanced at: that costs a second session.
        copies = only is None and (self.target.requires_gpu or self.target.budgets.max_memcpy_nodes is not None)
        inputs = {
            **self.key(entry),
            "model": self.model.key,
            "metric": None if metric is None else metric.code,
            "embeddings": None if embeddings is None else embeddings.model_dump(mode="json"),
            "only": only,
            "copies": copies,
            "soaks": only is None,
            "code": code_of("verify"),
        }

        def check(_: Path) -> dict[str, Any]:
            function = None if metric is None else metric.function
            cases = tuple(
                case
                for case in self.model.material.cases
                if only in (None, case.name) or (only == REAL and case.is_sample)
            )
            factory, bundle = self.model.factory(), self.bundle(made)
            # What is only glanced at is raced next. Of what is verified at every case, memory is measured besides.
            loaded = self.loaded if only not in (None, REAL) else None
            check = check_bundle(
                interpreter, bundle, cases, factory, function, loaded, embeddings, copies=copies, soaks=only is None
            )
            return check.model_dump(mode="json")

        name = f"{self.target.name}: {made.variant.name} at {made.level}"
        return Check.model_validate(
            self.context.run("verify", f"{name}, {only}" if only else name, inputs, check).result
        )

    def bundle(self, made: Made) -> Path:
        """A directory where a variant can be run."""
        session = made.tuning.name if made.tuning else "default"
        packed = "-prepacked" if made.prepacked else ""
        # Mixes of one variant have its name.
        mix = digest([made.variant.blocks, made.variant.exclude])[:12]
        name = f"{self.target.name}-{made.variant.name}-{mix}-{made.level}-{session}{packed}"
        if name not in self._bundles:
            bundle = self.context.work / name
            bundle.mkdir()
            assemble(bundle, self.model.material, self.target, made)
            self._bundles[name] = bundle
        return self._bundles[name]


def _lowered(tried: Tried, reason: str) -> Tried:
    return Tried(tried.made, tried.key, tried.check, tried.verdicts, f"{reason}, so `{tried.made.level}` was taken")
