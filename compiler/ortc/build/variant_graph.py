"""Make the graphs of one target's variants, calibrated where they need it; a failure is a variant that loses."""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path

from ortc.build.context import Context
from ortc.build.environments import Environments
from ortc.build.model import ModelBuild
from ortc.build.plain_runtime import CHECK_PINS
from ortc.build.stage import Action
from ortc.build.stage_results import Ranges, Skip
from ortc.build.stages import CALIBRATE, VARIANT
from ortc.build.tried import Tried
from ortc.bundle.assemble import Made
from ortc.common.arrays import write_arrays
from ortc.common.disk import DiskFullError
from ortc.common.errors import NotApplicable, StageError
from ortc.common.values import digest
from ortc.evaluation.budget_gates import size_verdicts, weight_verdicts
from ortc.evaluation.report import Verdict
from ortc.execution.graph_workers import Makers
from ortc.frontend.samples.calibration import calibration_inputs
from ortc.passes.placement import table_for
from ortc.passes.rewrite import rewritten
from ortc.passes.variant_graph import VariantGraph
from ortc.plan.plan import TargetPlan, TuningPlan, VariantPlan
from ortc.spec.profile import GraphLevel
from ortc.spec.quantization import Quantization
from ortc.spec.runtimes import pins

RANGES = "ranges.npz"
LEAST_CALIBRATION = 32
"""Samples below which ranges are taken to say little."""


