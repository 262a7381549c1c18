"""What the data files of GPU machines say, as Markdown for docs/performance.md."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

DATA = Path(__file__).parent / "data"
NOTHING = (
    "No measurement of a GPU is committed yet. `make gpu` on a machine with one makes it; [remote.md](remote.md#gpus) "
    "says how, also where nothing but PyTorch and onnxruntime-gpu is installed.\n"
)
MODES = {
    "host": "From numpy to numpy, copies between host and device included",
    "device": "From buffers on the device to buffers on the device, until they are there",
}
FACTS = (
    *("largest difference", "worst cosine", "golden answers", "nodes on CPU", "copies"),
    *("first answer, s", "device memory"),
)
Json = dict[str, Any]


def page(data: Path = DATA) -> str:
    """The section: every data file in turn."""
    files = sorted(data.glob("*.json"))
    return "\n".join(section(json.loads(path.read_bytes())) for path in files) if files else NOTHING


def section(document: Json) -> str:
    """One machine: what it is, and for each model times, answers, starts and memory."""
    gpu, host = document.get("gpu"), document.get("host", {})
    where = f"{gpu['name']}, driver {gpu['driver_version']}" if gpu else f"{host.get('cpu', 'a CPU')}, no GPU"
    lines = [f"### {where}", ""]
    versions: dict[str, str] = {"python": document["python"]}
    for model in document["models"].values():
        for entry in model["contenders"].values():
            versions |= {
                name: str(value)
                for name, value in entry.get("versions", {}).items()
                if name in ("onnxruntime", "torch", "cuda", "cudnn", "model") and value is not None
            }
    listed = ", ".join(f"{name} {value}" if name != "model" else f"BERT of {value}" for name, value in versions.items())
    lines += [f"{document['measured'][:10]}; {listed}; ortc {document['ortc']}.", ""]
    if not document["complete"]:
        lines += ["The run was ended before it was complete.", ""]
    for model in document["models"].values():
        lines += _model(model)
    return "\n".join(lines)


def _model(model: Json) -> list[str]:
    lines = [f"#### {model['title']}", ""]
    for mode, title in MODES.items():
        races = [race for race in model["races"] if race["mode"] == mode]
        if not races:
            continue
        heads = [f"{race['batch']}x{race['sequence']}" for race in races]
        lines += [f"{title}: p50 in ms, and how many times as fast as {_title(model, model['reference'])}.", ""]
        lines += [f"| | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
        for name in model["contenders"]:
            cells = [_cell(race, name, model["reference"]) for race in races]
            if any(cells):
                lines.append(f"| {_title(model, name)} | {' | '.join(cell or '-' for cell in cells)} |")
        lines.append("")
    lines += [
        f"| | {' | '.join(FACTS)} |",
        "|---|---:|---:|---|---:|---:|---:|---:|",
    ]
    absent = []
    for name, entry in model["contenders"].items():
        if "absent" in entry:
            absent.append(f"- {_title(model, name)}: {_plain(entry['absent'])}")
            continue
        lines.append(f"| {_title(model, name)} | {' | '.join(_facts(entry))} |")
    if absent:
        lines += ["", "Not measured:", "", *absent]
    return [*lines, ""]


def _cell(race: Json, name: str, reference: str) -> str:
    rounds = race["rounds"].get(name)
    if not rounds:
        return ""
    middle = median(value for turn in rounds for value in turn)
    base = race["rounds"].get(reference)
    if not base:
        return f"{middle:.3g}"
    # Of the same round: what disturbed one has disturbed the other.
    gain = median(median(theirs) / median(ours) for ours, theirs in zip(rounds, base, strict=False))
    return f"{middle:.3g} ({gain:.2f}x)"


def _facts(entry: Json) -> list[str]:
    accuracy, placement = entry["accuracy"], entry.get("placement")
    cosine = accuracy.get("cosine")
    golden = {None: "", "pass": "right"}.get(entry.get("golden"), "**wrong**")
    memory = entry["device_bytes"]
    return [
        accuracy["problem"] or f"{accuracy['max_abs']:.1e}",
        "" if cosine is None else f"{cosine:.6f}",
        golden,
        "" if placement is None else f"{placement.get('CPUExecutionProvider', 0)} of {sum(placement.values())}",
        "" if placement is None else str(sum(entry["copies"].values())),
        f"{median(entry['start_seconds']):.2f}",
        "" if memory is None else f"{memory / 2**20:.0f} MiB",
    ]


def _title(model: Json, name: str) -> str:
    return str(model["contenders"][name]["title"])


def _plain(text: str) -> str:
    """One line that no table or list is broken by."""
    return " ".join(text.replace("|", "/").split())[:300]
