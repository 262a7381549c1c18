"""Former spellings of profiles: which there are, and the spelling that says the same now."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ortc.spec.diagnostics.diagnostic import Diagnostic
from ortc.spec.diagnostics.rules.schema import FORMER_KEY
from ortc.spec.diagnostics.source import Document, Mapping, Node, Scalar, Sequence, to_data

QUANTIZATION, PLACEMENT, GATES = "quantization", "placement", "gates"
_KINDS: dict[str, dict[str, Any]] = {
    "int8-dynamic": {"kind": "dynamic"},
    "int8-static": {"kind": "static"},
    "int8-weights": {"kind": "weight-only", "bits": 8},
    "int4-weights": {"kind": "weight-only", "bits": 4},
}
"""What a former value of `quantization` becomes."""
_FLAGS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "smooth": ("smoothing", False, {"dynamic": "layer-norm", "weight-only": "layer-norm"}),
    "weight_only": ("narrowing", False, {"dynamic": "weight-only"}),
    "keep_narrowing": ("narrowing", False, {"static": "float"}),
}
"""Former flags: the present key, the default, and what `true` becomes, by the kinds that the flag had an effect on."""
_SAME: dict[str, tuple[Any, tuple[str, ...]]] = {
    "operators": ((), ("dynamic", "static", "weight-only")),
    "smoothing": (None, ("dynamic", "static", "weight-only")),
    "symmetric": (False, ("static",)),
    "calibration": ("minmax", ("dynamic", "static", "weight-only")),
}
"""Keys that were beside `quantization`: the default, and the kinds that have them."""
_INSIDE = "`quantization` is a mapping already, and takes what belongs to its kind"
RELATED = (QUANTIZATION, *_SAME, *_FLAGS)


@dataclass
class Rewritten:
    """A variant's quantization in the present spelling.

    `quantization` is None where there is none. `lines` gives the present entries for each former key that stays;
    other former keys said nothing but their default. `problems` are keys that have no present spelling, and why.
    """

    quantization: dict[str, Any] | None
    lines: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def is_former(variant: Node) -> bool:
    """Whether a variant has its quantization in the former spelling."""
    if not isinstance(variant, Mapping):
        return False
    if any(key in variant.entries for key in RELATED[1:]):
        return True
    how = variant.entries.get(QUANTIZATION)
    return how is not None and isinstance(how.value, Scalar) and how.value.value is not None


def rewritten(variant: Mapping) -> Rewritten:
    """Translate the quantization of a variant in the former spelling."""
    data = {key: to_data(variant.entries[key].value) for key in RELATED if key in variant.entries}
    name = data.get(QUANTIZATION) or "none"
    if isinstance(name, dict):
        return Rewritten(None, problems=dict.fromkeys((key for key in data if key != QUANTIZATION), _INSIDE))
    start = _KINDS.get(name, {}) if isinstance(name, str) else {}
    kind = start.get("kind", "none")
    if not start and name != "none":
        return Rewritten(None, problems={QUANTIZATION: f"{json.dumps(name)} is unknown"})
    found = Rewritten(dict(start) if start else None)
    if start:
        found.lines[QUANTIZATION] = start
    for key, value in data.items():
        if key == QUANTIZATION:
            continue
        default, kinds = (_SAME if key in _SAME else {key: (False, tuple(_FLAGS[key][2]))})[key]
        if kind not in kinds:
            if value != default:
                found.problems[key] = f"it had no effect with `quantization: {name}`"
        elif key in _SAME:
            found.lines[key] = {key: value}
        elif value is True:
            found.lines[key] = {_FLAGS[key][0]: _FLAGS[key][2][kind]}
        elif value is not default:
            found.problems[key] = "it is neither `true` nor `false`"
    if "smooth" in found.lines and data.get("smoothing") is not None:
        found.problems["smooth"] = "`smoothing` takes one of `layer-norm`, a number and `auto`"
    elif "smooth" in found.lines:
        found.lines.pop("smoothing", None)
    if found.quantization is not None:
        for entries in found.lines.values():
            found.quantization |= entries
    return found


def former_keys(document: Document) -> Iterator[Diagnostic]:
    """Find every key of a profile in a former spelling, with the present one and the command that writes it."""
    advice = f"`ortc migrate {document.source.name}` rewrites the file and keeps its comments"
    variants = document.find(["variants"])
    for variant in variants.items if isinstance(variants, Sequence) else ():
        if isinstance(variant, Mapping) and is_former(variant):
            yield from _of_variant(variant, advice)
    if (entry := document.root.entries.get(PLACEMENT)) is not None:
        new = flow({GATES: to_data(entry.value) or {}})[1:-1]
        yield Diagnostic(FORMER_KEY, "`placement` is a former key", entry.key, help=f"write `{new}`; {advice}")


def _of_variant(variant: Mapping, advice: str) -> Iterator[Diagnostic]:
    found = rewritten(variant)
    new = "leave it out" if found.quantization is None else f"write `quantization: {flow(found.quantization)}`"
    for key in RELATED:
        if (entry := variant.entries.get(key)) is None or (key == QUANTIZATION and isinstance(entry.value, Mapping)):
            continue
        if key in found.problems:
            what, help_text = f": {found.problems[key]}", "remove it, or write `quantization: {kind: ...}`"
        else:
            what, help_text = "", f"{new}; {advice}"
        where = "`quantization` takes a kind now" if key == QUANTIZATION else f"`{key}` is a former key of a variant"
        yield Diagnostic(FORMER_KEY, f"{where}{what}", entry.key, help=help_text)


def migrated(data: dict[str, Any], document: Document) -> dict[str, Any]:
    """Return the data of a profile in the present spelling: what a rewritten file must hold."""
    result = dict(data)
    nodes = document.find(["variants"])
    if isinstance(nodes, Sequence):
        result["variants"] = tuple(map(_variant, data["variants"], nodes.items))
    if PLACEMENT in result:
        placement, gates = result.pop(PLACEMENT), result.pop(GATES, None)
        both = [part for part in (gates, placement) if part is not None]
        # What is no mapping stays as it is, and is refused as the value of `gates`.
        is_plain = all(isinstance(part, dict) for part in both)
        result[GATES] = {key: value for part in both for key, value in part.items()} if is_plain else placement
    return result


def _variant(data: Any, node: Node) -> Any:
    if not isinstance(node, Mapping) or not is_former(node):
        return data
    result = {key: value for key, value in data.items() if key not in RELATED}
    how = rewritten(node).quantization
    return result if how is None else {**result, QUANTIZATION: how}


def flow(value: Any) -> str:
    """Write a value as YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    return value if isinstance(value, str) else json.dumps(value)
