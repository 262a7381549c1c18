"""Mixes of precisions: a planned variant some of whose nodes are kept in a higher one."""

from __future__ import annotations

from ortc.common.values import Frozen
from ortc.plan.plan import VariantPlan
from ortc.spec.profile import Variant

IN = {"int8": "on integers", "fp16": "in float16", "bf16": "in bfloat16"}
"""How the nodes of a variant compute that are not kept in higher precision, by its precision."""
MIXED = "-mixed"
"""Ends the name of a variant some of whose nodes are kept in higher precision."""


class Mix(Frozen):
    """Which nodes do not follow the variant: those with weights alone as integers, and those in floating point."""

    blocks: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


def mixed(variant: VariantPlan, mix: Mix) -> VariantPlan:
    """A planned variant with some nodes in higher precision, which is final: no others will be sought."""
    return variant.model_copy(
        update={
            "name": f"{variant.name}{MIXED}",
            "blocks": mix.blocks,
            "exclude": (*variant.exclude, *mix.exclude),
            "fallback": (),
        }
    )


def mix_of(variant: VariantPlan) -> Mix | None:
    """What a variant keeps in higher precision; None for one that is as planned."""
    return Mix(blocks=variant.blocks, exclude=variant.exclude) if variant.is_mixed else None


def is_made_from(name: str, planned: str) -> bool:
    """Whether a variant that ships is a planned one, or that with some nodes in higher precision."""
    return name in (planned, f"{planned}{MIXED}")


def is_asked_for(name: str, variant: Variant) -> bool:
    """Whether `--variant NAME` means a variant of a profile: by its name, or by that of its mix where it may have one.

    The mix is made from the variant only as far as the gates of accuracy need it.
    """
    return name == variant.name or (bool(variant.fallback) and is_made_from(name, variant.name))
