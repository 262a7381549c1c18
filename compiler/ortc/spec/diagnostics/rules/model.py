"""What a rule of the catalogue is."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of mistake: its stable code, and all that a reader needs to mend it."""

    code: str
    name: str
    summary: str
    explanation: str
    bad: str
    """A spec, or the top-level parts of one, that breaks the rule."""
    good: str
    """The same, mended."""
    severity: Severity = "error"
