"""Digests of what a module computes with, by name: parameters, buffers, and all else that its code reaches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ortc.frontend.reachable.walk import State, Walk

if TYPE_CHECKING:
    import torch


def module_state(module: torch.nn.Module, root: Path | None = None) -> State:
    """sha256 of every tensor and array that a module reaches, and of the class, the code and the settings of each part.

    Args:
        module: with attributes, containers, objects, functions, closures, and the globals that its code reads.
        root: the project's, whose place does not count.
    """
    return Walk(root).of(module)


def numbers(module: torch.nn.Module) -> tuple[str, ...]:
    """Names of every tensor and array that a module computes with."""
    return Walk(hashed=False).of(module).numbers
