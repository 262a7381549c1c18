"""Constants of the compiler that tests change, by module: the bounds of noise are open, and turns are short."""

from __future__ import annotations

import math

CHANGED: dict[str, dict[str, float]] = {
    "ortc.evaluation.noise": {
        "CONTROL_SHARE": 0.0,
        "CONTROL_SPREAD": math.inf,
        "CORE_SHARE": 0.0,
        "WEAK_ROUNDS": 1.0,
        "MODE_RATIO": math.inf,
        "DRIFT_RATIO": math.inf,
        "START_SPREAD": math.inf,
    },
    "ortc.evaluation.turns": {"REST_SECONDS": 0.02, "TURN_SECONDS": 0.02, "WARM_SECONDS": 0.002},
    "ortc.evaluation.machine": {"CONTROL_RUNS": 2},
    "ortc.build.benchmark": {"TURN_SECONDS": 0.02, "STARTS": 1},
    "ortc.build.search.target_search": {"QUICK_STARTS": 1},
    "ortc.evaluation.latency": {"START_RUNS": 1},
    "ortc.evaluation.accuracy": {"SOAK_SECONDS": 1.0},
}
