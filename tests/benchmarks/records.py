"""The data files, below the machine's fingerprint: JSON, a race for each model and shape, starts and costs a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"
FORMAT_VERSION = 1

Json = dict[str, Any]


def place(fingerprint: str, kind: str, model: str, label: str = "") -> Path:
    """Where a document lies: data/FINGERPRINT/KIND-MODEL[-LABEL].json."""
    return DATA / fingerprint / f"{'-'.join(part for part in (kind, model, label) if part)}.json"


def read(path: Path) -> Json | None:
    """A document, or None where there is none.

    Raises:
        ValueError: it is of another format.
    """
    if not path.is_file():
        return None
    document: Json = json.loads(path.read_text("utf-8"))
    if document.get("format_version") != FORMAT_VERSION:
        raise ValueError(f"{path} has format_version {document.get('format_version')}, expected {FORMAT_VERSION}")
    return document


def write(path: Path, document: Json) -> None:
    """Write a document; samples of one turn stay on one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(_text({"format_version": FORMAT_VERSION, **document}) + "\n", "utf-8")
    fresh.replace(path)


def _text(value: object, indent: str = "") -> str:
    deeper = indent + " "
    if isinstance(value, dict) and value:
        rows = ",\n".join(f"{deeper}{json.dumps(key)}: {_text(entry, deeper)}" for key, entry in value.items())
        return f"{{\n{rows}\n{indent}}}"
    if isinstance(value, list) and value and not all(isinstance(entry, int | float | str) for entry in value):
        rows = ",\n".join(f"{deeper}{_text(entry, deeper)}" for entry in value)
        return f"[\n{rows}\n{indent}]"
    return json.dumps(value, ensure_ascii=False)
