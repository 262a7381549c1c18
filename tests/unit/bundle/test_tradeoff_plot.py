"""The plot of size and latency against accuracy."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from ortc.bundle.tradeoff_plot import gate_of, trade_svg
from ortc.evaluation.trade import Trade, TradePoint

SVG = "{http://www.w3.org/2000/svg}"


def point(reduced: int, cosine: float, *, p50_ms: float | None = 1.0, data: str = "calibration") -> TradePoint:
    return TradePoint.model_validate(
        {
            "name": f"{12 - reduced} fp32",
            "data": data,
            "reduced": reduced,
            "bytes": 1000 * (20 - reduced),
            "p50_ms": p50_ms,
            "accuracy": {"cosine": cosine, "cosine_mean": 1.0},
            "passes": cosine >= 0.99,
        }
    )


TRADE = Trade(
    variant="int8-dynamic",
    limits={"cosine": 0.99, "cosine_mean": 0.9},
    nodes=(),
    points=(point(12, 0.9), point(11, 0.995), point(6, 1.0), point(11, 0.994, p50_ms=None, data="held out")),
)


def circles(svg: str) -> list[ET.Element]:
    return list(ET.fromstring(svg).iter(f"{SVG}circle"))  # noqa: S314  # what was just written


def test_every_mix_is_a_circle_in_every_panel_that_knows_it() -> None:
    svg = trade_svg(TRADE, "bert")
    assert svg is not None
    found = circles(svg)
    assert len(found) == 4 + 3
    assert [circle.get("class") for circle in found[:4]] == [
        "fail calibration",
        "pass calibration",
        "pass calibration",
        "pass",
    ]


def test_better_is_lower_and_larger_further_right() -> None:
    svg = trade_svg(TRADE, "bert")
    assert svg is not None
    plain, mixed, most, _ = circles(svg)[:4]
    heights = [float(circle.get("cy", "nan")) for circle in (plain, mixed, most)]
    assert heights == sorted(heights)
    places = [float(circle.get("cx", "nan")) for circle in (plain, mixed, most)]
    assert places == sorted(places)


def test_the_same_trade_gives_the_same_bytes() -> None:
    assert trade_svg(TRADE, "bert") == trade_svg(TRADE.model_copy(), "bert")


def test_it_is_drawn_by_the_gate_that_is_missed() -> None:
    assert gate_of(TRADE) == "cosine"


def test_one_point_and_no_gate() -> None:
    single = TRADE.model_copy(update={"points": (point(12, 0.9, p50_ms=None),)})
    svg = trade_svg(single, "bert")
    assert svg is not None
    assert len(circles(svg)) == 1
    assert trade_svg(TRADE.model_copy(update={"limits": {}}), "bert") is None
