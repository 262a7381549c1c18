"""The directory of an adapter: the spec is that of its base, with the adapter."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ortc.common.digests import sha256_file
from ortc.common.plain_files import is_directory, is_plain, read_plain
from ortc.common.texts import shown
from ortc.inspection.draft_spec import Draft, Value, spec_name
from ortc.inspection.findings import InspectionError
from ortc.spec.model_sources import ADAPTER_FILES

TASKS = {
    "SEQ_CLS": "text-classification",
    "TOKEN_CLS": "token-classification",
    "QUESTION_ANS": "question-answering",
    "FEATURE_EXTRACTION": "feature-extraction",
    "CAUSAL_LM": "causal-lm",
}
"""PEFT's names of tasks, with those of a spec."""


def adapted(path: Path, root: Path, place: str, inspect: Callable[[Path], Draft]) -> Draft:
    """Draft the spec of an adapter's base with the adapter merged into it.

    Args:
        path: the directory of the adapter.
        root: what relative paths of the spec start from.
        place: the directory as the spec has it.
        inspect: drafts the spec of a directory.

    Raises:
        InspectionError: the base is no directory here, or the adapter has no safetensors file.
    """
    try:
        config = json.loads(read_plain(path / ADAPTER_FILES[0]))
    except (OSError, ValueError, RecursionError) as error:
        raise InspectionError(f"`{path / ADAPTER_FILES[0]}` cannot be read: {error}") from error
    named = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    if not is_plain(path / ADAPTER_FILES[1]):
        raise InspectionError(
            f"`{path}` is an adapter without {ADAPTER_FILES[1]}; save it with PEFT's save_pretrained()"
        )
    base = next((found for found in _places(named, path, root) if is_plain(found / "config.json")), None)
    if base is None:
        raise InspectionError(
            f"`{path}` is an adapter over {shown(str(named))}, which is no directory here: inspect its base, as in "
            f"`ortc init BASE`, and add `adapter: {{path: {place}}}` to `model`"
        )
    draft = inspect(base)
    files: dict[str, Value] = {name: sha256_file(path / name) for name in ADAPTER_FILES}
    merged: dict[str, Value] = {"path": place, "files": files}
    model: dict[str, Value] = {**draft.model, "adapter": merged}
    notes = {**draft.notes, "adapter": "Merged into the model before it is exported; add the licences of both."}
    if (task := TASKS.get(str(config.get("task_type")))) is not None:
        model["task"] = task
        notes.pop("task", None)
    return replace(draft, name=spec_name(f"{draft.name}-{path.resolve().name}"), model=model, notes=notes)


def _places(named: object, path: Path, root: Path) -> list[Path]:
    """Where the base may be: as the adapter names it, from the root, the adapter and its directory's neighbours."""
    if not isinstance(named, str) or not named:
        return []
    tried = (Path(named), root / named, path / named, path.parent / Path(named).name)
    return [place for place in tried if is_directory(place)]
