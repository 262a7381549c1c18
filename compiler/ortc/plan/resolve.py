"""From what a user wrote to what will be done: `(Spec, profiles) -> Plan`, pure."""

import math
from collections.abc import Mapping
from typing import Literal

from ortc import __version__
from ortc.plan.masks import mask_of
from ortc.plan.plan import (
    AccuracyPlan,
    AxisPlan,
    BudgetPlan,
    ExportPlan,
    ImagePlan,
    InputPlan,
    LeftOut,
    Plan,
    ProviderPlan,
    RuntimePlan,
    Search,
    SessionPlan,
    Shape,
    TargetPlan,
    TuningPlan,
    VariantPlan,
    settled,
)
from ortc.plan.precision_mix import is_asked_for
from ortc.plan.shape_matrix import corners, shape_matrix
from ortc.spec.accuracy import Accuracy
from ortc.spec.budgets import Budgets
from ortc.spec.deployment import MaskSpec, Spec, Target
from ortc.spec.model_sources import has_random_weights
from ortc.spec.profile import Engine, Runtime, TargetProfile, Tuning, Variant
from ortc.spec.relations import parse_relation
from ortc.spec.runtimes import ir_version_for_opset, pins, runtime
from ortc.spec.vocabulary import STRING, Objective, Platform, Precision

"""The input that says which positions are real; the name that transformers gives it."""

NRMSE, SPEARMAN = 0.3, 0.9
"""Limits that a spec does not say, unless it allows less of its cosine."""
MUST_SAVE = 0.1
"""Share of the latency budget that a variant must save under `balanced`, where the spec says none."""

_PERCENTILES = ("p50", "p90", "p99")


def resolve(
    spec: Spec,
    profiles: Mapping[str, TargetProfile],
    targets: tuple[str, ...] = (),
    *,
    search: Search = "full",
    variant: str | None = None,
) -> Plan:
    """The plan of a spec whose cross-checks passed.

    Args:
        spec: the parsed spec.
        profiles: profile of each target, by the target's name.
        targets: names of the targets to build; all when empty.
        search: how far to look.
        variant: the only one to try, or its mix, whatever the precision asked for; or None.
    """
    export = _export(spec)
    declared = tuple(_target(spec, name, profiles[name], search, variant) for name in spec.targets)
    planned = tuple(target for target in declared if not targets or target.name in targets)
    cases, skipped = shape_matrix(export.axes, padded_axis(export))
    if search != "full":
        cases, skipped = corners(export.axes, cases, skipped, {target.measure_at for target in planned})
    return Plan(
        ortc_version=__version__,
        name=spec.name,
        version=spec.version,
        search=search,
        variant=variant,
        # What judges is the same whichever of the spec's targets are built.
        holds_out=any(target.calibrates for target in declared),
        model=spec.model,
        export=export,
        accuracy=_accuracy(spec.accuracy),
        cases=cases,
        skipped_cases=skipped,
        targets=planned,
    )


def _accuracy(spec: Accuracy) -> AccuracyPlan:
    relative = math.sqrt(2 - 2 * spec.cosine) if spec.relative_error is None else spec.relative_error
    nrmse = max(NRMSE, relative) if spec.nrmse is None else spec.nrmse
    left = math.sqrt(max(0.0, 1 - nrmse**2))
    return AccuracyPlan(
        max_abs=spec.max_abs,
        cosine=spec.cosine,
        relative_error=relative,
        nrmse=nrmse,
        spearman=min(SPEARMAN, left) if spec.spearman is None else spec.spearman,
        top1_agreement=spec.top1_agreement,
        answer_cosine=spec.answer_cosine,
        answer_f1=spec.answer_f1,
        answer_top1=spec.answer_top1,
        answer_token_errors=spec.answer_token_errors,
        samples=spec.samples,
        embeddings=spec.embeddings,
        metric=spec.metric,
    )


