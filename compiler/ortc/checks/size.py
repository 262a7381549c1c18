"""The size budget against the weights alone, where their number is known without loading them."""

from collections.abc import Iterator

from ortc.diagnostics import Diagnostic
from ortc.load import LoadedProfile, LoadedSpec
from ortc.resolve import variants_for
from ortc.rules import checks as rules
from ortc.units import format_bytes
from ortc.weights import find_weights, least_bytes


def check(loaded: LoadedSpec, profiles: dict[str, LoadedProfile]) -> Iterator[Diagnostic]:
    """Budgets that the weights alone exceed in the smallest variant that the target may use."""
    budgets = {
        name: loaded.spec.targets[name].size_budget or item.profile.gates.size_budget for name, item in profiles.items()
    }
    if not any(budgets.values()) or (found := find_weights(loaded)) is None:
        return
    for name, item in profiles.items():
        budget, profile = budgets[name], item.profile
        precision = loaded.spec.targets[name].precision or profile.precision
        allowed = variants_for(profile, precision)
        if not budget or not allowed:
            continue
        need, smallest = min(((least_bytes(found, variant), variant) for variant in allowed), key=lambda pair: pair[0])
        if budget >= need:
            continue
        yield Diagnostic(
            rules.SIZE_IMPOSSIBLE if budget < need * found.certain_share else rules.SIZE_UNLIKELY,
            f"the size budget of `{name}` is {format_bytes(budget)}, and {found.elements:,} parameters take "
            f"{format_bytes(need)} in {smallest.precision}",
            loaded.document.locate(("targets", name, "size_budget")),
            help="raise the budget, allow a smaller precision, or choose a smaller model",
        )
