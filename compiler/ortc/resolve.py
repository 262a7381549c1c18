"""From what a user wrote to what will be done: `(Spec, profiles) -> Plan`, pure."""

from collections.abc import Mapping
from typing import Literal

from ortc import __version__
from ortc.matrix import shape_matrix
from ortc.plan import (
    AccuracyPlan,
    AxisPlan,
    BudgetPlan,
    ExportPlan,
    ImagePlan,
    InputPlan,
    LatencyPlan,
    Plan,
    ProviderPlan,
    RuntimePlan,
    SessionPlan,
    Shape,
    TargetPlan,
    VariantPlan,
)
from ortc.spec import Precision, Spec, Target
from ortc.target import TargetProfile, Variant
from ortc.versions import ir_version_for_opset, pins

ATTENTION_MASK = "attention_mask"
"""The input that says which positions are real; the name that transformers gives it."""

_PERCENTILES: tuple[Literal["p50", "p90", "p99"], ...] = ("p50", "p90", "p99")


def resolve(spec: Spec, profiles: Mapping[str, TargetProfile], targets: tuple[str, ...] = ()) -> Plan:
    """The plan of a spec whose cross-checks passed.

    Args:
        spec: the parsed spec.
        profiles: profile of each target, by the target's name.
        targets: names of the targets to build; all when empty.
    """
    export = _export(spec)
    cases, skipped = shape_matrix(export.axes, padded_axis(export))
    return Plan(
        ortc_version=__version__,
        name=spec.name,
        version=spec.version,
        model=spec.model,
        export=export,
        accuracy=AccuracyPlan(
            max_abs=spec.accuracy.max_abs,
            cosine=spec.accuracy.cosine,
            top1_agreement=spec.accuracy.top1_agreement,
            samples=spec.accuracy.samples,
            metric=spec.accuracy.metric,
        ),
        cases=cases,
        skipped_cases=skipped,
        targets=tuple(
            _target(name, target, profiles[name], export.axes)
            for name, target in spec.targets.items()
            if not targets or name in targets
        ),
    )


def padded_axis(export: ExportPlan) -> str | None:
    """The axis that an attention mask pads: the mask's last one. None for models without a mask.

    Inputs that are still to be derived are those of a text model when a `sequence` axis is declared.
    """
    if export.inputs is None:
        return "sequence" if any(axis.name == "sequence" for axis in export.axes) else None
    for tensor in export.inputs:
        if tensor.name == ATTENTION_MASK and tensor.shape and isinstance(tensor.shape[-1], str):
            return tensor.shape[-1]
    return None


def _export(spec: Spec) -> ExportPlan:
    inputs = None
    if spec.export.inputs is not None:
        inputs = tuple(
            InputPlan(name=name, dtype=tensor.dtype, shape=tensor.shape, range=tensor.range, fill=tensor.fill)
            for name, tensor in spec.export.inputs.items()
        )
    return ExportPlan(
        opset=spec.export.opset,
        ir_version=ir_version_for_opset(spec.export.opset),
        exporter=spec.export.exporter,
        axes=tuple(
            AxisPlan(
                name=name,
                min=axis.min,
                typical=axis.min if axis.typical is None else axis.typical,
                max=axis.max,
                multiple_of=axis.multiple_of,
            )
            for name, axis in spec.export.dynamic_axes.items()
        ),
        inputs=inputs,
        outputs=spec.export.outputs,
    )


def _target(name: str, target: Target, profile: TargetProfile, axes: tuple[AxisPlan, ...]) -> TargetPlan:
    precision = target.precision or profile.precision
    at = target.latency_budget.at if target.latency_budget else {}
    return TargetPlan(
        name=name,
        profile=profile.name,
        description=profile.description,
        platforms=target.platforms or profile.default_platforms or profile.platforms,
        requires_gpu=profile.requires_gpu,
        runtime=RuntimePlan(
            package=profile.runtime.package,
            version=profile.runtime.version,
            minimum_version=profile.runtime.minimum_version,
            pins=profile.runtime.pins,
            pins_sha256=pins(profile.runtime.pins).sha256,
        ),
        session=SessionPlan(
            options=profile.session.options,
            config_entries=profile.session.config_entries,
            threads=profile.session.threads,
            environment=profile.session.environment,
            providers=tuple(
                ProviderPlan(name=provider.name, options=provider.options) for provider in profile.execution_providers
            ),
        ),
        precision=precision,
        objective=target.objective,
        variants=tuple(_variant(variant) for variant in variants_for(profile, precision)),
        graph_levels=profile.graph_levels,
        measure_at=Shape(sizes=tuple((axis.name, at.get(axis.name, axis.typical)) for axis in axes)),
        budgets=_budgets(target, profile),
        batch_invariance=target.batch_invariance,
        unmeasured=target.unmeasured,
        image=ImagePlan(
            base_image=profile.image.base_image, python=profile.image.python, template=profile.image.template
        ),
    )


def variants_for(profile: TargetProfile, precision: Precision) -> tuple[Variant, ...]:
    """The profile's variants that a precision allows; `auto` allows all."""
    return tuple(variant for variant in profile.variants if precision in ("auto", variant.precision))


def _variant(variant: Variant) -> VariantPlan:
    return VariantPlan(
        name=variant.name,
        precision=variant.precision,
        quantization=variant.quantization,
        operators=variant.operators,
        smooth=variant.smooth,
        weight_only=variant.weight_only,
        offline=variant.offline,
    )


def _budgets(target: Target, profile: TargetProfile) -> BudgetPlan:
    latency = None
    if target.latency_budget is not None:
        limits = ((key, getattr(target.latency_budget, key)) for key in _PERCENTILES)
        latency = LatencyPlan(percentiles=tuple((key, limit) for key, limit in limits if limit is not None))
    return BudgetPlan(
        latency=latency,
        size=target.size_budget or profile.gates.size_budget,
        memory=target.memory_budget,
        start=target.start_budget or profile.gates.start_budget,
        min_speedup=target.min_speedup,
        max_cpu_nodes=target.max_cpu_nodes if target.max_cpu_nodes is not None else profile.placement.max_cpu_nodes,
    )