def padded_axis(export: ExportPlan) -> str | None:
    """The axis that an attention mask pads: the mask's last one. None for models without a mask.

    Inputs that are still to be derived are those of a text model when a `sequence` axis is declared.
    """
    if export.inputs is None:
        return "sequence" if any(axis.name == "sequence" for axis in export.axes) else None
    mask = mask_of(export.inputs)
    last = None if mask is None else mask.shape[-1]
    return last if isinstance(last, str) else None


def _meaning(mask: MaskSpec | None, name: str) -> Literal["read", "padding"] | None:
    """What the value 1 of an input says of a position; None for an input that is not the declared mask."""
    if mask is None or mask.input != name:
        return None
    return "padding" if mask.padded else "read"


def _export(spec: Spec) -> ExportPlan:
    inputs = None
    if spec.export.inputs is not None:
        inputs = tuple(
            InputPlan(
                name=name,
                dtype=tensor.dtype,
                shape=tensor.shape,
                range=tensor.range,
                fill=tensor.fill,
                examples=tensor.examples,
                mask=_meaning(spec.export.mask, name),
            )
            for name, tensor in spec.export.inputs.items()
        )
    return ExportPlan(
        opset=spec.export.shipped_opset,
        ir_version=ir_version_for_opset(spec.export.shipped_opset),
        exporter=spec.export.exporter,
        axes=tuple(
            AxisPlan(
                name=name,
                min=axis.min,
                typical=axis.min if axis.typical is None else axis.typical,
                max=axis.max,
                multiple_of=axis.multiple_of,
                equals=None if axis.equals is None else parse_relation(axis.equals),
            )
            for name, axis in spec.export.dynamic_axes.items()
        ),
        inputs=inputs,
        outputs=spec.export.outputs,
    )


def _target(spec: Spec, name: str, profile: TargetProfile, search: Search, forced: str | None) -> TargetPlan:
    target = spec.targets[name]
    axes = _export(spec).axes
    precision = target.precision or profile.precision
    platforms = target.platforms or profile.default_platforms or profile.platforms
    wanted = profile.variants if forced else variants_for(profile, precision)
    variants: list[VariantPlan] = []
    left_out: list[LeftOut] = []
    for variant in wanted:
        if forced is not None and not is_asked_for(forced, variant):
            continue
        reason = why_not(spec, engine_of(profile, variant), variant, platforms)
        if reason is None and search == "quick" and forced is None and not variant.quick:
            reason = "a full search tries it"
        if reason is None and search == "none" and variants:
            reason = "not looked at: `--search none` takes the first"
        if reason is None:
            variants.append(_variant(variant, profile))
        else:
            left_out.append(LeftOut(variant=variant.name, reason=reason))
    if search == "quick" and forced is None:
        tried = {variant.name for variant in variants}
        others = {variant.name: variant.stands_in_for for variant in wanted if variant.stands_in_for in tried}
        variants = [variant.model_copy(update={"stands_in_for": others.get(variant.name)}) for variant in variants]
    at = target.latency_budget.at if target.latency_budget else {}
    return TargetPlan(
        name=name,
        profile=profile.name,
        description=profile.description,
        platforms=platforms,
        requires_gpu=profile.requires_gpu,
        precision=precision,
        objective=target.objective,
        must_save=MUST_SAVE if target.must_save is None else target.must_save,
        variants=tuple(variants),
        left_out=tuple(left_out),
        tuning=tuple(
            TuningPlan(
                name=entry.name,
                concurrency=entry.concurrency,
                intra_op=entry.intra_op,
                options=entry.options,
                config_entries=entry.config_entries,
            )
            for entry in profile.tuning
            if _is_tuned_for(target.objective, entry) and (search == "full" or (search == "quick" and entry.quick))
        ),
        graph_levels=profile.graph_levels,
        measure_at=Shape(sizes=tuple(settled(axes, {**{axis.name: axis.typical for axis in axes}, **at}).items())),
        budgets=_budgets(target, profile),
        prepack=target.prepack,
        batch_invariance=target.batch_invariance,
        unmeasured=target.unmeasured,
        image=None
        if profile.image is None
        else ImagePlan(
            base_image=profile.image.base_image, python=profile.image.python, template=profile.image.template
        ),
    )


