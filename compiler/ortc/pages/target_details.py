"""What a page shows of one target below its verdict: plots, differences by case, answers, weights."""

from __future__ import annotations

from typing import Any

from ortc.evaluation.gate_table import gate_of
from ortc.evaluation.report import Decision
from ortc.evaluation.trade import Trade
from ortc.pages.drawing import INSTALL, can_draw
from ortc.pages.facts import Fact, Form, escaped
from ortc.pages.plots import latency_plot, trade_plot, variants_plot
from ortc.pages.shown import Shown

_SHOWN_NODES = 8


def plots(shown: Shown) -> dict[str, Any]:
    """The plots, each an element `svg` or None; `missing` says what to install where nothing can draw."""
    target, name = shown.target, f"t{shown.index}"
    has_any = target.latencies is not None or len(target.decisions) > 1 or bool(target.trades)
    if not can_draw():
        nothing: dict[str, Any] = {"variants": None, "latency": None, "trades": []}
        return {**nothing, "missing": INSTALL if has_any else None}
    latency = None
    if target.latencies is not None and target.numbers is not None:
        latency = latency_plot(name, target.latencies, target.numbers)
    trades = [trade_plot(f"{name}-{index}", trade) for index, trade in enumerate(target.trades)]
    return {"variants": variants_plot(name, target.decisions), "latency": latency, "trades": trades, "missing": None}


def samples_in_plot(shown: Shown) -> list[tuple[str, Fact]]:
    """How many runs of each contender the distribution shows."""
    found = shown.target.latencies
    if found is None:
        return []
    return [
        (contender.name, shown.facts.known(f"{shown.at}/latencies/contenders/{index}/samples", "count"))
        for index, contender in enumerate(found.contenders)
    ]


def answers(shown: Shown) -> dict[str, Any] | None:
    """The answers that are furthest from PyTorch's, with both texts."""
    found = shown.target.answers
    if found is None:
        return None
    at = f"{shown.at}/answers"
    return {
        "unit": found.unit,
        "count": shown.facts.known(f"{at}/texts", "count"),
        "least": shown.facts.known(f"{at}/cosine_min", "accuracy"),
        "gate": found.gate,
        "agreement": shown.facts.known(f"{at}/agreement", "accuracy") if found.gate else None,
        "rows": [
            {
                "request": entry.request,
                "expected": entry.expected,
                "found": entry.found,
                "is_same": entry.expected == entry.found,
                "cosine": shown.facts.known(f"{at}/furthest/{index}/cosine", "accuracy"),
                "agreement": shown.facts.number(f"{at}/furthest/{index}/agreement", "accuracy"),
            }
            for index, entry in enumerate(found.furthest)
        ],
    }


def embeddings(shown: Shown) -> list[tuple[str, Fact | None]]:
    """Pooled embeddings of samples against PyTorch's."""
    if shown.target.embeddings is None:
        return []
    at = f"{shown.at}/embeddings"
    return [
        ("Samples", shown.facts.known(f"{at}/samples", "count")),
        ("Mean cosine similarity", shown.facts.known(f"{at}/cosine_mean", "accuracy")),
        ("Least cosine similarity", shown.facts.known(f"{at}/cosine_min", "accuracy")),
        ("Rank correlation of similarities", shown.facts.number(f"{at}/rank_correlation", "accuracy")),
    ]


def tensors(shown: Shown) -> dict[str, Any] | None:
    """The largest weights, and bytes by type."""
    found = shown.target.tensors
    if found is None or not found.largest:
        return None
    at, total = f"{shown.at}/tensors", sum(found.by_dtype.values()) or 1
    largest = found.largest[0].bytes or 1
    return {
        "count": shown.facts.known(f"{at}/count", "count"),
        "types": [
            (dtype, shown.facts.known(f"{at}/by_dtype/{escaped(dtype)}", "bytes"), round(100 * size / total, 1))
            for dtype, size in sorted(found.by_dtype.items(), key=lambda entry: -entry[1])
        ],
        "rows": [
            {
                "name": tensor.name,
                "shape": " x ".join(map(str, tensor.shape)) or "scalar",
                "dtype": tensor.dtype,
                "bytes": shown.facts.known(f"{at}/largest/{index}/bytes", "bytes"),
                "bar": round(100 * tensor.bytes / largest, 1),
            }
            for index, tensor in enumerate(found.largest)
        ],
    }


def operator_times(shown: Shown) -> dict[str, Any] | None:
    """Where the time of a run goes, by operator and provider."""
    found = shown.target.times
    if found is None:
        return None
    at, total = f"{shown.at}/times", (sum(entry.microseconds for entry in found.listed) + found.left_out) or 1
    return {
        "case": found.case,
        "left_out": shown.facts.known(f"{at}/left_out", "microseconds") if found.left_out else None,
        "rows": [
            {
                "operator": entry.operator,
                "provider": entry.provider,
                "nodes": shown.facts.known(f"{at}/listed/{index}/nodes", "count"),
                "time": shown.facts.known(f"{at}/listed/{index}/microseconds", "microseconds"),
                "bar": round(100 * entry.microseconds / total, 1),
            }
            for index, entry in enumerate(found.listed)
        ],
    }


def accuracy(shown: Shown, index: int, decision: Decision, gate: str | None) -> Fact | None:
    """A variant's value of the gate that variants are compared by."""
    if gate is None or gate not in decision.accuracy:
        return None
    form: Form = "accuracy" if gate_of(gate).comparison == ">=" else "error"
    return shown.facts.known(f"{shown.at}/decisions/{index}/accuracy/{escaped(gate)}", form)


def trades(shown: Shown) -> list[dict[str, Any]]:
    """Every mix of precisions that was tried, and the nodes that are best kept exact."""
    return [_trade(shown, index, trade) for index, trade in enumerate(shown.target.trades)]


def _trade(shown: Shown, index: int, trade: Trade) -> dict[str, Any]:
    at = f"{shown.at}/trades/{index}"
    gates = sorted(trade.limits)
    return {
        "variant": trade.variant,
        "gates": [(gate, shown.facts.known(f"{at}/limits/{escaped(gate)}", "accuracy")) for gate in gates],
        "rows": [
            {
                "name": point.name,
                "data": point.data,
                "passes": point.passes,
                "reduced": shown.facts.known(f"{at}/points/{number}/reduced", "count"),
                "bytes": shown.facts.known(f"{at}/points/{number}/bytes", "bytes"),
                "p50": shown.facts.number(f"{at}/points/{number}/p50_ms", "milliseconds"),
                "accuracy": [
                    shown.facts.known(f"{at}/points/{number}/accuracy/{escaped(gate)}", "accuracy")
                    if gate in point.accuracy
                    else None
                    for gate in gates
                ],
            }
            for number, point in enumerate(trade.points)
        ],
        "nodes": [node.name for node in trade.nodes[:_SHOWN_NODES]],
    }
