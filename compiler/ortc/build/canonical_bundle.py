"""The bundle that the exported graph is checked in: the plain CPU runtime, without any optimization."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ortc.build.context import Context
from ortc.build.plain_runtime import plain_target, plain_variant
from ortc.build.runner import Done
from ortc.bundle.assemble import Made, Material, assemble
from ortc.passes.canonical import DATA_FILE, MODEL_FILE
from ortc.passes.variant_graph import VariantGraph
from ortc.plan.plan import Plan, ProviderPlan, VariantPlan


def _canonical_variant(plan: Plan) -> VariantPlan:
    """The exported graph as it is, on the plain CPU runtime with every optimization off."""
    target = plan.targets[0]
    first = target.variants[0]
    session = first.session.model_copy(
        update={"providers": (ProviderPlan(name="CPUExecutionProvider", options={}),), "config_entries": {}}
    )
    variant = VariantPlan(
        name="canonical",
        precision="fp32",
        offline=False,
        runtime=first.runtime,
        session=session,
    )
    return plain_variant(target, variant, session)


def canonical_bundle(context: Context, material: Material, canonical: Done[Any]) -> Path:
    """Write a bundle of the graph as it was exported, with every optimization off, into a new directory."""
    workspace, exported = context.workspace, material.exported
    bundle = Path(tempfile.mkdtemp(prefix="canonical-", dir=workspace.work))
    size = sum(file.bytes for file in canonical.kept.kept if file.path in (MODEL_FILE, DATA_FILE))
    graph = VariantGraph(bytes=size, domains=exported.domains, operators=exported.operators)
    material = replace(material, exporter_reason=None, cases_key="", opened=())
    files = partial(workspace.proven, canonical)
    made = Made(variant=_canonical_variant(context.plan), level="off", files=files, graph=graph)
    assemble(bundle, material, plain_target(context.plan.targets[0]), made)
    return bundle
