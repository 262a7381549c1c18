"""From a plan back to a spec and profiles that resolve to it, so that a plan is checked by what checks those.

Documents are rebuilt from the plan's own nodes in the order that specs and profiles have: messages point into the plan.
"""

from __future__ import annotations

from pathlib import Path

from ortc.plan.plan import Plan, TargetPlan, VariantPlan
from ortc.spec.deployment import Accuracy, Axis, Export, InputSpec, LatencyBudget, Spec, Target
from ortc.spec.diagnostics.source import Document, Entry, Mapping, Node, Scalar, Sequence
from ortc.spec.load import LoadedProfile, LoadedSpec
from ortc.spec.profile import Engine, ExecutionProvider, Image, Runtime, Session, TargetProfile, Tuning, Variant


def spec_of(plan: Plan, document: Document, root: Path) -> LoadedSpec:
    """The spec that a plan says the same as; values that are valid in a plan are taken over as they are.

    Args:
        plan: The plan.
        document: Where its values stand.
        root: What its relative paths resolve against.
    """
    export = plan.export
    inputs = None
    if export.inputs is not None:
        inputs = {
            tensor.name: InputSpec.model_construct(
                dtype=tensor.dtype, shape=tensor.shape, range=tensor.range, fill=tensor.fill
            )
            for tensor in export.inputs
        }
    spec = Spec.model_construct(
        api_version="ortc/v1alpha1",
        kind="ModelDeployment",
        name=plan.name,
        version=plan.version,
        model=plan.model,
        export=Export.model_construct(
            opset=export.opset,
            exporter=export.exporter,
            dynamic_axes={
                axis.name: Axis(min=axis.min, typical=axis.typical, max=axis.max, multiple_of=axis.multiple_of)
                for axis in export.axes
            },
            inputs=inputs,
            outputs=export.outputs,
        ),
        accuracy=Accuracy(**dict(plan.accuracy)),
        targets={target.name: _target(target) for target in plan.targets},
    )
    return LoadedSpec(spec, Document(document.source, _spec_node(document.root)), root)


def profile_of(target: TargetPlan, document: Document, index: int) -> LoadedProfile:
    """The profile that a target of a plan says the same as: each variant with an engine of its own.

    Args:
        target: The target.
        document: Where the values of its plan stand.
        index: Which target of the plan it is.
    """
    engines = {variant.name: _engine(target, variant) for variant in target.variants}
    first = engines[target.variants[0].name]
    profile = TargetProfile(
        api_version="ortc/v1alpha1",
        kind="TargetProfile",
        name=target.profile,
        description=target.description,
        platforms=target.platforms,
        requires_gpu=target.requires_gpu,
        runtime=first.runtime,
        execution_providers=first.execution_providers,
        session=first.session,
        precision=target.precision,
        engines=engines,
        variants=tuple(
            Variant(engine=variant.name, **variant.model_dump(exclude={"runtime", "session", "blocks", "exclude"}))
            for variant in target.variants
        ),
        tuning=tuple(Tuning(objectives=(target.objective,), **dict(entry)) for entry in target.tuning),
        graph_levels=target.graph_levels,
        image=Image(**dict(target.image)),
    )
    node = document.find(("targets", index))
    entries = dict(node.entries) if isinstance(node, Mapping) else {}
    nodes = _by_name(entries["variants"]).value
    if isinstance(nodes, Mapping):
        found = {name: Entry(entry.key, _engine_node(entry.value, entries)) for name, entry in nodes.entries.items()}
        engine = found[target.variants[0].name].value
        entries = (dict(engine.entries) if isinstance(engine, Mapping) else {}) | entries
        entries["engines"] = Entry(entries["variants"].key, Mapping(nodes.span, found))
    # Whose profile it was, the plan does not say; `ortc check` has warned when the plan was made.
    return LoadedProfile(profile, Document(document.source, Mapping(document.root.span, entries)), shipped=True)


def _engine(target: TargetPlan, variant: VariantPlan) -> Engine:
    session = variant.session
    return Engine(
        platforms=target.platforms,
        runtime=Runtime(**variant.runtime.model_dump(exclude={"pins_sha256"})),
        execution_providers=tuple(
            ExecutionProvider(name=provider.name, options=provider.options) for provider in session.providers
        ),
        session=Session(
            options=session.options,
            config_entries=session.config_entries,
            threads=session.threads,
            environment=session.environment,
        ),
    )


