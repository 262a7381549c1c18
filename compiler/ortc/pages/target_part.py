"""What a page shows of one target: its verdict, gates, numbers and variants."""

from __future__ import annotations

from typing import Any

from ortc.evaluation.footprint import Footprint
from ortc.evaluation.noise import beside
from ortc.evaluation.report import Numbers, TargetReport
from ortc.pages import target_details
from ortc.pages.cases import cases
from ortc.pages.facts import Estimate, Fact, Form, escaped
from ortc.pages.margins import margin_text, used_share
from ortc.pages.plots import accuracy_gate
from ortc.pages.sentences import TONES, target_sentence
from ortc.pages.shown import Shown

_ORDER = {"fail": 0, "inconclusive": 1, "unmeasured": 2, "pass": 3}
_TILES: tuple[tuple[str, str, Form, str], ...] = (
    ("p50 latency", "p50_ms", "milliseconds", "noise"),
    ("p99 latency", "p99_ms", "milliseconds", "noise"),
    ("Speed-up over PyTorch", "speedup", "times", "speedup_noise"),
)
_TIMES: tuple[tuple[str, str, Form, str], ...] = (
    ("Latency, p50", "p50_ms", "milliseconds", "noise"),
    ("Latency, p90", "p90_ms", "milliseconds", "noise"),
    ("Latency, p99", "p99_ms", "milliseconds", "noise"),
    ("PyTorch eager, p50", "eager_p50_ms", "milliseconds", "speedup_noise"),
    ("Speed-up over PyTorch", "speedup", "times", "speedup_noise"),
    ("Requests per second", "requests_per_second", "rate", "rate_noise"),
    ("Start to first answer", "start_seconds", "seconds", "start_noise"),
    ("Start with files that the browser kept", "cached_start_seconds", "seconds", "start_noise"),
)
_SINGLE: tuple[tuple[str, str, Form], ...] = (
    ("PyTorch, start to first answer", "eager_start_seconds", "seconds"),
    ("Fetched on a first visit", "downloaded_bytes", "bytes"),
    ("Fastest single run", "fastest_ms", "milliseconds"),
    ("Most resident memory at any shape", "peak_rss_bytes", "bytes"),
    ("Resident memory after the start", "start_peak_rss_bytes", "bytes"),
    ("PyTorch, resident memory", "eager_peak_rss_bytes", "bytes"),
    ("Most memory of the device", "peak_device_bytes", "bytes"),
)
_FOOTPRINT: tuple[tuple[str, str, Form], ...] = (
    ("Model files", "model_bytes", "bytes"),
    ("Download: model and wheels", "download_bytes", "bytes"),
    ("Added to a container image", "image_bytes", "bytes"),
    ("Unpacked environment", "environment_bytes", "bytes"),
)


def target_part(shown: Shown) -> dict[str, Any]:
    """Fields of one target's part of report.html.j2."""
    target = shown.target
    return {
        "id": f"target-{shown.index}",
        "name": target.target,
        "sentence": target_sentence(shown.report, target),
        "error_lines": (target.error or "").splitlines(),
        "exit_code": shown.facts.known(f"{shown.at}/exit_code", "count"),
        "variant": _variant(target),
        "short": target.variant,
        "size": shown.facts.number(f"{shown.at}/model_bytes", "bytes"),
        "tiles": _tiles(shown),
        "gates": _gates(shown),
        "kept": sum(verdict.outcome == "pass" for verdict in target.verdicts),
        "noise": _noise(target.numbers),
        "variants": _variants(shown),
        "accuracy_gate": accuracy_gate(target.decisions),
        "plots": target_details.plots(shown),
        "runs": target_details.samples_in_plot(shown),
        "cases": cases(shown),
        "answers": target_details.answers(shown),
        "embeddings": target_details.embeddings(shown),
        "operator_times": target_details.operator_times(shown),
        "tensors": target_details.tensors(shown),
        "trades": target_details.trades(shown),
        "smallest_right": _smallest(shown),
        "times": _times(shown),
        "footprint": _footprint(shown),
        "elsewhere": _elsewhere(shown),
        "operators": _operators(shown),
        "calibration": shown.facts.number(f"{shown.at}/calibration_requests", "count"),
        "bundle": target.bundle,
    }


def _variant(target: TargetReport) -> str:
    precision = None if target.precision == target.variant else target.precision
    parts = [target.variant, precision, target.graph_level and f"graph level {target.graph_level}"]
    return ", ".join(part for part in (*parts, target.tuning) if part)


