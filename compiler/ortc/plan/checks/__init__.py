"""Every cross-check that can be made before work starts; none of them imports torch or touches the network."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ortc.common.permissions import masked
from ortc.plan.checks import answers, axes, digests, profile, secret, size, sources, strings, target
from ortc.spec.diagnostics.diagnostic import Diagnostic, in_order
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.load import LoadedProfile, LoadedSpec, find_profile, load_spec
from ortc.spec.profile import TargetProfile

_MAX_FOUND = 100


@dataclass(frozen=True, slots=True)
class CheckedSpec:
    """A spec that can be built, as far as can be told without building it."""

    loaded: LoadedSpec
    loaded_profiles: dict[str, LoadedProfile]
    warnings: tuple[Diagnostic, ...]

    @property
    def profiles(self) -> dict[str, TargetProfile]:
        """The profile of each target, by the target's name."""
        return {name: item.profile for name, item in self.loaded_profiles.items()}


def check_spec(path: Path | str, overrides: tuple[str, ...] = (), *, with_digests: bool = True) -> CheckedSpec:
    """The spec in a file, with its profiles, once every check has passed.

    Args:
        path: The file; messages name it as given here.
        overrides: Arguments of `--set`, each `key.path=value`, applied in order.
        with_digests: Whether local files must have the digests that the spec declares of them.

    Raises:
        SpecError: with every error and warning (the first hundred), sorted by place.
    """
    try:
        loaded = load_spec(path, overrides)
    except SpecError as error:
        raise SpecError(map(without_values, error.diagnostics)) from None
    profiles, unknown = load_profiles(loaded)
    differing = digests.check(loaded) if with_digests else ()
    found = in_order(tuple(map(without_values, (*unknown, *run_checks(loaded, profiles), *differing))))
    if errors := [diagnostic for diagnostic in found if diagnostic.severity == "error"]:
        # Errors before warnings where there are too many of both to read.
        raise SpecError(found if len(found) <= _MAX_FOUND else errors[:_MAX_FOUND])
    return CheckedSpec(loaded, profiles, found[:_MAX_FOUND])


def without_values(diagnostic: Diagnostic) -> Diagnostic:
    """The same without what the spec took from the environment."""
    return replace(
        diagnostic,
        message=masked(diagnostic.message),
        label=masked(diagnostic.label),
        help=None if diagnostic.help is None else masked(diagnostic.help),
    )


def load_profiles(loaded: LoadedSpec) -> tuple[dict[str, LoadedProfile], tuple[Diagnostic, ...]]:
    """The profile of each target that has one, and why the others have none."""
    profiles: dict[str, LoadedProfile] = {}
    unknown: list[Diagnostic] = []
    for name, wanted in loaded.spec.targets.items():
        path = ("targets", name, "profile") if wanted.profile else ("targets", name)
        span = loaded.document.locate(path, key=not wanted.profile)
        try:
            profiles[name] = find_profile(wanted.profile or name, root=loaded.root, span=span)
        except SpecError as error:
            unknown += error.diagnostics
    return profiles, tuple(unknown)


def run_checks(loaded: LoadedSpec, profiles: dict[str, LoadedProfile]) -> Iterator[Diagnostic]:
    """What is wrong with a spec that follows the schema; not sorted.

    Args:
        loaded: The spec.
        profiles: The profile of each target, by the target's name; targets without one are passed over.
    """
    secrets = tuple(secret.check(loaded))
    hidden = {diagnostic.span for diagnostic in secrets}
    yield from secrets
    yield from (diagnostic for diagnostic in _others(loaded, profiles) if diagnostic.span not in hidden)


def _others(loaded: LoadedSpec, profiles: dict[str, LoadedProfile]) -> Iterator[Diagnostic]:
    yield from axes.check(loaded)
    yield from strings.check(loaded)
    yield from sources.check(loaded)
    yield from answers.check(loaded)
    for item in profiles.values():
        yield from profile.check(item)
    yield from target.check(loaded, profiles)
    yield from size.check(loaded, profiles)
