"""The budgets of bytes against the weights alone, where their number is known without loading them, and the wheels."""

import math
from collections.abc import Iterator

from ortc.common.units import format_bytes
from ortc.inspection.weights import Found, find_weights, least_bytes
from ortc.plan.resolve import budget_of, engine_of, variants_for
from ortc.spec.diagnostics.diagnostic import Diagnostic
from ortc.spec.diagnostics.rules import checks as rules
from ortc.spec.load import LoadedProfile, LoadedSpec
from ortc.spec.profile import TargetProfile, Variant
from ortc.spec.runtimes import pins

STEP = 100_000
"""Bytes: what is short of a budget is shown rounded up to a tenth of a megabyte."""


def check(loaded: LoadedSpec, profiles: dict[str, LoadedProfile]) -> Iterator[Diagnostic]:
    """Budgets that the smallest variant that the target may use exceeds, by its weights and the wheels it runs on."""
    sizes = {name: budget_of(loaded.spec.targets[name], item.profile, "size_budget") for name, item in profiles.items()}
    downloads = {
        name: budget_of(loaded.spec.targets[name], item.profile, "download_budget") for name, item in profiles.items()
    }
    if not any((*sizes.values(), *downloads.values())):
        return
    found = find_weights(loaded)
    for name, item in profiles.items():
        precision = loaded.spec.targets[name].precision or item.profile.precision
        allowed = variants_for(item.profile, precision)
        if not allowed:
            continue
        if (budget := sizes[name]) and found is not None:
            yield from _size(loaded, name, int(budget), found, allowed)
        if budget := downloads[name]:
            yield from _download(loaded, name, int(budget), found, item.profile, allowed)


def _size(
    loaded: LoadedSpec, name: str, budget: int, found: Found, allowed: tuple[Variant, ...]
) -> Iterator[Diagnostic]:
    need, smallest = min(((least_bytes(found, variant), variant) for variant in allowed), key=lambda pair: pair[0])
    if budget >= need:
        return
    yield Diagnostic(
        rules.SIZE_IMPOSSIBLE if budget < need * found.certain_share else rules.SIZE_UNLIKELY,
        f"the size budget of `{name}` is {format_bytes(budget)}, and {found.elements:,} parameters take "
        f"{format_bytes(need)} in {smallest.precision}",
        loaded.document.locate(("targets", name, "size_budget")),
        help="raise the budget, allow a smaller precision, or choose a smaller model",
    )


def _download(
    loaded: LoadedSpec,
    name: str,
    budget: int,
    found: Found | None,
    profile: TargetProfile,
    allowed: tuple[Variant, ...],
) -> Iterator[Diagnostic]:
    """Of the first platform on which nothing can keep the budget."""
    platforms = loaded.spec.targets[name].platforms or profile.default_platforms or profile.platforms
    for platform in platforms:
        least: list[tuple[int, int, str]] = []
        for variant in allowed:
            runtime = engine_of(profile, variant).runtime
            if platform in (pinned := pins(runtime.pins)).platforms:
                weights = 0 if found is None else int(least_bytes(found, variant) * found.certain_share)
                wheels = pinned.loader_bytes(platform)
                least.append((wheels + weights, wheels, f"{runtime.package} {runtime.version}"))
        if not least or budget >= (smallest := min(least))[0]:
            continue
        need, wheels, runtime_name = smallest
        rest = f", and the weights at least {format_bytes(need - wheels)}" if need > wheels else ""
        yield Diagnostic(
            rules.DOWNLOAD_IMPOSSIBLE,
            f"the download budget of `{name}` is {format_bytes(budget)}, and on {platform} the wheels of "
            f"{runtime_name} take {format_bytes(wheels)}{rest}",
            loaded.document.locate(("targets", name, "download_budget")),
            help=f"promise at least {format_bytes(math.ceil(need / STEP) * STEP)}, or `size_budget`, which counts the "
            "model's files alone",
        )
        return
