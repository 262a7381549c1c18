"""Which nodes of a variant cost accuracy, measured, and how many of them in higher precision are enough.

Every graph is run through the bundle's own loader in a worker, on samples that nothing is judged by, and compared with
what the reference gives for them; on the CPU provider where this host lacks the target's hardware.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ortc.build.cpu_check import for_cpu, runner_on_cpu
from ortc.build.observation import reference_key
from ortc.build.plain_runtime import CHECK_PINS, plain_target
from ortc.build.references import Request
from ortc.build.search.precision_ladder import Ladder, NodeError, Sensitivity, Step, search_steps
from ortc.build.stages import CALIBRATION_REFERENCE, CALIBRATION_REFERENCE_OF_ONNX, SENSITIVITY
from ortc.build.tried import Tried
from ortc.build.variant import VariantBuilder
from ortc.bundle.assemble import assemble
from ortc.common.arrays import read_arrays, write_arrays
from ortc.common.statistics import median
from ortc.common.values import digest
from ortc.evaluation.accuracy import CPU, ReferenceCase, run_cases
from ortc.evaluation.accuracy_gates import accuracy_verdicts
from ortc.evaluation.machine import exclusive
from ortc.execution.worker import Worker
from ortc.frontend.samples.calibration import sensitivity_inputs
from ortc.passes.canonical import MODEL_FILE
from ortc.passes.half_precision import format_of
from ortc.passes.quantization.mixed_graphs import Node, layers
from ortc.passes.rewrite import rewritten
from ortc.plan.plan import CasePlan
from ortc.plan.precision_mix import Mix
from ortc.spec.runtimes import pins

BY_NODE = 48
"""Up to so many nodes each is measured by itself; of more, layers are first."""
COVERED = 0.9
"""Share of the layers' errors whose nodes are then told apart."""
MOST_ERROR = 1e30
"""Of a node whose results are no numbers any more: JSON has no infinity."""
BENCH_RUNS, BENCH_WARMUP = 12, 3


def find_sensitivity(builder: VariantBuilder, entry: Tried) -> Sensitivity:
    """Measure the nodes of a variant that fails a gate of accuracy. Cached.

    Raises:
        StageError: a graph cannot be made or run.
    """
    context, model, variant = builder.context, builder.model, entry.made.variant
    place = context.workspace.work
    reference = {
        "model": reference_key(context),
        "export": model.key["export"],
        "calibration": model.calibration_key,
        "use": "sensitivity",
    }
    stage = CALIBRATION_REFERENCE if context.has_reference else CALIBRATION_REFERENCE_OF_ONNX
    references = stage.action(f"{builder.target.name}: calibration samples", reference)
    inputs = {
        **builder.key(entry),
        "model": model.key,
        "references": digest(references.inputs),
        "runtime on CPU": pins(CHECK_PINS).sha256,
        "at": str(builder.target.measure_at),
        "accuracy": context.plan.accuracy.model_dump(mode="json"),
        "on": "hardware" if builder.runnable else CPU,
    }

    def work(_: Path) -> Sensitivity:
        requests = [Request(*named) for named in sensitivity_inputs(model.factory())]
        cases = model.references(references, lambda: requests)
        with ExitStack() as stack:
            short = format_of(variant.rewrites)
            before = tuple(name for name in variant.rewrites if short is None or name != short.rewrite)
            source = stack.enter_context(rewritten(model.canonical(), before))
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="sensitivity-", dir=place))
            # They hold the weights, and the next races want the memory.
            stack.callback(builder.graphs.makers.close)
            bench = _Bench(builder, entry, source, Path(scratch), cases)
            runner = builder.runner(entry.made) if builder.runnable else runner_on_cpu(builder)
            with Worker.for_bundle(variant.name, runner, bench.bundle) as worker:
                return bench.measure(worker)

    return context.run(SENSITIVITY.action(f"{builder.target.name}: {variant.name}", inputs), work).result


