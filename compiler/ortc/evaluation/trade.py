"""What a variant costs and answers as more of its nodes are kept in higher precision."""

from typing import Literal

from ortc.common.values import Frozen


class TradeNode(Frozen):
    """A node that a variant runs in less precision: elements of its weight, and the error that it alone makes so (mean
    square difference of the outputs over their mean square, 1e30 at most)."""

    name: str
    operator: str
    elements: int
    error: float


class TradePoint(Frozen):
    """A mix of precisions: nodes that compute in the variant's own, bytes, median milliseconds at the budget's shape
    (None where it was not timed), and what the gates of accuracy saw on these samples."""

    name: str
    data: Literal["calibration", "held out"]
    reduced: int
    bytes: int
    p50_ms: float | None
    accuracy: dict[str, float]
    passes: bool


class Trade(Frozen):
    """Size and latency against accuracy of a variant whose worst nodes are kept in higher precision.

    `nodes` from the one that is best kept so on; `limits` are the least values of the gates.
    """

    variant: str
    precision: Literal["fp32", "fp16", "bf16", "int8"] = "int8"
    limits: dict[str, float]
    nodes: tuple[TradeNode, ...]
    points: tuple[TradePoint, ...]
