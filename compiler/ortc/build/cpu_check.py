"""Check on the CPU provider what this host cannot run where it will be served: the graph's numbers, and nothing else.

ONNX Runtime has CPU kernels for the fused operators, too. Half precision is checked in float32 with every result
rounded to 16 bits (`passes/half_precision.py`). Which kernels the target has, how exact they are and how fast stays
unmeasured.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ortc.build.plain_runtime import CHECK_PINS, plain_target, plain_variant
from ortc.build.stages import VERIFY_ON_CPU
from ortc.build.task_metric import answers_verdicts
from ortc.build.tried import Tried
from ortc.build.variant import VariantBuilder
from ortc.bundle.assemble import Made, assemble
from ortc.evaluation.accuracy import CPU, check_bundle
from ortc.evaluation.gate_table import ON_CPU
from ortc.evaluation.report import Check
from ortc.passes.canonical import DATA_FILE, MODEL_FILE
from ortc.passes.half_precision import format_of
from ortc.passes.upcast import upcast
from ortc.plan.plan import ProviderPlan, TargetPlan, VariantPlan
from ortc.spec.runtimes import pins


def runner_on_cpu(builder: VariantBuilder) -> Path:
    """The interpreter of the plain CPU runtime."""
    answers = builder.model.material.answers
    pin_set = CHECK_PINS if answers is None else f"{CHECK_PINS}{answers.needs}"
    return builder.context.runner.interpreter(pin_set, (builder.context.host.platform,))


def is_checked(variant: VariantPlan) -> bool:
    """Whether a variant has a graph of its own: what the canonical one answers, the shape matrix has proven already."""
    return bool(variant.rewrites) or variant.quantization is not None


def check_on_cpu(builder: VariantBuilder, entry: Tried) -> Tried:
    """A made variant judged by its graph's answers at every case, in the plain CPU runtime without optimizations.

    Args:
        builder: of a target that this host cannot run.
        entry: one of its variants.
    """
    variant, context, model = entry.made.variant, builder.context, builder.model
    if entry.failed is not None or not is_checked(variant):
        return entry
    interpreter = runner_on_cpu(builder)
    metric, embeddings = model.metric, context.plan.accuracy.embeddings
    inputs = {
        "variant": entry.key,
        "model": model.key,
        "metric": None if metric is None else metric.code,
        "embeddings": None if embeddings is None else embeddings.model_dump(mode="json"),
        "runtime": pins(CHECK_PINS).sha256,
        "variables": context.variables,
        "on": CPU,
        "only": None,
        "host": context.host.fingerprint(),
    }

    def work(_: Path) -> Check:
        with tempfile.TemporaryDirectory(prefix="on-cpu-", dir=context.workspace.work) as scratch:
            bundle = Path(scratch) / "bundle"
            bundle.mkdir()
            made = for_cpu(entry.made, Path(scratch), builder.target)
            assemble(bundle, model.material, plain_target(builder.target), made)
            function = None if metric is None else metric.function
            cases = model.material.cases
            return check_bundle(
                interpreter,
                bundle,
                cases,
                model.factory(),
                function,
                None,
                embeddings,
                answers=() if (answers := model.answers_of(builder.target)) is None else answers.judged,
            )

    name = f"{builder.target.name}: {variant.name} on the CPU provider"
    check = context.run(VERIFY_ON_CPU.action(name, inputs), work).result
    found = answers_verdicts(context.plan, metric, check, variant.precision, builder.platform)
    verdicts = tuple(verdict.model_copy(update={"gate": f"{verdict.gate}{ON_CPU}"}) for verdict in found)
    return replace(entry, verdicts=(*verdicts, *entry.verdicts), on_cpu=check)


def for_cpu(made: Made, scratch: Path, target: TargetPlan) -> Made:
    """What is run instead: the same graph, or its float32 form, on the CPU provider with optimizations off.

    Args:
        made: a variant that this host cannot run.
        scratch: an existing directory, for as long as the result is used.
        target: of the variant.
    """
    provider = ProviderPlan(name=CPU, options={})
    session = made.variant.session.model_copy(update={"providers": (provider,), "config_entries": {}})
    variant = plain_variant(target, made.variant, session)
    files = made.files
    if format_of(variant.rewrites) is not None:

        def files() -> Mapping[str, Path]:
            source, output = scratch / "short", scratch / "float32"
            for place in (source, output):
                place.mkdir()
            for name, path in made.files().items():
                if name in (MODEL_FILE, DATA_FILE):
                    (source / name).write_bytes(path.read_bytes())
            upcast(source, output)
            return {path.name: path for path in output.iterdir()}

    return replace(made, variant=variant, level="off", files=files, tuning=None, carried={})
