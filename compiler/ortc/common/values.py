"""Frozen values, their canonical JSON and its digest."""

from __future__ import annotations

import hashlib
import json

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Base of plan and report values: immutable, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def canonical(value: object) -> str:
    """One text for equal values: compact JSON with sorted keys."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: object) -> str:
    """sha256, in hex, of the canonical JSON of a value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()
