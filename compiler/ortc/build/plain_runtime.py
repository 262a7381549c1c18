"""Targets for browsers and Node as ones of the plain CPU runtime, in which graphs are checked."""

from __future__ import annotations

from ortc.plan.plan import ImagePlan, RuntimePlan, SessionPlan, TargetPlan, VariantPlan
from ortc.spec.runtimes import pins
from ortc.spec.vocabulary import Platform

CHECK_PINS = "onnxruntime"
"""The pinned runtime that checks graphs, whatever a target ships."""
_IMAGE = ImagePlan(base_image="python:3.12-slim", python="3.12", template="Dockerfile.j2")
_PLATFORMS: tuple[Platform, ...] = ("linux/amd64", "linux/arm64")


def plain_target(target: TargetPlan) -> TargetPlan:
    """The target whose bundle a loader in Python runs: one for browsers or Node becomes one of the plain runtime."""
    return target.model_copy(update={"platforms": _PLATFORMS, "image": _IMAGE}) if target.is_javascript else target


def plain_variant(target: TargetPlan, variant: VariantPlan, session: SessionPlan) -> VariantPlan:
    """A variant with another session; of a target for browsers or Node, with the plain runtime besides."""
    if not target.is_javascript:
        return variant.model_copy(update={"session": session})
    pinned = pins(CHECK_PINS)
    package, _, version = pinned.requirement.partition("==")
    runtime = RuntimePlan.model_validate(
        {
            "package": package,
            "version": version,
            "minimum_version": version,
            "pins": CHECK_PINS,
            "pins_sha256": pinned.sha256,
        }
    )
    return variant.model_copy(update={"session": session, "runtime": runtime})
