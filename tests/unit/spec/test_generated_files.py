"""The tables that targets/ generates: written in one way, and without the places that they came from."""

import importlib
import json
import re
from pathlib import Path

import pytest

from ortc.common.resources import data_dir, targets_dir


@pytest.mark.parametrize("path", sorted(data_dir().rglob("*.json")), ids=lambda path: path.name)
def test_generated_files_are_canonical_and_name_no_place(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(targets_dir()))
    to_json = importlib.import_module("generate_common").to_json
    text = path.read_text(encoding="utf-8")
    assert text == to_json(json.loads(text))
    assert not re.search(r"https?:|file:|/(home|root|tmp|opt|usr)/", text)
    assert json.loads(text)["format_version"] == 1
