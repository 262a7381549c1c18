"""A spec against the profiles of its targets."""

from collections.abc import Iterator

from ortc.common.suggest import closest, joined, listed
from ortc.plan.resolve import engine_of, variants_for, why_not
from ortc.spec import runtimes
from ortc.spec.diagnostics.diagnostic import Diagnostic
from ortc.spec.diagnostics.rules import checks as rules
from ortc.spec.load import LoadedProfile, LoadedSpec
from ortc.spec.profile import Engine, TargetProfile
from ortc.spec.vocabulary import Precision

CPU = "CPUExecutionProvider"


def check(loaded: LoadedSpec, profiles: dict[str, LoadedProfile]) -> Iterator[Diagnostic]:
    """Opset, precision, platform and placement, for each target whose profile is known."""
    yield from _opset(loaded, profiles)
    for name, item in profiles.items():
        yield from _target(loaded, name, item.profile)


def _opset(loaded: LoadedSpec, profiles: dict[str, LoadedProfile]) -> Iterator[Diagnostic]:
    """The opset against the exporter and each runtime; targets with the same runtime are named together."""
    export = loaded.spec.export
    exported = loaded.spec.model.source != "onnx"
    names = ("dynamo", "torchscript") if export.exporter == "auto" else (export.exporter,)
    limits = [runtimes.exporter_limits(name) for name in names]
    reach = max(limit.max_opset for limit in limits)
    usual = min(limits[0].default_opset, reach)
    span = loaded.document.locate(["export", "opset"])
    targets: dict[tuple[str, str], list[str]] = {}
    for name, item in profiles.items():
        if (runtime := known_runtime(item.profile)) is not None and not _loads(runtime, export.shipped_opset):
            targets.setdefault((runtime.package, runtime.version), []).append(name)
    for (package, version), affected in targets.items():
        runtime = runtimes.runtime(package, version)
        usable = min(usual, runtime.max_opset) if exported else runtime.max_opset
        exporter = f"the exporter reaches {reach}, " if exported else ""
        files = joined(sorted({f"targets/{profiles[name].profile.name}.yaml" for name in affected}), "and")
        yield Diagnostic(
            rules.OPSET,
            f"opset {export.shipped_opset} is not supported by {package} {version} "
            f"(target{'s' if len(affected) > 1 else ''} {listed(affected, 'and')})",
            span,
            f"{exporter}the runtime {'reaches ' if not exported else ''}{runtime.max_opset}",
            help=f"use `opset: {usable}`, or pin another runtime in {files}",
        )
    if exported and not targets and export.shipped_opset > reach:
        torch = runtimes.tool_versions()["torch"]
        yield Diagnostic(
            rules.OPSET,
            f"opset {export.shipped_opset} is beyond what the exporter of torch {torch} writes",
            span,
            f"`{export.exporter}` reaches {reach}",
            help=f"use `opset: {usual}`",
        )


def _loads(runtime: runtimes.Runtime, opset: int) -> bool:
    if opset > runtime.max_opset:
        return False
    try:
        return runtimes.ir_version_for_opset(opset) <= runtime.max_ir
    except runtimes.UnknownVersionError:
        return False


def known_runtime(profile: TargetProfile) -> runtimes.Runtime | None:
    """What is known about the runtime that a profile pins, None for one that is not in the table."""
    return runtime_of(profile)


def runtime_of(part: TargetProfile | Engine) -> runtimes.Runtime | None:
    """What is known about the runtime of a profile or engine, None for one that is not in the table."""
    try:
        return runtimes.runtime(part.runtime.package, part.runtime.version)
    except runtimes.UnknownVersionError:
        return None


def _target(loaded: LoadedSpec, name: str, profile: TargetProfile) -> Iterator[Diagnostic]:
    target, document = loaded.spec.targets[name], loaded.document
    precision = target.precision or profile.precision
    if target.precision is not None and not variants_for(profile, precision):
        offered = sorted({variant.precision for variant in profile.variants})
        yield Diagnostic(
            rules.PRECISION,
            f"precision `{precision}` is not offered by the profile `{profile.name}` (target `{name}`)",
            document.locate(("targets", name, "precision")),
            f"it offers {listed(offered, 'and')}",
            help=f"use {listed([*offered, 'auto'])}",
        )
    yield from _variants(loaded, name, profile, precision)
    for index, platform in enumerate(target.platforms or ()):
        if platform not in profile.platforms:
            meant = closest(platform, profile.platforms) if len(profile.platforms) == 1 else None
            yield Diagnostic(
                rules.PLATFORM,
                f"the profile `{profile.name}` does not serve {platform} (target `{name}`)",
                document.locate(("targets", name, "platforms", index)),
                help=f"use `{meant}`" if meant else f"it serves {listed(profile.platforms, 'and')}",
            )
    if target.must_save is not None and target.objective != "balanced":
        yield Diagnostic(
            rules.MUST_SAVE,
            f"`must_save` on the target `{name}`, whose objective is `{target.objective}`",
            document.locate(("targets", name, "must_save"), key=True),
            help="write `objective: balanced`, or remove it",
        )
    only_cpu = all(provider.name == CPU for provider in profile.execution_providers)
    for budget in ("max_cpu_nodes", "max_memcpy_nodes"):
        if getattr(target, budget) is not None and only_cpu:
            yield Diagnostic(
                rules.PLACEMENT,
                f"`{budget}` on the target `{name}`, which runs on the CPU only",
                document.locate(("targets", name, budget), key=True),
                help="remove it",
            )


def _variants(loaded: LoadedSpec, name: str, profile: TargetProfile, precision: Precision) -> Iterator[Diagnostic]:
    """A precision that the profile offers, but for nothing that this spec can have."""
    target, document = loaded.spec.targets[name], loaded.document
    platforms = target.platforms or profile.default_platforms or profile.platforms
    if any(platform not in profile.platforms for platform in platforms):
        return
    reasons: dict[str, None] = {}
    for variant in variants_for(profile, precision):
        if variant.engine is not None and variant.engine not in profile.engines:
            return
        engine = engine_of(profile, variant)
        known = runtime_of(engine)
        if known is None or not _loads(known, loaded.spec.export.shipped_opset):
            return  # told of the opset or of the profile already, or not known to be impossible
        reason = why_not(loaded.spec, engine, variant, platforms)
        if reason is None:
            return
        reasons[f"`{variant.name}`: {reason}"] = None
    if reasons:
        path = ["targets", name, "precision"] if target.precision is not None else ["targets", name]
        yield Diagnostic(
            rules.PRECISION,
            f"no variant of precision `{precision}` can be made (target `{name}`)",
            document.locate(path, key=target.precision is None),
            help="; ".join(reasons),
        )