class _Bench:
    """A bundle whose graph is exchanged from one measurement to the next."""

    def __init__(
        self, builder: VariantBuilder, entry: Tried, source: Path, scratch: Path, cases: tuple[ReferenceCase, ...]
    ) -> None:
        self.builder = builder
        self.variant = entry.made.variant
        self.source = source
        self.cases = cases
        self.ranges = builder.graphs.ranges(self.variant)
        self.bundle = scratch / "bundle"
        # Where the bundle's own graph lies: weights that graphs share must be beside them, and not by a link.
        self.graphs = self.bundle / "model"
        ignored = shutil.ignore_patterns("*.onnx", "*.onnx.data")
        whole = builder.bundle(entry.made) if builder.runnable else self._whole_on_cpu(entry, scratch)
        shutil.copytree(whole, self.bundle, ignore=ignored)
        at = CasePlan(shape=builder.target.measure_at, padded=False)
        self.at = scratch / "at.npz"
        write_arrays(self.at, builder.model.factory().case(at))
        self.expected = [read_arrays(case.outputs) for case in cases]
        self.inputs = [read_arrays(case.inputs) for case in cases]

    def _whole_on_cpu(self, entry: Tried, scratch: Path) -> Path:
        whole, place = scratch / "whole", scratch / "on-cpu"
        for directory in (whole, place):
            directory.mkdir()
        made = for_cpu(entry.made, place, self.builder.target)
        assemble(whole, self.builder.model.material, plain_target(self.builder.target), made)
        return whole

    def measure(self, worker: Worker) -> Sensitivity:
        listed = self._call("nodes", source=str(self.source))["nodes"]
        nodes = tuple(Node.model_validate(entry) for entry in listed)
        errors = self._errors(worker, nodes)
        found = [NodeError(**node.model_dump(), elements=node.elements, error=errors[node.name]) for node in nodes]
        # What the error of a node costs to be rid of is its weight, of size and of time. In 16 bits most have none.
        by_weight = format_of(self.variant.rewrites) is None
        found.sort(key=lambda node: (-node.error / (node.elements if by_weight else 1), node.name))
        steps = search_steps(Ladder(self.variant, found), lambda step, mix: self._step(worker, step, mix))
        return Sensitivity(nodes=tuple(found), steps=steps)

    def _errors(self, worker: Worker, nodes: Sequence[Node]) -> dict[str, float]:
        if len(nodes) <= BY_NODE:
            return self._alone(worker, nodes, [(node,) for node in nodes])
        groups = layers(nodes)
        whole = self._alone(worker, nodes, groups)
        groups.sort(key=lambda group: -whole[group[0].name] * len(group))
        total, seen = sum(whole.values()), 0.0
        while groups and seen < COVERED * total:
            group, *groups = groups
            seen += sum(whole[node.name] for node in group)
            if len(group) > 1:
                whole |= self._alone(worker, nodes, [(node,) for node in group])
        return whole

    def _alone(self, worker: Worker, nodes: Sequence[Node], groups: Sequence[Sequence[Node]]) -> dict[str, float]:
        """The error of each group alone in less precision, shared among its nodes by name."""
        names = {node.name for node in nodes}
        mixes = [Mix(exclude=tuple(sorted(names - {node.name for node in group}))) for group in groups]
        errors: dict[str, float] = {}
        for group, (graph, _) in zip(groups, self._written(mixes), strict=True):
            self._load(worker, graph)
            error = self._error(worker)
            errors |= {node.name: error / len(group) for node in group}
        return errors

    def _step(self, worker: Worker, step: int, mix: Mix) -> Step:
        ((graph, size),) = self._written([mix])
        self._load(worker, graph)
        accuracy = self.builder.context.plan.accuracy
        check = run_cases(worker, self.cases, accuracy.embeddings)
        verdicts = accuracy_verdicts(check, self.variant.precision, accuracy, self.builder.platform, None)
        # Elsewhere than on the target's hardware a time says nothing.
        runs = None
        if self.builder.runnable:
            with exclusive(self.builder.context.progress.note):
                runs = worker.bench(self.at, runs=BENCH_RUNS, warmup=BENCH_WARMUP)
        return Step(step=step, bytes=size, p50_ms=None if runs is None else median(runs), verdicts=verdicts)

    def _written(self, mixes: Sequence[Mix]) -> list[tuple[Path, int]]:
        wanted = [mix.model_dump(mode="json") for mix in mixes]
        sizes = self._call("mixes", mixes=wanted, on_cpu=not self.builder.runnable)["bytes"]
        return [(self.graphs / f"{index}.onnx", size) for index, size in enumerate(sizes)]

    def _call(self, operation: str, **request: object) -> dict[str, Any]:
        """An operation over this variant's graphs, in a process that makes graphs."""
        return self.builder.graphs.makers.call(
            operation,
            output=str(self.graphs),
            variant=self.variant.model_dump(mode="json"),
            ranges=None if self.ranges is None else str(self.ranges),
            **request,
        )

    def _load(self, worker: Worker, graph: Path) -> None:
        graph.replace(self.graphs / MODEL_FILE)
        worker.call("load", bundle=str(self.bundle), verify="none", selftest=False, warmup=False)

    def _error(self, worker: Worker) -> float:
        """Mean over the cases of the outputs' square difference to the reference, over their square."""
        errors = []
        for case, inputs, expected in zip(self.cases, self.inputs, self.expected, strict=True):
            actual = worker.run(inputs)
            for name, wanted in expected.items():
                if wanted.dtype.kind != "f" or not wanted.size:
                    continue
                left, right = wanted.astype(np.float64), actual[name].astype(np.float64)
                if (mask := case.mask(name, inputs)) is not None:
                    left, right = left[mask != 0], right[mask != 0]
                error = float(np.square(left - right).sum() / max(float(np.square(left).sum()), 1e-30))
                errors.append(min(error, MOST_ERROR) if np.isfinite(error) else MOST_ERROR)
        return float(np.mean(errors)) if errors else 0.0
