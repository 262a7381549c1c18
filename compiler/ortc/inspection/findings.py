"""Terms that the inspections of all kinds of files share."""

from __future__ import annotations

from ortc.inspection.draft_spec import Value

BATCH: dict[str, Value] = {"min": 1, "typical": 1, "max": 16}
OUTSIDE = "This lies outside of the project, where other machines will not have it."
BOUNDS = "The bounds are promises: the build proves them, the loader enforces them."
KNOWN_AXES: dict[str, dict[str, Value]] = {
    "batch": BATCH,
    "sequence": {"min": 1, "typical": 128, "max": 512},
    "height": {"min": 32, "typical": 224, "max": 512},
    "width": {"min": 32, "typical": 224, "max": 512},
}

UNKNOWN_AXIS: dict[str, Value] = {"min": 1, "typical": 16, "max": 64}


class InspectionError(ValueError):
    """What was named is no model that a spec can be written for; the message says why."""