def _tiles(shown: Shown) -> list[dict[str, Any]]:
    numbers = shown.target.numbers
    if numbers is None:
        return [{"label": label, "estimate": None, "noisy": False} for label, *_ in _TILES]
    return [
        {
            "label": label,
            "estimate": shown.facts.estimate(f"{shown.at}/numbers/{name}", form),
            "noisy": bool(getattr(numbers, noise)),
        }
        for label, name, form, noise in _TILES
    ]


def _gates(shown: Shown) -> list[dict[str, Any]]:
    """Every gate, broken promises first, in the order of the report otherwise."""
    rows = []
    for index, verdict in sorted(enumerate(shown.target.verdicts), key=lambda entry: _ORDER[entry[1].outcome]):
        used = used_share(verdict)
        rows.append(
            {
                "at": f"{shown.at}/verdicts/{index}",
                "gate": verdict.gate,
                "platform": verdict.platform,
                "outcome": verdict.outcome,
                "tone": TONES[verdict.outcome],
                "observed": verdict.observed,
                "limit": verdict.limit,
                "where": verdict.where,
                "margin": margin_text(verdict),
                "used": None if used is None else round(min(used, 1.0) * 100, 1),
            }
        )
    return rows


def _noise(numbers: Numbers | None) -> dict[str, Any] | None:
    """Why times claim nothing, and what ran beside them; None where they claim something."""
    if numbers is None:
        return None
    reasons = (*numbers.noise, *numbers.speedup_noise, *numbers.rate_noise, *numbers.start_noise)
    return {"reasons": list(dict.fromkeys(reasons)), "beside": beside(numbers.load)} if reasons else None


def _variants(shown: Shown) -> list[dict[str, Any]]:
    at, gate = f"{shown.at}/decisions", accuracy_gate(shown.target.decisions)
    return [
        {
            "name": decision.variant,
            "level": decision.graph_level or "",
            "outcome": decision.outcome,
            "reason": decision.reason,
            "bytes": shown.facts.number(f"{at}/{index}/bytes", "bytes"),
            "p50": shown.facts.number(f"{at}/{index}/p50_ms", "milliseconds"),
            "slower": shown.facts.estimate(f"{at}/{index}/slower", "times"),
            "accuracy": target_details.accuracy(shown, index, decision, gate),
        }
        for index, decision in enumerate(shown.target.decisions)
    ]


def _smallest(shown: Shown) -> dict[str, Any] | None:
    found = shown.target.smallest_right
    if found is None:
        return None
    return {
        "name": found.variant,
        "reason": found.reason,
        "bytes": shown.facts.number(f"{shown.at}/smallest_right/bytes", "bytes"),
    }


def _times(shown: Shown) -> list[dict[str, Any]]:
    """Times and memory of the bundle beside PyTorch's: label, number, interval, samples, and whether it claims."""
    numbers = shown.target.numbers
    if numbers is None:
        return []
    rows: list[dict[str, Any]] = []
    for label, name, form, noise in _TIMES:
        found = shown.facts.estimate(f"{shown.at}/numbers/{name}", form)
        rows.append(_row(label, found, noisy=bool(getattr(numbers, noise))))
    for label, name, form in _SINGLE:
        fact = shown.facts.number(f"{shown.at}/numbers/{name}", form)
        rows.append(_row(label, None if fact is None else Estimate(fact, None, None, None)))
    return [row for row in rows if row["estimate"] is not None or row["label"] != "Most memory of the device"]


def _row(label: str, estimate: Estimate | None, *, noisy: bool = False) -> dict[str, Any]:
    return {"label": label, "estimate": estimate, "noisy": noisy}


def _footprint(shown: Shown) -> list[tuple[str, Fact | None]]:
    found: Footprint | None = shown.target.footprint
    if found is None:
        return []
    return [(label, shown.facts.number(f"{shown.at}/footprint/{name}", form)) for label, name, form in _FOOTPRINT]


def _elsewhere(shown: Shown) -> list[dict[str, Any]]:
    return [
        {
            "shape": entry.shape,
            "fastest": entry.fastest,
            "gain": shown.facts.estimate(f"{shown.at}/elsewhere/{index}/gain", "times"),
        }
        for index, entry in enumerate(shown.target.elsewhere)
    ]


def _operators(shown: Shown) -> list[tuple[str, Fact]]:
    """Operators of the graph that is served, the most frequent first."""
    counts = sorted(shown.target.operators.items(), key=lambda entry: (-entry[1], entry[0]))
    return [(name, shown.facts.known(f"{shown.at}/operators/{escaped(name)}", "count")) for name, _ in counts]
