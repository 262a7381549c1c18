"""Which node runs on which execution provider, and whether the bundle allows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from .errors import PlacementError, ProvidersError
from .providers import CPU, OPENVINO

NAMED = 8  # nodes that a message names
Placed = tuple[str, str, str, str]  # a node: its provider, name, op_type, domain


def check_used(placement: Sequence[Placed]) -> None:
    """Raise ProvidersError when OpenVINO, which was asked for, runs no node.

    A device that it does not have, or an unknown one, is no error to it: it stays in the list of providers, and leaves
    every node to the CPU.
    """
    if placement and not any(provider == OPENVINO for provider, *_ in placement):
        raise ProvidersError(
            f"{OPENVINO} runs none of the {len(placement)} nodes, all fall back to another provider. Expected a "
            "device_type that this machine has, and operators that OpenVINO knows."
        )


def left_to_cpu(
    placement: Sequence[Placed], shape_nodes: Mapping[str, Sequence[str]]
) -> tuple[list[Placed], list[Placed]]:
    """The nodes on the CPU: those that compute nothing but shapes, and all others.

    `shape_nodes` are names by operator (with its domain where that is not ONNX's), as the manifest has them of the
    graph that ships. ONNX Runtime keeps names while it optimizes; what it makes anew, or makes another operator of, is
    not known to be about shapes, and is among the others.
    """
    known = {(operator, name) for operator, names in shape_nodes.items() for name in names}
    shapes: list[Placed] = []
    others: list[Placed] = []
    for node in placement:
        provider, name, op_type, domain = node
        if provider == CPU:
            operator = op_type if domain in ("", "ai.onnx") else f"{domain}::{op_type}"
            (shapes if (operator, name) in known else others).append(node)
    return shapes, others


def check_placement(
    placement: Sequence[Placed], budget: int | None, shape_nodes: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> None:
    """Raise PlacementError when more nodes run on the CPU than `budget` (None: any number) allows.

    Those that compute shapes do not count: ONNX Runtime leaves them there by design, whatever provider leads.
    """
    shapes, others = left_to_cpu(placement, shape_nodes)
    if budget is not None and len(others) > budget:
        besides = f" besides {len(shapes)} that compute shapes" if shapes else ""
        raise PlacementError(
            f"{len(others)} of {len(placement)} nodes run on the CPU{besides}, placement.max_cpu_nodes allows {budget}"
            f": {', '.join(named(others))}{', ...' if len(others) > NAMED else ''}."
        )


def named(nodes: Sequence[Placed]) -> list[str]:
    """The first few by operator and name."""
    return [f"{op} {name!r}" for _, name, op, _ in nodes[:NAMED]]


def check_names(listed: Mapping[str, Sequence[str]]) -> None:
    for operator, names in listed.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"placement.shape_nodes has {names!r} for {operator}, expected a list of names")
