"""docs/architectures.md, from what became of each architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from ortc.frontend.reference.derive import CHOICES, DECODER_TOKENS

Json = dict[str, Any]
TEMPLATE = Path(__file__).with_name("architectures.md.j2")


def page(document: Json, placement: Json) -> str:
    """The page, in Markdown, from what became of each architecture and where CUDA would place its nodes."""
    results = {(entry["name"], entry["opset"]): entry for entry in document["results"]}
    names = list(dict.fromkeys(entry["name"] for entry in document["results"]))
    newest, older = ([results[name, opset] for name in names if (name, opset) in results] for opset in (20, 17))
    rows = []
    for name in names:
        new, old = results.get((name, 20)), results.get((name, 17))
        task = next(entry["task"] for entry in (new, old) if entry is not None)
        rows.append((name, task, exporter(new), number(new), cosine(new), exporter(old), number(old)))
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  # Markdown
    )
    return environment.from_string(TEMPLATE.read_text("utf-8")).render(
        **{name: document["versions"][name] for name in ("torch", "transformers", "onnx", "onnxruntime")},
        cpu=document["host"]["cpu"],
        count=len(newest),
        passed=sum(map(passes, newest)),
        older=sum(map(passes, older)),
        older_count=len(older),
        rows=rows,
        failures=[entry for entry in (*newest, *older) if not passes(entry)],
        gpu=placed(placement),
        choices=CHOICES,
        decoder=DECODER_TOKENS,
    )


def placed(document: Json) -> Json:
    """What the page says of CUDA: how many graphs were looked at, and the operators that are left to the CPU."""
    results = [entry for entry in document["results"] if entry["on_cpu"] is not None]
    left: dict[str, list[str]] = {}
    for entry in results:
        for operator in entry["foreseen"]:
            if entry["name"] not in left.setdefault(operator, []):
                left[operator].append(entry["name"])
    return {
        "runtime": document["runtime"].rpartition(" ")[0],
        "architectures": len({entry["name"] for entry in results}),
        "graphs": len(results),
        "most": max(sum(entry["on_cpu"].values()) - sum(entry["foreseen"].values()) for entry in results),
        "left": [f"{operator}: {', '.join(names)}" for operator, names in sorted(left.items())],
        "refused": [f"{entry['name']} ({entry['form']})" for entry in document["results"] if entry["on_cpu"] is None],
    }


def passes(entry: Json) -> bool:
    """Whether an architecture was exported, and what ships is right in fp32 over the shape matrix."""
    return "error" not in entry and entry.get("fp32", "pass") == "pass"


def exporter(entry: Json | None) -> str:
    """What exported it."""
    if entry is None:
        return ""
    return str(entry["exporter"]) if passes(entry) else "refused"


def number(entry: Json | None) -> str:
    """The greatest difference of the graph that ships in fp32, else of that which was exported."""
    value = None if entry is None else entry.get("fp32 max_abs", entry.get("max_abs"))
    return "" if value is None else f"{value:.0e}"


def cosine(entry: Json | None) -> str:
    """Of dynamic INT8, over its worst sample."""
    if entry is None or "error" in entry:
        return ""
    value = entry.get("int8-dynamic cosine")
    return "nothing to quantize" if value is None else f"{value:.4f}"
