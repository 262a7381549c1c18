"""Footprint: what a variant costs in another way than time, which decides where times do not."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from pydantic import Field

from ortc.common.values import Frozen
from ortc.plan.plan import TargetPlan, VariantPlan
from ortc.spec.runtimes import pins
from ortc.spec.unused_files import PARTS, REQUIRED, TOOLS


class Footprint(Frozen):
    """What a variant takes besides time; bytes and seconds, None where nothing here measured it."""

    environment_bytes: int | None = Field(
        default=None, description="Of the unpacked wheels of the bundle's requirements."
    )
    image_bytes: int | None = Field(
        default=None, description="That an image adds to its base: the model, and those wheels without unused parts."
    )
    download_bytes: int = Field(
        description="Of the model and the wheels that the loader needs, as they are downloaded."
    )
    model_bytes: int = Field(description="Of the model's files.")
    memory_bytes: int | None = Field(default=None, description="Most resident memory over every shape that was run.")
    start_seconds: float | None = Field(default=None, description="From process start to the first answer, the median.")


class Installed(Frozen):
    """Bytes of an environment's packages: as their wheels unpack, and as an image keeps them."""

    unpacked: int
    kept: int


def loader_bytes(variant: VariantPlan, target: TargetPlan) -> dict[str, int]:
    """Return the bytes of the wheels that the loader needs, by promised platform."""
    pinned = pins(variant.runtime.pins)
    return {platform: pinned.loader_bytes(platform) for platform in target.platforms}


@cache
def installed(interpreter: Path, provider: str) -> Installed:
    """Measure an environment by the lists of files that its wheels brought; bytecode is not among them.

    Args:
        interpreter: of the environment.
        provider: the first execution provider, which decides what an image leaves out.
    """
    unpacked = kept = 0
    unneeded = (*TOOLS, *PARTS.get(provider, ()), *REQUIRED)
    for path, size in _files(interpreter):
        unpacked += size
        kept += 0 if _is_left_out(path, unneeded) else size
    return Installed(unpacked=unpacked, kept=kept)


def _files(interpreter: Path) -> Iterator[tuple[str, int]]:
    """Files of an environment's wheels, relative to its packages, with their bytes (PEP 376's RECORD)."""
    for record in sorted((interpreter.parent.parent / "lib").glob("python*/site-packages/*.dist-info/RECORD")):
        with record.open(encoding="utf-8", newline="") as file:
            for path, _, size in csv.reader(file):
                if size:
                    yield path, int(size)


def _is_left_out(path: str, unneeded: Sequence[str]) -> bool:
    """Whether the Dockerfile removes a file: parts that nothing loads, tests, stubs."""
    parts = path.split("/")
    prefixes = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return (
        "tests" in parts[:-1]
        or path.endswith(".pyi")
        or any(fnmatchcase(prefix, pattern) for prefix in prefixes for pattern in unneeded)
    )
