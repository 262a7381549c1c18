"""How far a promise is from its limit, as a share of what the limit allows."""

from __future__ import annotations

import math

from ortc.evaluation.gate_table import gate_of
from ortc.evaluation.report import Verdict


def used_share(verdict: Verdict) -> float | None:
    """What share of the allowance is used: 1 is the limit itself, and more is beyond it.

    The bound of the interval that decides takes the place of the value, where there is one. A value that must be at
    most a limit uses value / limit. A similarity that must be at least a limit uses (1 - value) / (1 - limit): what it
    may differ from 1. A ratio that must be at least a limit uses limit / value.

    Returns:
        None where no number was measured, the limit allows nothing to share, or the scale has no known end, as of a
        task's metric.
    """
    value, limit = decisive(verdict), verdict.bound
    if value is None or limit is None or not (math.isfinite(value) and math.isfinite(limit)):
        return None
    if verdict.comparison == "<=":
        used = value / limit if limit > 0 else None
    elif is_similarity(verdict):
        used = (1 - value) / (1 - limit) if limit < 1 else None
    elif verdict.unit == "times":
        used = limit / value if value > 0 else None
    else:
        used = None
    return None if used is None else max(0.0, used)


def decisive(verdict: Verdict) -> float | None:
    """The number that decides: the bound of the interval on the side of the limit, else the value."""
    if verdict.interval is not None:
        bound = verdict.interval[1 if verdict.comparison == "<=" else 0]
        if bound is not None:
            return bound
    return verdict.value


def is_similarity(verdict: Verdict) -> bool:
    """Whether 1 is the best value that there is: of similarities, agreements and correlations, of a metric unknown."""
    row = gate_of(verdict.gate)
    return (
        verdict.comparison == ">=" and row.unit == "" and row.name != "metric" and row.kind in ("answers", "embeddings")
    )


def margin_text(verdict: Verdict) -> str:
    """The margin for people: what is left of the allowance, or by how much the limit is missed; "" where unknown."""
    used, value = used_share(verdict), decisive(verdict)
    if used is None:
        return "" if value is None or verdict.bound is None else f"{value - verdict.bound:+.4g}"
    left = 1 - used
    if left >= 0:
        return f"{_percent(left)} left"
    return f"{used:.1f} times the limit" if used >= 2 else f"{_percent(-left)} beyond"


def _percent(share: float) -> str:
    """A share in percent, never rounded to nothing or to all of it."""
    if 0 < share < 0.005:
        return "< 1%"
    return "> 99%" if 0.995 <= share < 1 else f"{share:.0%}"
