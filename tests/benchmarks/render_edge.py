"""The parts of docs/performance.md that tell of the edge bundles."""

from __future__ import annotations

from typing import Any

import records
from catalogue import TITLES

from ortc.common.statistics import Interval, percentile, ratio_of_rounds

BASELINE = "ort-fp32"
EDGE_TITLES = {"edge-size": "**ortc**, `objective: size`", "edge-latency": "**ortc**, `objective: latency`"}

Json = dict[str, Any]


def edge(fingerprint: str, name: str) -> str:
    """Accuracy and bytes of everybody, here and on an emulated ARM64."""
    document = _required(fingerprint, "edge", name)
    rows = [
        "| contender | model | where | cosine, mean | worst | rank correlation | sentences |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    for contender, facts in document["contenders"].items():
        title = f"{_title(contender)}{_variant(facts)}"
        size = f"{facts['bytes'] / 1e6:.1f} MB"
        rows.append(f"| {title} | {size} | here | {_accuracy(facts)} |")
        if (there := document["emulated"].get(contender)) is not None:
            rows.append(f"| {title} | {size} | {there['platform']} | {_accuracy(there)} |")
    told = []
    for contender, there in document["emulated"].items():
        near, far = (
            min(case["cosine"] for case in found["golden"]) for found in (document["contenders"][contender], there)
        )
        apart = there["to_this_host"]
        told.append(
            f"{_title(contender)}: {len(there['golden'])} golden cases pass, their worst cosine {far:.5f} (here "
            f"{near:.5f}); answers are up to {apart['max_abs']:.3g} from those given here, the embedding that is "
            f"furthest has cosine {apart['cosine_min']:.5f}."
        )
    where = {there["processor"] for there in document["emulated"].values()}
    return "\n".join([*rows, "", f"linux/arm64 is {' and '.join(sorted(where))}. " + " ".join(told)]) + "\n"


def edge_race(fingerprint: str, name: str) -> str:
    """Milliseconds of everybody, and how many times faster than ONNX Runtime in fp32.

    Raises:
        ValueError: what was raced is not what was compared.
    """
    document, compared = _required(fingerprint, "edge-race", name), _required(fingerprint, "edge", name)
    facts = compared["contenders"]
    if document["identities"] != {contender: entry["identity"] for contender, entry in facts.items()}:
        raise ValueError("the race was between others than were compared: run `make bench ARGS=edge-race`")
    shapes = list(document["races"])
    rows = [
        "| contender | "
        + " | ".join(f"{shape}, p50 ms [95 %] | times fp32 [95 %]" for shape in shapes)
        + " | samples |",
        "|---|" + "---:|---:|" * len(shapes) + "---|",
    ]
    for contender in facts:
        cells, samples = [f"{_title(contender)}{_variant(facts[contender])}"], []
        for race in document["races"].values():
            rounds = race[contender]
            p50 = percentile([value for turn in rounds for value in turn], 0.5)
            cells += [
                f"{p50.value:.2f} {_bounds(p50)}",
                "1" if contender == BASELINE else _ratio(ratio_of_rounds(race[BASELINE], rounds)),
            ]
            samples.append(f"{p50.samples} in {len(rounds)} rounds")
        rows.append("| " + " | ".join([*cells, "; ".join(samples)]) + " |")
    found = document["scheduling"]
    scheduled = "" if found == ["normal"] else f"\nScheduling of the measured processes: {', '.join(found)}.\n"
    return "\n".join(rows) + "\n" + scheduled


def _required(fingerprint: str, kind: str, name: str) -> Json:
    document = records.read(records.place(fingerprint, kind, name))
    if document is None:
        raise KeyError(f"no data for {kind} {fingerprint} {name}")
    return document


def _title(contender: str) -> str:
    return EDGE_TITLES.get(contender) or TITLES[contender]


def _variant(facts: Json) -> str:
    """The variant, and how many nodes it keeps in higher precision."""
    if "variant" not in facts:
        return ""
    kept = {"weights alone": facts["weights_alone"], "fp32": facts["in_floating_point"]}
    nodes = ", ".join(f"{count} {kind}" for kind, count in kept.items() if count)
    return f" ({facts['variant']}; nodes kept in more: {nodes})" if nodes else f" ({facts['variant']})"


def _accuracy(found: Json) -> str:
    names = ("cosine_mean", "cosine_min", "rank_correlation")
    return " | ".join([*(f"{found[name]:.5f}" for name in names), str(found["samples"])])


def _bounds(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return "[too few]"
    return f"[{interval.low:.2f}, {interval.high:.2f}]"


def _ratio(interval: Interval) -> str:
    return f"{interval.value:.2f} {_bounds(interval)}"
