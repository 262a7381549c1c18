"""Assemble bundles: the same files whether a variant is being tried or is about to ship."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ortc.bundle.answers import Answers, write_answers
from ortc.bundle.golden_cases import golden_cases
from ortc.bundle.manifest import (
    PLACEMENT_KEYS,
    PROMISE_KEYS,
    AxisInfo,
    DecisionInfo,
    GoldenInfo,
    InputInfo,
    Manifest,
    ModelInfo,
    OutputInfo,
    OutputTolerance,
    PlacementInfo,
    Promises,
    Provenance,
    RuntimeInfo,
    SourceFileInfo,
    Tolerance,
    VariantInfo,
    promise_of,
    to_json,
)
from ortc.bundle.publish import stamp
from ortc.bundle.render import render
from ortc.bundle.session_file import Prepacked, session_file
from ortc.bundle.supply_chain.sbom import SBOM, sbom
from ortc.bundle.tensorrt_profiles import with_profiles
from ortc.common.permissions import masked
from ortc.evaluation.accuracy import CPU, ReferenceCase
from ortc.evaluation.accuracy_gates import LABEL_AGREEMENT
from ortc.evaluation.compare import Difference
from ortc.evaluation.footprint import loader_bytes
from ortc.evaluation.report import Check
from ortc.frontend.fetch import Fetched, FetchedFile
from ortc.inspection.model_files import loaded_files
from ortc.passes.canonical import DATA_FILE, MODEL_FILE, PREPACKED_FILE, Exported
from ortc.passes.variant_graph import VariantGraph
from ortc.plan.plan import AccuracyPlan, Plan, SessionPlan, TargetPlan, TuningPlan, VariantPlan
from ortc.spec.model_sources import HuggingFaceSource, has_random_weights
from ortc.spec.profile import GraphLevel
from ortc.spec.runtimes import extras, pins

UNFIT = "the weights are random (`model.weights: random`): the architecture is real, the answers mean nothing"
MEASURED_ROOM = 2.0
"""How many times the greatest difference that was measured a golden answer may be off on another machine."""


@dataclass(frozen=True)
class Material:
    """What every variant of a build has in common; `cases_key` is everything that decides the cases."""

    plan: Plan
    fetched: Fetched
    exported: Exported
    exporter_reason: str | None
    cases: tuple[ReferenceCase, ...]
    tools: dict[str, str]
    cases_key: str = ""
    opened: tuple[FetchedFile, ...] = ()
    """What the entry point of the model read by itself, such as its weights."""
    answers: Answers | None = None
    """What is around the tensors; None for bundles of tensors."""


@dataclass(frozen=True)
class Made:
    """A variant whose graph was made, at a graph level; `files` says where the graph's files lie, by name."""

    variant: VariantPlan
    level: GraphLevel
    files: Callable[[], Mapping[str, Path]]
    graph: VariantGraph
    tuning: TuningPlan | None = None
    prepacked: Prepacked | None = None
    carried: Mapping[str, Path] = field(default_factory=dict)
    """Files of the runtime that the bundle carries, by their place in it; none where packages are installed."""

    @property
    def session(self) -> SessionPlan:
        """What session.json says."""
        session = self.variant.session
        return session if self.tuning is None else self.tuning.apply(session)

    def packed(self, files: Callable[[], Mapping[str, Path]], graph: VariantGraph, prepacked: Prepacked) -> Made:
        """The same variant with a second graph, whose weights are packed."""
        return replace(self, files=files, graph=graph, prepacked=prepacked)


def tolerance(precision: str, accuracy: AccuracyPlan, check: Check | None = None, case: str | None = None) -> Tolerance:
    """How far golden outputs may be off: the promise for this precision, and what was measured of each output.

    Args:
        precision: of the variant.
        accuracy: the promises.
        check: of the variant at every case; None while it is being tried.
        case: the golden case, by which integers are judged.
    """
    if precision == "fp32":
        return Tolerance(max_abs=accuracy.max_abs, cosine=None)
    outputs: dict[str, OutputTolerance] = {}
    if check is not None:
        every = [entry for result in check.cases for entry in result.differences]
        for found in check.outputs:
            seen = max((entry.max_abs for entry in every if entry.output == found.output), default=0.0)
            spread = 0.0 if found.is_constant else accuracy.nrmse * found.scale
            most = max(MEASURED_ROOM * seen, spread, accuracy.max_abs)
            outputs[found.output] = OutputTolerance(max_abs=float(f"{most:.4g}"), is_constant=found.is_constant)
        here = [entry for result in check.cases if result.case == case for entry in result.differences]
        outputs |= {entry.output: _labels(entry, accuracy) for entry in here if entry.cosine is None}
    return Tolerance(max_abs=None, cosine=accuracy.cosine, relative_error=accuracy.relative_error, outputs=outputs)


