"""Frozen values, their canonical JSON and its digest."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

MOST = 2**63 - 1
Count = Annotated[int, Field(ge=0, le=MOST)]
"""Bytes, or how many of anything, in documents that somebody else may have written: few enough to compute with."""
Timed = Annotated[float, Field(ge=1e-9, le=1e9, allow_inf_nan=False)]
"""Seconds or milliseconds that something took, in such a document: a nanosecond to 30 years."""
Measured = Annotated[float, Field(ge=0, le=1e18, allow_inf_nan=False)]
"""A duration, or a ratio of two, in such a document."""


class Frozen(BaseModel):
    """Base of plan and report values: immutable, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Sparse(Frozen):
    """Base of values that are written without their `optional` fields where those are None, as most are."""

    optional: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_null(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = handler(self)
        return {key: value for key, value in found.items() if key not in self.optional or value is not None}


def canonical(value: object) -> str:
    """One text for equal values: compact JSON with sorted keys."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: object) -> str:
    """sha256, in hex, of the canonical JSON of a value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()
