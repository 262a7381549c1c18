"""Which operators and types an execution provider has kernels for: generated data, never `if`s.

The data lies in targets/data/kernels and comes from targets/generate_kernels.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ortc.common.resources import data_dir
from ortc.common.values import Frozen

Types = Sequence[str | None]
_WIDER = {"float16": "float"}


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Kernel(_Data):
    """Kernels of one operator for a range of its versions.

    `inputs` and `outputs` name the constraint of each, None for any type; the last of `inputs` is also that of the
    further ones of a variadic operator. An entry of `types` has, by constraint, the types that go together.
    """

    since: int
    until: int | None
    inputs: tuple[str | None, ...]
    outputs: tuple[str | None, ...]
    types: tuple[dict[str, str], ...]

    def serves(self, version: int) -> bool:
        """Whether it is for the operator as an opset since `version` has it: an open range is for its first alone."""
        if self.since == version:
            return True
        return self.until is not None and self.since < version <= self.until

    def takes(self, inputs: Types, outputs: Types) -> bool:
        """Whether there is one for these types; None is a type that nobody knows, or an input that is left out."""
        wanted = [*_pairs(self.inputs, inputs), *_pairs(self.outputs, outputs)]
        return any(all(dtype in types.get(name, dtype).split() for name, dtype in wanted) for types in self.types)


class Kernels(_Data):
    """All kernels of one provider in one version of a runtime package."""

    format_version: Literal[1]
    package: str
    version: str
    provider: str
    operators: dict[str, tuple[Kernel, ...]]
    whole: dict[str, tuple[Kernel, ...]] = Field(
        description="The CPU's kernels for operators that ONNX defines by others: these are not taken apart."
    )

    @property
    def runtime(self) -> str:
        """The package and its version."""
        return f"{self.package} {self.version}"

    @property
    def sha256(self) -> str:
        """Digest of the table, for cache keys."""
        return hashlib.sha256((data_dir() / "kernels" / _file(self.package, self.version)).read_bytes()).hexdigest()

    def has(self, operator: str, version: int, inputs: Types, outputs: Types) -> bool:
        """Whether the provider has a kernel for an operator, at a version of it and for types.

        Args:
            operator: `com.microsoft::Attention`; without a domain it is ONNX's.
            version: of the operator: the first opset that has it so.
            inputs: a type each, as `float16`; None where nobody knows it, or an input is left out.
            outputs: likewise.
        """
        return any(_serves(kernel, version, inputs, outputs) for kernel in self.operators.get(operator, ()))

    def keeps(self, operator: str, version: int, inputs: Types, outputs: Types) -> bool:
        """Whether an operator that ONNX defines by others stays what it is, because the CPU has a kernel for it.

        What the CPU computes in float32 it takes in float16, too, and converts.
        """
        ins, outs = ([_WIDER.get(dtype or "", dtype) for dtype in types] for types in (inputs, outputs))
        found = self.whole.get(operator, ())
        return any(_serves(kernel, version, *pair) for kernel in found for pair in ((inputs, outputs), (ins, outs)))


class CpuNode(Frozen):
    """A node that would run on the CPU: its name, its operator, and the types of its inputs (`?`: unknown)."""

    name: str
    operator: str
    types: tuple[str, ...]


class Forecast(Frozen):
    """What is foreseen of a graph's placement: a prediction, and no measurement."""

    provider: str
    runtime: str = Field(description="Whose kernels are known: package and version.")
    cpu_nodes: tuple[CpuNode, ...] = Field(description="Compute nodes that the provider has no kernel for.")


@cache
def kernels(package: str, version: str, provider: str) -> Kernels | None:
    """What a provider of a runtime has kernels for; None where there is no table of it."""
    place = data_dir() / "kernels" / _file(package, version)
    if not place.is_file():
        return None
    found = Kernels.model_validate_json(place.read_bytes())
    return found if found.provider == provider else None


_OWN = frozenset({"SimplifiedLayerNormalization"})
"""Operators that ONNX Runtime has in ONNX's domain, and ONNX has not."""


def own_operators(operators: Mapping[str, int]) -> dict[str, int]:
    """Of a graph's operators those that are ONNX Runtime's own, without their domain: fused ones and the like."""
    counts: dict[str, int] = {}
    for operator, count in operators.items():
        domain, _, name = operator.rpartition("::")
        if domain or name in _OWN:
            counts[name] = counts.get(name, 0) + count
    return counts


def counted(operators: Mapping[str, int]) -> str:
    """Operators for people: `12 Attention, 24 SkipLayerNormalization`."""
    return ", ".join(f"{count} {name}" for name, count in sorted(operators.items()))


def _file(package: str, version: str) -> str:
    return f"{package}-{version}.json"


def _serves(kernel: Kernel, version: int, inputs: Types, outputs: Types) -> bool:
    return kernel.serves(version) and kernel.takes(inputs, outputs)


def _pairs(names: tuple[str | None, ...], types: Types) -> list[tuple[str, str]]:
    """Constraints and the types that are given for them."""
    padded = (*names, *(names[-1:] * (len(types) - len(names))))
    return [(name, dtype) for name, dtype in zip(padded, types, strict=False) if name is not None and dtype is not None]
