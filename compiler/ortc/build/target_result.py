"""What one target's part of a build gives: the variants tried, the report, and the bundle to write."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ortc.build.context import Context
from ortc.build.dependencies import FROM_REMOTE, dependencies
from ortc.bundle.assemble import Made, Material, assemble
from ortc.bundle.integrity import own_files
from ortc.bundle.manifest import MEASUREMENTS, PROVENANCE, DecisionInfo
from ortc.bundle.publish import seal, stamp
from ortc.bundle.supply_chain.provenance import provenance
from ortc.bundle.supply_chain.sbom import performance
from ortc.bundle.tradeoff_plot import trade_svg
from ortc.common.digests import templates_digest
from ortc.common.errors import StageError
from ortc.evaluation.report import Check, Race, TargetReport, Verdict
from ortc.execution.code_closure import code_of
from ortc.execution.worker import Worker
from ortc.plan.plan import TargetPlan, TuningPlan
from ortc.spec.runtimes import extras


@dataclass(frozen=True)
class Tried:
    """A variant that was made and checked at the level it ended at; `on_cpu` is what its graph answers on the CPU
    provider, for a target that this host cannot run."""

    made: Made
    key: str
    check: Check | None
    verdicts: tuple[Verdict, ...]
    lowered: str | None
    on_cpu: Check | None = None

    @property
    def failed(self) -> Verdict | None:
        """The first gate it did not pass."""
        return next((verdict for verdict in self.verdicts if verdict.outcome != "pass"), None)

    def with_tuning(self, tuning: TuningPlan | None) -> Tried:
        """The same graph with other session settings."""
        return replace(self, made=replace(self.made, tuning=tuning))


@dataclass(frozen=True)
class TargetBuild:
    """What is needed to write a target's bundle, and the report of how it came about."""

    plan: TargetPlan
    report: TargetReport
    winner: Tried | None
    race: Race | None
    interpreter: Path | None

    def key(self, context: Context, material: Material) -> dict[str, Any]:
        """Everything that decides the bundle's bytes."""
        return {
            "plan": context.plan.slice(self.plan.name).digest(),
            "files": context.fetched.digests(),
            "opened": [[file.name, file.sha256] for file in material.opened],
            "left out": [
                context.fetched.left_out,
                material.exported.parts_left_out,
                material.exported.inputs_left_out,
            ],
            "cases": material.cases_key,
            "exporter": [material.exported.exporter, material.exporter_reason],
            "variant": None
            if self.winner is None
            else [self.winner.key, self.winner.made.level, self.winner.made.session.model_dump(mode="json")],
            "invariance": None if self.winner is None or self.winner.check is None else self.winner.check.invariance,
            "report": self.report.model_dump(mode="json"),
            "tools": context.tools,
            "stamp": stamp(),
            "code": [code_of("bundle"), templates_digest()],
            "extras": [extra.sha256 for extra in extras()],
            # But for what a remote cache gave: the bundle is the same, whoever computed it.
            "dependencies": [
                entry.model_dump(mode="json")
                for entry in dependencies(context, material, self.plan)
                if entry.role != FROM_REMOTE
            ],
        }

    def write(self, context: Context, material: Material, directory: Path) -> None:
        """Write the bundle and prove it: digests and golden answers, in its own runtime, as a user would.

        Raises:
            StageError: the self-test fails.
        """
        if self.winner is None:
            raise StageError(f"target `{self.plan.name}` has no variant to ship")
        check = self.winner.check
        manifest = assemble(
            directory,
            material,
            self.plan,
            self.winner.made,
            check=check or self.winner.on_cpu,
            batch_invariant=None
            if check is None or check.invariance is None
            else check.is_invariant(context.plan.accuracy.max_abs),
            provisional=self.report.status == "provisional",
            decisions=tuple(
                DecisionInfo(variant=entry.variant, outcome=entry.outcome, reason=entry.reason)
                for entry in self.report.decisions
            ),
        )
        place = directory / MEASUREMENTS
        place.mkdir()
        sealed = seal(directory, manifest)
        document = {
            "format_version": 1,
            "host": context.host.model_dump(mode="json"),
            "verdicts": [verdict.model_dump(mode="json") for verdict in self.report.verdicts],
            "numbers": None if self.report.numbers is None else self.report.numbers.model_dump(mode="json"),
            "race": None if self.race is None else self.race.model_dump(mode="json"),
            "trades": [trade.model_dump(mode="json") for trade in self.report.trades],
        }
        fingerprint = context.host.fingerprint()
        card = performance(sealed, fingerprint, self.report.numbers, self.report.verdicts)
        beside = {
            f"{MEASUREMENTS}/{fingerprint}.json": json.dumps(document, indent=1) + "\n",
            f"{MEASUREMENTS}/{fingerprint}.cdx.json": card,
            PROVENANCE: provenance(sealed, own_files(directory, sealed), dependencies(context, material, self.plan)),
        }
        for trade in self.report.trades:
            # Times differ from run to run: beside what is signed, like every other measurement.
            if (
                plot := trade_svg(trade, f"{sealed.name} {sealed.version}, {sealed.target}: {trade.variant}")
            ) is not None:
                beside[f"{MEASUREMENTS}/{fingerprint}.trade.svg"] = plot
        (directory / PROVENANCE).parent.mkdir()
        for name, text in beside.items():
            (directory / name).write_text(text, "utf-8")
            os.utime(directory / name, (sealed.stamp, sealed.stamp))
        if self.interpreter is not None:
            with Worker.for_bundle(self.plan.name, self.interpreter, directory) as worker:
                worker.call("load", bundle=str(directory), verify="full", selftest=True, warmup=True)
