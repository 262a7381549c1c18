"""The first spec of a model, as text with comments, from what an inspection found out."""

import json
import re
from dataclasses import dataclass, field

from ortc.spec.syntax.scalars import core_value

_PLAIN = re.compile(r"[A-Za-z0-9_./][\w./+ -]*(?<! )", re.ASCII)
_NO_NAME = re.compile(r"[^a-z0-9._-]+")
_ENDS = "._-"
_MAX_NAME = 63
_TARGETS = """\
A promise that is not kept fails the build: {latency_budget: {p99: 50ms}, size_budget: 200MB}.
`precision: auto` takes the fastest variant that keeps the cosine. `unmeasured: allow` where the machine that builds
lacks the target's hardware. `ortc targets` lists the profiles.
`objective: balanced`: another runtime or a lower precision must save `must_save: 10%` of the latency budget, or of the
simpler variant's time where there is no budget; `latency` takes the fastest whatever it costs."""

Scalar = str | int | float | bool
Value = Scalar | list["Value"] | dict[str, "Value"]
"""What a draft writes."""


@dataclass(frozen=True)
class Draft:
    """What goes into a first spec; everything else has its default."""

    about: str
    """One line: what was inspected."""
    name: str
    model: dict[str, Value]
    opset: int
    axes: dict[str, dict[str, Value]]
    inputs: dict[str, dict[str, Value]] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    notes: dict[str, str] = field(default_factory=dict)
    """Comments by the key that they stand above: a key of `model`, or `dynamic_axes`, `inputs`, `outputs`."""
    text_samples: bool = False
    """Whether the model has a tokenizer, so that samples can be lines of text."""


def spec_name(text: str) -> str:
    """A name as the spec language has them, from any text."""
    name = _NO_NAME.sub("-", text.lower()).strip(_ENDS)[:_MAX_NAME].rstrip(_ENDS)
    return name or "model"


def render(draft: Draft, targets: tuple[str, ...], schema: str) -> str:
    """The text of a spec.

    Args:
        draft: What is known about the model.
        targets: Names of target profiles.
        schema: Where the JSON Schema lies, relative to the spec.
    """
    lines = [
        f"# yaml-language-server: $schema={schema}",
        f"# {draft.about}",
        "apiVersion: ortc/v1alpha1",
        "kind: ModelDeployment",
        f"name: {scalar(draft.name)}",
        "version: 0.1.0",
        "model:",
    ]
    for key, value in draft.model.items():
        lines += _comment(draft.notes.get(key), 2)
        lines += _entry(key, value, 2)
    lines += ["export:", f"  opset: {draft.opset}"]
    lines += _block("dynamic_axes", dict(draft.axes), draft)
    lines += _block("inputs", dict(draft.inputs), draft)
    lines += _padding_mask(draft.inputs)
    if draft.outputs:
        lines += _comment(draft.notes.get("outputs"), 2)
        lines += _entry("outputs", list(draft.outputs), 2)
    lines += _accuracy(draft)
    lines += ["targets:", *_comment(_TARGETS, 2)]
    lines += [f"  {scalar(name)}: {{objective: balanced}}" for name in targets]
    return "\n".join(lines) + "\n"


def scalar(value: Scalar) -> str:
    """A single value in YAML: quoted where YAML would read something else."""
    if not isinstance(value, str):
        return json.dumps(value)
    try:
        plain = _PLAIN.fullmatch(value) is not None and core_value(value) == value
    except OverflowError:
        plain = False
    return value if plain else json.dumps(value, ensure_ascii=False)


def _flow(value: Value) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{scalar(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    return scalar(value)


def _entry(key: str, value: Value, indent: int) -> list[str]:
    """A key with its value; a mapping goes over several lines, one for each of its keys."""
    lead = " " * indent
    if isinstance(value, dict) and value:
        inner = [f"{lead}  {scalar(name)}: {_flow(item)}" for name, item in value.items()]
        return [f"{lead}{scalar(key)}:", *inner]
    return [f"{lead}{scalar(key)}: {_flow(value)}"]


def _block(key: str, value: dict[str, Value], draft: Draft) -> list[str]:
    return [*_comment(draft.notes.get(key), 2), *_entry(key, value, 2)] if value else []


def _padding_mask(inputs: dict[str, dict[str, Value]]) -> list[str]:
    """The padding mask where an input [batch, positions] has PyTorch's name for one, which is 1 at padding."""
    for name, tensor in inputs.items():
        shape = tensor.get("shape")
        if name.endswith("padding_mask") and isinstance(shape, list) and len(shape) == 2:
            note = "1 marks padding; `padded: false` where it marks the positions that are read."
            return [*_comment(note, 2), f"  mask: {_flow({'input': name, 'padded': True})}"]
    return []


def _accuracy(draft: Draft) -> list[str]:
    suffix, form = ("txt", "one text a line") if draft.text_samples else ("npz", "an array an input")
    return [
        "accuracy:",
        "  # Greatest difference of a variant that promises fp32, and least cosine of one at reduced precision.",
        "  max_abs: 1e-4",
        "  cosine: 0.98",
        "  # The limits `relative_error`, `nrmse` and `spearman` of reduced precision follow from it, unless given.",
        *_comment(draft.notes.get("samples"), 2),
        f"  # Real inputs prove more than synthetic ones; {form}:",
        f"  # samples: data/samples.{suffix}",
    ]


def _comment(text: str | None, indent: int) -> list[str]:
    return [f"{' ' * indent}# {line}" for line in text.splitlines()] if text else []