def _is_tuned_for(objective: Objective, tuning: Tuning) -> bool:
    """Whether session settings are tried for an objective; `balanced` races for latency."""
    return objective in tuning.objectives or (objective == "balanced" and "latency" in tuning.objectives)


def engine_of(profile: TargetProfile, variant: Variant) -> Engine:
    """What a variant runs on."""
    if variant.engine is not None:
        return profile.engines[variant.engine]
    return Engine(
        platforms=profile.platforms,
        runtime=profile.runtime,
        execution_providers=profile.execution_providers,
        session=profile.session,
    )


def why_not(spec: Spec, engine: Engine, variant: Variant, platforms: tuple[Platform, ...]) -> str | None:
    """Why a variant cannot be tried for a spec; None when it can."""
    missing = [platform for platform in platforms if platform not in engine.platforms]
    if missing:
        return f"{engine.runtime.package} is not for {' and '.join(missing)}, which the target promises"
    known = runtime(engine.runtime.package, engine.runtime.version)
    if takes_strings(spec) and engine.runtime.package != TAKES_STRINGS:
        return f"inputs are strings, which {engine.runtime.package} does not take"
    if spec.export.shipped_opset > known.max_opset or ir_version_for_opset(spec.export.shipped_opset) > known.max_ir:
        return f"{known.package} {known.version} reaches opset {known.max_opset}"
    calibrated = variant.quantization is not None and variant.quantization.is_calibrated
    if calibrated and spec.accuracy.samples is None and not has_random_weights(spec.model):
        return "calibration needs real inputs: `accuracy.samples`"
    return None


TAKES_STRINGS = "onnxruntime"
"""The package of runtimes that bundles with string inputs ship."""


def takes_strings(spec: Spec) -> bool:
    """Whether a declared input is of strings."""
    return any(tensor.dtype == STRING for tensor in (spec.export.inputs or {}).values())


def variants_for(profile: TargetProfile, precision: Precision) -> tuple[Variant, ...]:
    """The profile's variants that a precision allows; `auto` allows all."""
    return tuple(variant for variant in profile.variants if precision in ("auto", variant.precision))


def _variant(variant: Variant, profile: TargetProfile) -> VariantPlan:
    engine = engine_of(profile, variant)
    first, *others = engine.execution_providers
    providers = (
        ProviderPlan(name=first.name, options={**first.options, **variant.provider_options}),
        *(ProviderPlan(name=provider.name, options=provider.options) for provider in others),
    )
    return VariantPlan(
        name=variant.name,
        precision=variant.precision,
        quantization=variant.quantization,
        fallback=variant.fallback,
        rewrites=variant.rewrites,
        offline=variant.offline,
        runtime=_runtime(engine.runtime),
        session=SessionPlan(
            options=engine.session.options,
            config_entries={**engine.session.config_entries, **variant.config_entries},
            threads=engine.session.threads,
            environment=engine.session.environment,
            providers=providers,
        ),
    )


def _runtime(declared: Runtime) -> RuntimePlan:
    return RuntimePlan(
        package=declared.package,
        version=declared.version,
        minimum_version=declared.minimum_version,
        pins=declared.pins,
        pins_sha256=pins(declared.pins).sha256,
    )


def _budgets(target: Target, profile: TargetProfile) -> BudgetPlan:
    limits = {key: budget_of(target, profile, key) for key in Budgets.model_fields}
    if target.latency_budget is not None:
        limits |= {f"latency_budget.{name}": getattr(target.latency_budget, name) for name in _PERCENTILES}
    return BudgetPlan(limits={key: limit for key, limit in limits.items() if limit is not None})


def budget_of(target: Target, profile: TargetProfile, key: str) -> int | float | None:
    """The limit of a budget: the spec's own where it has one, else the profile's."""
    own: int | float | None = getattr(target, key)
    default: int | float | None = getattr(profile.gates, key)
    return default if own is None else own
