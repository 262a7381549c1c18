"""The tables of the race of embeddings, of docs/performance.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import records
from texts_catalogue import SERVERS, TITLES, TextServer

from ortc.common.statistics import Interval, percentile, ratio_of_rounds
from ortc.execution.host import Host

Json = dict[str, Any]
NUMBERS = (
    *("texts per second [95 %]", "p50 ms", "p99 ms [95 %]", "cosine, mean", "worst", "cores of server, of clients"),
    "**ortc** over it [95 %]",
)
NONE = "No race of servers of texts is committed yet. `make bench ARGS=texts` makes one.\n"


def texts() -> str:
    """Both tables of every machine."""
    found = []
    for directory in sorted(path for path in records.DATA.iterdir() if path.is_dir()):
        document = records.read(records.place(directory.name, "texts", "minilm"))
        if document is not None and document["rounds"]:
            found.append(_machine(document))
    return "\n".join(found) or NONE


def _machine(document: Json) -> str:
    machine, tokens = Host.model_validate(document["host"]), document["tokens"]
    lengths = f"texts of {tokens['least']:.0f} to {tokens['most']:.0f} tokens"
    middle = f"(median {tokens['median']:.0f}, mean {tokens['mean']:.0f})"
    clients = f"{document['threads']} threads for everyone, {document['clients']} clients"
    machine_line = f"{machine.cpu}, {machine.cores} physical cores; {clients}, {lengths} {middle}"
    lines = [f"{machine_line}, turns of {document['seconds']:.0f} s."]
    for title, precision in (("fp32", "fp32"), ("INT8", "int8")):
        lines += ["", f"**{title}**", "", *_table(document, precision)]
    lines += ["", *_absent(document)]
    return "\n".join(lines).rstrip("\n") + "\n"


def _table(document: Json, precision: str) -> list[str]:
    entries = [entry for entry in SERVERS if entry.precision == precision and _turns(document, entry.name)]
    best = _best([entry for entry in entries if entry.is_ours], document)
    names = ("server", "batches", *NUMBERS)
    rows = ["| " + " | ".join(names) + " |", "|---|---|" + "---:|" * len(NUMBERS)]
    for entry in entries:
        facts, turns = document["contenders"][entry.name], _turns(document, entry.name)
        variant = f" ({facts['variant']})" if "variant" in facts else ""
        speed, tail = _over(turns, "per_second"), _over(turns, "p99_ms")
        cores = (_over(turns, "server_cores").value, _over(turns, "client_cores").value)
        cells = (
            entry.title + variant,
            f"`{facts['setting']}`",
            f"{speed.value:.1f} {_bounds(speed, 1)}",
            f"{_over(turns, 'p50_ms').value:.0f}",
            f"{tail.value:.0f} {_bounds(tail, 0)}",
            f"{facts['cosine_mean']:.5f}",
            f"{facts['cosine_min']:.5f}",
            f"{cores[0]:.2f}, {cores[1]:.2f}",
            "" if best is None or entry.is_ours else _ratio(_faster(document, best, entry)),
        )
        rows.append("| " + " | ".join(cells) + " |")
    return [*rows, *_versions(document, entries)]


def _versions(document: Json, entries: Sequence[TextServer]) -> list[str]:
    """The versions of all that takes part in a table, one line."""
    found = [
        f"{TITLES[entry.name].replace('*', '')}: "
        + ", ".join(f"{name} {version}" for name, version in document["contenders"][entry.name]["versions"].items())
        for entry in entries
    ]
    return ["", "; ".join(found) + "."] if found else []


def _best(ours: Sequence[TextServer], document: Json) -> TextServer | None:
    return max(ours, key=lambda entry: _over(_turns(document, entry.name), "per_second").value, default=None)


def _faster(document: Json, one: TextServer, other: TextServer) -> Interval:
    """How many times more texts per second, over the rounds that both were in."""
    both = [turn for turn in document["rounds"] if one.name in turn and other.name in turn]
    first, second = ([[turn[entry.name]["per_second"]] for turn in both] for entry in (one, other))
    return ratio_of_rounds(first, second)


def _turns(document: Json, name: str) -> list[Json]:
    return [turn[name] for turn in document["rounds"] if name in turn]


def _over(turns: Sequence[Json], key: str) -> Interval:
    """The median over rounds."""
    return percentile([turn[key] for turn in turns], 0.5)


def _absent(document: Json) -> list[str]:
    return [f"{TITLES[name]} does not take part: `{reason[:200]}`\n" for name, reason in document["absent"].items()]


def _bounds(interval: Interval, places: int) -> str:
    if interval.low is None or interval.high is None:
        return "[too few]"
    return f"[{interval.low:.{places}f}, {interval.high:.{places}f}]"


def _ratio(interval: Interval) -> str:
    return f"{interval.value:.2f} {_bounds(interval, 2)}"
