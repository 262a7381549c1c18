"""docs/bundle.md names every field of the bundle's files, and all that a loader lets session.json say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from tests.support.bundles import runtime_module

from ortc.bundle.manifest import PROMISE_KEYS, Manifest, Promises, promise_of
from ortc.bundle.session_file import SessionFile

PAGE = (Path(__file__).parents[3] / "docs" / "bundle.md").read_text("utf-8")


def section(title: str) -> str:
    """The text below a heading, up to the next one of its level."""
    found = re.search(rf"(?ms)^(##+) {re.escape(title)}\n(.*?)(?=^##? |\Z)", PAGE)
    assert found is not None, title
    return found[2]


def fields(model: type[BaseModel]) -> Iterator[str]:
    """Names of a model's fields and of all models inside of it."""
    for name, field in model.model_fields.items():
        if (model, name) == (Promises, "limits"):
            # Every limit is a key of its own.
            yield from map(promise_of, PROMISE_KEYS)
            continue
        yield name
        yield from (inner for part in _models(field.annotation) for inner in fields(part))


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


@pytest.mark.parametrize(("title", "model"), [("manifest.json", Manifest), ("session.json", SessionFile)])
def test_every_field_is_named(title: str, model: type[BaseModel]) -> None:
    code = re.findall(r"`([^`\n]+)`|\"(\w+)\":", section(title))
    named = set(re.findall(r"\w+", " ".join(part for pair in code for part in pair)))
    assert sorted(set(fields(model)) - named) == []


def test_everything_that_a_loader_allows_is_listed() -> None:
    settings = runtime_module("loading.settings")
    text = section("What session.json may say")
    rows = {match[1]: set(match[2].split()) for match in re.finditer(r"(?m)^\| `?([\w ]+?)`? \| `([^`]*)` \|$", text)}
    allowed = {
        "session_options": settings.SESSION_OPTIONS,
        "config_entries": settings.CONFIG_ENTRIES,
        "environment": settings.ENVIRONMENT,
        **{name: options for name, options in settings.PROVIDER_OPTIONS.items() if options},
        "load_config": settings.OPENVINO_PROPERTIES,
    }
    assert rows == allowed