class GraphBuilder:
    """Makes the graphs of a target's variants.

    `calibrated`: requests that the ranges of activations rest on so far, at most.
    """

    def __init__(self, context: Context, model: ModelBuild, target: TargetPlan, environments: Environments) -> None:
        self.context = context
        self.model = model
        self.target = target
        self.environments = environments
        self.platform = environments.platform
        self.runnable = environments.runnable
        self.calibrated = 0
        self.makers = Makers()

    def make(self, variant: VariantPlan, level: GraphLevel, tuning: TuningPlan | None = None) -> Tried:
        """Make a variant at a graph level and judge its size; a variant that cannot be made is one that loses."""
        if (reason := self._no_wheels(variant)) is not None:
            return self._not_made(variant, level, tuning, reason)
        interpreter = self.environments.interpreter(variant)
        name = f"{self.target.name}: {variant.name} at {level}"
        table, runtime = table_for(variant), variant.runtime
        how = variant.quantization
        inputs = {
            "model": self.model.key["export"],
            "variant": variant.model_dump(mode="json", exclude={"session", "runtime"}),
            "config": variant.session.config_entries,
            "level": level,
            "runtime": [runtime.package, runtime.version, runtime.pins_sha256] if interpreter else None,
            "ranges": digest(self._ranges_action(variant, how).inputs)
            if how is not None and how.is_calibrated
            else None,
            "kernels": None if table is None else table.sha256,
            "tools": {tool: self.context.tools[tool] for tool in ("onnx", "onnx-ir", "onnxscript")},
            "variables": self.context.variables,
        }

        def work(output: Path) -> VariantGraph | Skip:
            found = self.makers.call(
                "make",
                canonical=str(self.model.canonical()),
                output=str(output),
                variant=variant.model_dump(mode="json"),
                level=level,
                interpreter=None if interpreter is None else str(interpreter),
                ranges=None if ranges is None else str(ranges),
            )
            return VARIANT.read(found)

        try:
            ranges = self.ranges(variant)
            done = self.context.run(VARIANT.action(name, inputs), work)
        except DiskFullError:
            # Nothing about the variant.
            raise
        except StageError as error:
            return self._not_made(variant, level, tuning, error.message)
        if isinstance(done.result, Skip):
            return self._not_made(variant, level, tuning, done.result.skip)
        files = partial(self.context.workspace.proven, done)
        carried = self.environments.carried(variant)
        made = Made(variant, level, files, done.result, tuning, carried=carried)
        verdicts = (
            *weight_verdicts(variant, made.graph, self.platform),
            *size_verdicts(self.target, variant, made.graph.bytes, self.platform),
        )
        return Tried(made=made, key=done.key, check=None, verdicts=verdicts, lowered=None)

    def _no_wheels(self, variant: VariantPlan) -> str | None:
        """Why the variant's runtime cannot be installed here: a runtime of another variant may well be."""
        pinned, python = pins(variant.runtime.pins), ".".join(map(str, sys.version_info[:2]))
        if not self.runnable or pinned.serves(self.platform, python):
            return None
        return f"{variant.runtime.package} {variant.runtime.version} has no wheels for {self.platform}, Python {python}"

    def _not_made(self, variant: VariantPlan, level: GraphLevel, tuning: TuningPlan | None, reason: str) -> Tried:
        verdict = Verdict(gate="applies", platform=self.platform, outcome="fail", said=reason, required="can be made")
        made = Made(variant, level, dict, VariantGraph(bytes=0, domains={}, operators={}), tuning)
        return Tried(made=made, key="", check=None, verdicts=(verdict,), lowered=None)

    def ranges(self, variant: VariantPlan) -> Path | None:
        """Calibrated ranges of the activations of a graph that will be smoothed or quantized by them.

        Raises:
            NotApplicable: nothing can be calibrated, or not here.
        """
        if (how := variant.quantization) is None or not how.is_calibrated:
            return None
        if not self.runnable:
            raise NotApplicable("calibration runs the model, and this host lacks the target's hardware")
        # The ranges are those of the graph in fp32, whatever runs it later: the plain runtime finds them for all.
        plain = self.context.runner.interpreter(CHECK_PINS, (self.context.host.platform,))

        def work(output: Path) -> Ranges | Skip:
            from ortc.passes.quantization.calibration import calibrate

            try:
                with (
                    rewritten(self.model.canonical(), variant.rewrites) as graph,
                    tempfile.TemporaryDirectory(prefix="samples-", dir=self.context.workspace.work) as scratch,
                ):
                    files = []
                    for index, arrays in enumerate(calibration_inputs(self.model.factory())):
                        files.append(Path(scratch) / f"{index}.npz")
                        write_arrays(files[-1], arrays)
                    calibrate(
                        plain,
                        graph,
                        files,
                        output / RANGES,
                        operators=how.calibrated_operators,
                        method=how.calibration,
                    )
                    return Ranges(samples=len(files))
            except NotApplicable as error:
                return Skip(skip=error.message)

        done = self.context.run(self._ranges_action(variant, how), work)
        if isinstance(done.known, Skip):
            raise NotApplicable(done.known.skip)
        # No key depends on the ranges themselves: without them, a dry run and a comparison go on.
        self._tell_samples(0 if done.known is None else done.known.samples)
        return done.files.get(RANGES)

    def _ranges_action(self, variant: VariantPlan, how: Quantization) -> Action[Ranges | Skip]:
        inputs = {
            "model": self.model.key["export"],
            "rewrites": variant.rewrites,
            "operators": how.calibrated_operators,
            "method": how.calibration,
            "samples": self.model.calibration_key,
            "runtime": pins(CHECK_PINS).sha256,
            "variables": self.context.variables,
        }
        return CALIBRATE.action(f"{self.target.name}: {', '.join(how.calibrated_operators)}", inputs)

    def _tell_samples(self, requests: int) -> None:
        """Warn, once, where ranges rest on few samples; `requests` counts the longest and the shortest one, too."""
        if self.model.key["split"] and not self.calibrated and 0 < requests < LEAST_CALIBRATION + 2:
            self.context.progress.note(
                f"{self.target.name}: calibrated on {requests - 2} samples, and few show little of what activations "
                f"reach: give {2 * LEAST_CALIBRATION} or more in `accuracy.samples`, half of which only judge"
            )
        self.calibrated = max(self.calibrated, requests)