def _engine_node(variant: Node, target: dict[str, Entry]) -> Node:
    if not isinstance(variant, Mapping):
        return variant
    session = variant.entries["session"]
    entries = {"platforms": target["platforms"], "runtime": variant.entries["runtime"], "session": session}
    if isinstance(session.value, Mapping):
        entries["execution_providers"] = session.value.entries["providers"]
    return Mapping(variant.span, entries)


def _target(target: TargetPlan) -> Target:
    """The target of a spec; its budgets are numbers already, without units."""
    latency = None
    if target.budgets.latency is not None:
        limits = dict(target.budgets.latency.percentiles)
        latency = LatencyBudget.model_construct(
            p50=limits.get("p50"), p90=limits.get("p90"), p99=limits.get("p99"), at=target.measure_at.as_dict()
        )
    return Target.model_construct(
        profile=target.profile,
        platforms=target.platforms,
        # The profile's, which is the plan's: a variant that was asked for by name may be of another.
        precision=None,
        objective=target.objective,
        must_save=target.must_save if target.objective == "balanced" else None,
        latency_budget=latency,
        size_budget=target.budgets.size,
        download_budget=target.budgets.download,
        memory_budget=target.budgets.memory,
        start_budget=target.budgets.start,
        min_speedup=target.budgets.min_speedup,
        max_cpu_nodes=target.budgets.max_cpu_nodes,
        max_memcpy_nodes=target.budgets.max_memcpy_nodes,
        prepack=target.prepack,
        batch_invariance=target.batch_invariance,
        unmeasured=target.unmeasured,
    )


def _spec_node(root: Mapping) -> Mapping:
    entries = dict(root.entries)
    export, targets = root.entries["export"], root.entries["targets"]
    if isinstance(export.value, Mapping):
        inner = dict(export.value.entries)
        inner["dynamic_axes"] = _by_name(inner.pop("axes"))
        inner["inputs"] = _by_name(inner["inputs"])
        entries["export"] = Entry(export.key, Mapping(export.value.span, inner))
    entries["targets"] = _by_name(targets)
    if isinstance(named := entries["targets"].value, Mapping):
        found = {name: Entry(entry.key, _target_node(entry.value)) for name, entry in named.entries.items()}
        entries["targets"] = Entry(targets.key, Mapping(named.span, found))
    return Mapping(root.span, entries)


def _target_node(node: Node) -> Node:
    if not isinstance(node, Mapping):
        return node
    entries = dict(node.entries)
    if isinstance(budgets := entries["budgets"].value, Mapping):
        for name in ("size", "download", "memory", "start"):
            if name in budgets.entries:
                entries[f"{name}_budget"] = budgets.entries[name]
        for name in ("min_speedup", "max_cpu_nodes", "max_memcpy_nodes"):
            if name in budgets.entries:
                entries[name] = budgets.entries[name]
        entries["latency_budget"] = _latency(budgets.entries["latency"], entries["measure_at"])
    return Mapping(node.span, entries)


def _latency(latency: Entry, at: Entry) -> Entry:
    if not isinstance(latency.value, Mapping) or not isinstance(at.value, Mapping):
        return latency
    entries = _pairs(latency.value.entries["percentiles"].value)
    entries["at"] = Entry(at.key, Mapping(at.value.span, _pairs(at.value.entries["sizes"].value)))
    return Entry(latency.key, Mapping(latency.value.span, entries))


def _by_name(entry: Entry) -> Entry:
    """A list of mappings as one mapping by their names; the first of a name stands for all."""
    if not isinstance(entry.value, Sequence):
        return entry
    named: dict[str, Entry] = {}
    for item in entry.value.items:
        name = item.entries["name"].value if isinstance(item, Mapping) else None
        if isinstance(name, Scalar):
            named.setdefault(name.text, Entry(name.span, item))
    return Entry(entry.key, Mapping(entry.value.span, named))


def _pairs(node: Node) -> dict[str, Entry]:
    """A list of pairs as the entries of a mapping."""
    entries: dict[str, Entry] = {}
    for item in node.items if isinstance(node, Sequence) else ():
        if isinstance(item, Sequence) and isinstance(name := item.items[0], Scalar):
            entries.setdefault(name.text, Entry(name.span, item.items[1]))
    return entries
