"""Bounds of `ortc.evaluation.noise` that every measurement keeps."""

from __future__ import annotations

import math

OPEN = {
    "CONTROL_SHARE": 0.0,
    "CONTROL_SPREAD": math.inf,
    "CORE_SHARE": 0.0,
    "WEAK_ROUNDS": 1.0,
    "MODE_RATIO": math.inf,
    "DRIFT_RATIO": math.inf,
    "START_SPREAD": math.inf,
}