def _labels(found: Difference, accuracy: AccuracyPlan) -> OutputTolerance:
    """As many labels may differ as the promise allows of so few, but one at least where there are two or more."""
    count = max(found.labels or 1, 1)
    least = LABEL_AGREEMENT if accuracy.top1_agreement is None else accuracy.top1_agreement
    wrong = round((1 - (1.0 if found.top1 is None else found.top1)) * count)
    allowed = max(wrong, min(math.ceil((1 - least) * count), count // 2))
    return OutputTolerance(top1_agreement=(count - allowed) / count)


def assemble(
    directory: Path,
    material: Material,
    target: TargetPlan,
    made: Made,
    *,
    check: Check | None = None,
    batch_invariant: bool | None = None,
    provisional: bool = False,
    decisions: tuple[DecisionInfo, ...] = (),
) -> Manifest:
    """Write a bundle, without its checksums, into an empty directory.

    Args:
        directory: where to.
        material: what the build knows of the model.
        target: the plan of the target.
        made: the variant's graph.
        check: what its answers were at every case, by which golden answers are judged; None while it is tried.
        batch_invariant: as measured; None where it was not or cannot be.
        provisional: some promise was not measured.
        decisions: what became of the other variants.
    """
    plan = material.plan
    model = directory / "model"
    model.mkdir()
    files = made.files()
    for name in (MODEL_FILE, DATA_FILE, PREPACKED_FILE):
        if name in files:
            shutil.copyfile(files[name], model / name)
    golden = _golden(directory, material, made, check)
    answers = None if material.answers is None else material.answers.of_target(target)
    manifest = _manifest(material, target, made, golden, batch_invariant, provisional=provisional, decisions=decisions)
    if answers is not None:
        around = write_answers(directory, answers, made.variant.precision, plan.accuracy)
        manifest = manifest.model_copy(update={"processing": around})
    served = with_profiles(made.session, material.exported.inputs, plan.export.axes)
    session = session_file(served, made.level, made.prepacked)
    pinned = pins(made.variant.runtime.pins)
    packages = pinned.packages(target.platforms)
    optional = {} if target.is_javascript else {extra.name: extra.packages(target.platforms) for extra in extras()}
    (directory / SBOM).write_text(sbom(manifest, packages, directory, optional, pinned.npm), "utf-8")
    for file in render(target, manifest, session, pinned):
        path = directory / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
    for place, source in made.carried.items():
        (directory / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, directory / place)
    (directory / "manifest.json").write_text(to_json(manifest), "utf-8")
    return manifest


def _manifest(
    material: Material,
    target: TargetPlan,
    made: Made,
    golden: tuple[GoldenInfo, ...],
    batch_invariant: bool | None,
    *,
    provisional: bool,
    decisions: tuple[DecisionInfo, ...],
) -> Manifest:
    plan, exported = material.plan, material.exported
    source, unfit = plan.model, unfit_reason(plan)
    return Manifest(
        name=plan.name,
        version=plan.version,
        target=target.name,
        platforms=target.platforms,
        fit_to_serve=unfit is None,
        unfit_reason=unfit,
        provisional=provisional,
        stamp=stamp(),
        model=ModelInfo(
            file=f"model/{MODEL_FILE}",
            bytes=made.graph.bytes,
            opset=plan.export.opset,
            ir_version=plan.export.ir_version,
            domains=made.graph.domains,
            operators=made.graph.operators,
            exporter=exported.exporter,
            exporter_reason=material.exporter_reason,
        ),
        inputs=tuple(
            InputInfo(name=tensor.name, dtype=tensor.dtype, shape=tensor.shape, range=tensor.range, end=tensor.end)
            for tensor in exported.inputs
        ),
        outputs=tuple(
            OutputInfo(name=tensor.name, dtype=tensor.dtype, shape=tensor.shape, labels=tensor.labels)
            for tensor in exported.outputs
        ),
        axes=tuple(AxisInfo.of(axis) for axis in plan.export.axes),
        runtime=_runtime(target, made.variant),
        variant=_variant(made, batch_invariant),
        placement=_placement(target, made),
        promises=_promises(target),
        golden=golden,
        warmup=(target.measure_at.as_dict(),),
        decisions=decisions,
        provenance=Provenance(
            plan_sha256=plan.slice(target.name).digest(),
            source=_source_name(plan),
            revision=getattr(source, "revision", None),
            files=tuple(SourceFileInfo(name=file.name, sha256=file.sha256) for file in loaded_sources(material)),
            licenses=_licenses(source),
            tools=material.tools,
        ),
        interface="tensors" if _takes_tensors_alone(material, target) else None,
        parts_left_out=(*material.fetched.left_out, *exported.parts_left_out),
        inputs_left_out=exported.inputs_left_out,
        files=(),
    )


def _licenses(source: object) -> dict[Literal["model", "adapter"], str]:
    """The licences that a spec states of the model and of its adapter."""
    if not isinstance(source, HuggingFaceSource):
        return {}
    stated: dict[Literal["model", "adapter"], str | None] = {
        "model": source.license,
        "adapter": None if source.adapter is None else source.adapter.license,
    }
    return {what: license_ for what, license_ in stated.items() if license_ is not None}


def _takes_tensors_alone(material: Material, target: TargetPlan) -> bool:
    """Whether a model that may take texts or images ships with its tensors alone."""
    source, answers = material.plan.model, material.answers
    if not isinstance(source, HuggingFaceSource):
        return False
    # Loaders in JavaScript give some answers, and take tensors for the rest.
    return not source.answers or (target.is_javascript and (answers is None or answers.of_target(target) is None))


def _variant(made: Made, batch_invariant: bool | None) -> VariantInfo:
    return VariantInfo(
        name=made.variant.name,
        precision=made.variant.precision,
        graph_level=made.level,
        tuning=None if made.tuning is None else made.tuning.name,
        batch_invariant=batch_invariant,
    )


def _runtime(target: TargetPlan, variant: VariantPlan) -> RuntimeInfo:
    return RuntimeInfo(
        package=variant.runtime.package,
        version=variant.runtime.version,
        minimum_version=variant.runtime.minimum_version,
        python=pins(variant.runtime.pins).pythons,
        loader_bytes=loader_bytes(variant, target),
    )


def unfit_reason(plan: Plan) -> str | None:
    """Why what is built of a plan is not fit to serve; None where it is."""
    return UNFIT if has_random_weights(plan.model) else None


def loaded_sources(material: Material) -> tuple[FetchedFile, ...]:
    """The model's files that were read: a file that is pinned and not read is no part of the bundle's making."""
    source, fetched = material.plan.model, material.fetched
    if not isinstance(source, HuggingFaceSource):
        return (*fetched.files, *material.opened)
    names = loaded_files(
        source,
        fetched.directory,
        fetched.digests(),
        material.plan.accuracy,
        derived=material.plan.export.inputs is None,
    )
    return tuple(file for file in fetched.files if file.name in names)


def _placement(target: TargetPlan, made: Made) -> PlacementInfo:
    # Where only the CPU is asked for, there is nothing that could fall back to it.
    alone = all(provider.name == CPU for provider in made.session.providers)
    return PlacementInfo(
        **{key: target.budgets.limit(key) for key in PLACEMENT_KEYS},
        shape_nodes={} if alone else made.graph.shape_nodes,
    )


def _promises(target: TargetPlan) -> Promises:
    limits = {promise_of(key): limit for key, limit in target.budgets.limits.items() if key in PROMISE_KEYS}
    return Promises(at=target.measure_at.as_dict(), latency=target.budgets.latency, limits=limits)


def _golden(directory: Path, material: Material, made: Made, check: Check | None) -> tuple[GoldenInfo, ...]:
    (directory / "golden").mkdir()
    entries = []
    for index, case in enumerate(golden_cases(material.cases)):
        inputs, outputs = f"golden/{index}.inputs.npz", f"golden/{index}.outputs.npz"
        shutil.copyfile(case.inputs, directory / inputs)
        shutil.copyfile(case.outputs, directory / outputs)
        allowed = tolerance(made.variant.precision, material.plan.accuracy, check, case.name)
        entries.append(
            GoldenInfo(
                name=case.name,
                inputs=inputs,
                outputs=outputs,
                tolerance=allowed,
                mask=case.padding.name if case.excluding and case.padding is not None else None,
                masked_outputs=case.excluding if case.excluding else None,
                mask_is_padding=case.padding is not None and case.padding.mask == "padding",
            )
        )
    return tuple(entries)


def _source_name(plan: Plan) -> str:
    source = plan.model
    name = getattr(source, "id", None) or getattr(source, "path", None) or getattr(source, "entrypoint", "")
    return masked(f"{source.source}:{name}")
