"""`make proofs`: what is outstanding after a kill, its records, and the tests that prove the same in `make test`."""

from __future__ import annotations

import ast
import importlib
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]
RECORDS = sorted((ROOT / "tests" / "proofs" / "records").glob("*.json"))


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "proofs"))
    return importlib.import_module("journal")


def test_a_run_goes_on_where_it_was_killed(journal: ModuleType, tmp_path: Path) -> None:
    place = tmp_path / "proofs" / "commit.jsonl"
    proofs = ["a", "b", "c", "d", "e"]
    assert journal.outstanding(proofs, journal.read(place)) == proofs
    for proof, outcome in (("a", "passed"), ("b", "failed"), ("c", "skipped")):
        journal.append(place, journal.Entry(proof, outcome, 1.0, "2026-11-30T10:00:00+00:00"))
    with place.open("a") as stream:
        stream.write('{"proof": "d", "outc')
    assert journal.outstanding(proofs, journal.read(place)) == ["b", "d", "e"]
    journal.append(place, journal.Entry("b", "passed", 1.0, "2026-11-30T10:01:00+00:00"))
    found = journal.read(place)
    assert journal.outstanding(proofs, found) == ["d", "e"]
    assert journal.counts(found.values()) == {"passed": 2, "skipped": 1}


def test_records_say_what_ran_and_when_and_on_which_commit() -> None:
    for path in RECORDS:
        document = json.loads(path.read_bytes())
        assert re.fullmatch(r"[0-9a-f]{40}", document["commit"])
        assert document["began"] <= document["ended"]
        assert document["ended"].startswith(path.stem)
        outcomes = [entry["outcome"] for entry in document["proofs"].values()]
        assert document["counts"] == {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))}
        assert "failed" not in document["counts"]
        assert not set(document["outstanding"]) & document["proofs"].keys()


def test_every_proof_names_a_test_of_the_suite() -> None:
    """What takes too long for `make test` has a smaller test there, and says which."""
    functions, texts = set(), []
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef):
                functions.add(node.name)
            elif isinstance(node, ast.Call) and getattr(node.func, "attr", None) == "proof":
                texts.append((path.name, ast.literal_eval(node.args[0])))
    for name, text in texts:
        named = re.findall(r"\btest_\w+", text)
        assert named, f"{name}: {text}"
        assert set(named) <= functions, f"{name}: {text}"
