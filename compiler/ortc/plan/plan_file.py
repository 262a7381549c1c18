"""A plan as a file: the resolved spec, its profiles and the choices of `ortc plan`, from which the plan follows."""

from __future__ import annotations

import json
from typing import Any

from pydantic import Field

from ortc import __version__
from ortc.plan.checks import CheckedSpec
from ortc.plan.plan import Search
from ortc.spec.deployment import Spec
from ortc.spec.inheritance import KEY
from ortc.spec.profile import TargetProfile
from ortc.spec.runtimes import pins
from ortc.spec.vocabulary import Model, Name, Sha256

FORMAT_VERSION = 2


class PlanFile(Model):
    """What `ortc plan --print` writes and `ortc build --plan` reads."""

    format_version: int = Field(description="Version of the format of plan files.")
    ortc_version: str = Field(description="The ortc that made the plan.")
    search: Search = Field(description="How far the build looks for the best variant.")
    variant: Name | None = Field(description="The only variant that is tried, None for all.")
    targets: tuple[Name, ...] = Field(min_length=1, description="Targets of the spec that are built.")
    spec: Spec = Field(description="The spec with its base and its overrides.")
    profiles: dict[Name, TargetProfile] = Field(description="The profile of every target of the spec, by target.")
    pins: dict[str, Sha256] = Field(description="Digest of each pinned requirement set that the profiles name.")


def plan_file_text(
    checked: CheckedSpec, targets: tuple[str, ...] = (), *, search: Search = "full", variant: str | None = None
) -> str:
    """Render the plan file of a checked spec as JSON; `${env:NAME}` stays a reference.

    Args:
        checked: The spec and its profiles.
        targets: Names of the targets to build; all when empty.
        search: How far to look.
        variant: The only variant to try, or None.
    """
    spec = checked.loaded.spec
    document = {
        "format_version": FORMAT_VERSION,
        "ortc_version": __version__,
        "search": search,
        "variant": variant,
        "targets": [name for name in spec.targets if not targets or name in targets],
        "spec": _spec_data(checked),
        "profiles": {name: loaded.document.data for name, loaded in checked.loaded_profiles.items()},
        "pins": {name: pins(name).sha256 for name in pins_of(checked.profiles)},
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _spec_data(checked: CheckedSpec) -> dict[str, Any]:
    """The spec as written, with its base merged, its version resolved and the opset of its ONNX file."""
    spec = checked.loaded.spec
    data = {key: value for key, value in checked.loaded.written.data.items() if key != KEY}
    # A version is published with the bundle, whatever the environment says when the plan is built.
    data["version"] = spec.version
    if spec.export.opset is not None:
        data["export"] = {**data.get("export", {}), "opset": spec.export.opset}
    return data


def pins_of(profiles: dict[str, TargetProfile]) -> list[str]:
    """The names of the pinned requirement sets of some profiles, sorted."""
    runtimes = [profile.runtime for profile in profiles.values()]
    runtimes += [engine.runtime for profile in profiles.values() for engine in profile.engines.values()]
    return sorted({runtime.pins for runtime in runtimes})
