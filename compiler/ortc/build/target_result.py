"""What one target's part of a build gives: the report, and the bundle to write."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from ortc.build.context import Context
from ortc.build.dependencies import FROM_REMOTE, dependencies
from ortc.build.stage import Action
from ortc.build.stage_results import Sums
from ortc.build.stages import BUNDLE
from ortc.build.tried import Tried
from ortc.bundle.assemble import Material, assemble
from ortc.bundle.integrity import own_files
from ortc.bundle.manifest import MEASUREMENTS, PROVENANCE, DecisionInfo
from ortc.bundle.publish import is_intact, seal, stamp
from ortc.bundle.supply_chain.provenance import Dependency, provenance
from ortc.bundle.supply_chain.sbom import performance
from ortc.bundle.tradeoff_plot import trade_svg
from ortc.common.digests import templates_digest
from ortc.common.errors import StageError
from ortc.evaluation.report import Race, TargetReport
from ortc.execution.worker import Worker
from ortc.plan.plan import TargetPlan
from ortc.spec.runtimes import extras


@dataclass(frozen=True)
class TargetBuild:
    """What is needed to write a target's bundle, and the report of how it came about."""

    plan: TargetPlan
    report: TargetReport
    winner: Tried | None
    race: Race | None
    interpreter: Path | None


@dataclass(frozen=True)
class Shipment:
    """The bundle of a target: what decides its bytes, whether it is published already, and how it is written.

    `dependencies` are named in its provenance.
    """

    built: TargetBuild
    context: Context
    material: Material
    dependencies: tuple[Dependency, ...]
    action: Action[Sums]

    @classmethod
    def of(cls, built: TargetBuild, context: Context, material: Material) -> Shipment:
        """The bundle of a target, with everything that decides its bytes.

        Raises:
            StageError: the code of an entry point cannot be found any more.
        """
        found = dependencies(context, material, built.plan)
        inputs = {
            "plan": context.plan.slice(built.plan.name).digest(),
            "files": context.workspace.fetched.digests(),
            "opened": [[file.name, file.sha256] for file in material.opened],
            "left out": [
                context.workspace.fetched.left_out,
                material.exported.parts_left_out,
                material.exported.inputs_left_out,
            ],
            "cases": material.cases_key,
            "exporter": [material.exported.exporter, material.exporter_reason],
            "variant": None
            if built.winner is None
            else [built.winner.key, built.winner.made.level, built.winner.made.session.model_dump(mode="json")],
            "invariance": None if built.winner is None or built.winner.check is None else built.winner.check.invariance,
            "report": built.report.model_dump(mode="json"),
            "tools": context.tools,
            "stamp": stamp(),
            "code": [BUNDLE.code_sha256, templates_digest()],
            "extras": [extra.sha256 for extra in extras()],
            # But for what a remote cache gave: the bundle is the same, whoever computed it.
            "dependencies": [entry.model_dump(mode="json") for entry in found if entry.role != FROM_REMOTE],
        }
        return cls(built, context, material, found, BUNDLE.action(built.plan.name, inputs))

    @property
    def subject(self) -> str:
        """What the bundle's cache entry is about."""
        return f"{self.context.plan.name}: {self.built.plan.name}"

    def is_published(self, place: Path) -> bool:
        """Whether the very bundle lies there already, whole."""
        done = self.context.workspace.store.find(BUNDLE.name, self.action.inputs)
        return done is not None and is_intact(place, BUNDLE.read(done.result).sums)

    def keep(self, sums: str) -> None:
        """Note that the bundle was published with a SHA256SUMS of this digest."""
        result = Sums(sums=sums).model_dump(mode="json")
        self.context.workspace.store.put(BUNDLE.name, self.action.inputs, result, self.subject)

    def write(self, directory: Path) -> None:
        """Write the bundle and prove it: digests and golden answers, in its own runtime, as a user would.

        Raises:
            StageError: the self-test fails.
        """
        built, context = self.built, self.context
        if built.winner is None:
            raise StageError(f"target `{built.plan.name}` has no variant to ship")
        check = built.winner.check
        manifest = assemble(
            directory,
            self.material,
            built.plan,
            built.winner.made,
            check=check or built.winner.on_cpu,
            batch_invariant=None
            if check is None or check.invariance is None
            else check.is_invariant(context.plan.accuracy.max_abs),
            provisional=built.report.status == "provisional",
            decisions=tuple(
                DecisionInfo(variant=entry.variant, outcome=entry.outcome, reason=entry.reason)
                for entry in built.report.decisions
            ),
        )
        place = directory / MEASUREMENTS
        place.mkdir()
        sealed = seal(directory, manifest)
        document = {
            "format_version": 1,
            "host": context.host.model_dump(mode="json"),
            "verdicts": [verdict.model_dump(mode="json") for verdict in built.report.verdicts],
            "numbers": None if built.report.numbers is None else built.report.numbers.model_dump(mode="json"),
            "race": None if built.race is None else built.race.model_dump(mode="json"),
            "trades": [trade.model_dump(mode="json") for trade in built.report.trades],
        }
        fingerprint = context.host.fingerprint()
        card = performance(sealed, fingerprint, built.report.numbers, built.report.verdicts)
        beside = {
            f"{MEASUREMENTS}/{fingerprint}.json": json.dumps(document, indent=1) + "\n",
            f"{MEASUREMENTS}/{fingerprint}.cdx.json": card,
            PROVENANCE: provenance(sealed, own_files(directory, sealed), self.dependencies),
        }
        for trade in built.report.trades:
            # Times differ from run to run: beside what is signed, like every other measurement.
            if (
                plot := trade_svg(trade, f"{sealed.name} {sealed.version}, {sealed.target}: {trade.variant}")
            ) is not None:
                beside[f"{MEASUREMENTS}/{fingerprint}.trade.svg"] = plot
        (directory / PROVENANCE).parent.mkdir()
        for name, text in beside.items():
            (directory / name).write_text(text, "utf-8")
            os.utime(directory / name, (sealed.stamp, sealed.stamp))
        if built.interpreter is not None:
            with Worker.for_bundle(built.plan.name, built.interpreter, directory) as worker:
                worker.call("load", bundle=str(directory), verify="full", selftest=True, warmup=True)
