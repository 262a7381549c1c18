"""Every cross-check that can be made before work starts."""

from collections.abc import Iterator

from ortc.diagnostics import Diagnostic
from ortc.errors import SpecError
from ortc.load import LoadedProfile, LoadedSpec, find_profile


def run_checks(loaded: LoadedSpec) -> Iterator[Diagnostic]:
    """What is wrong with a spec that follows the schema; not sorted."""
    profiles: dict[str, LoadedProfile] = {}
    for name, target in loaded.spec.targets.items():
        path = ("targets", name, "profile") if target.profile else ("targets", name)
        try:
            span = loaded.document.locate(path, key=not target.profile)
            profiles[name] = find_profile(target.profile or name, root=loaded.root, span=span)
        except SpecError as error:
            yield from error.diagnostics
