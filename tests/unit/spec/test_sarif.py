"""SARIF output against the published schema, and what readers of it rely on."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft4Validator

from ortc.__main__ import run
from ortc.spec.diagnostics.diagnostic import Diagnostic, Related
from ortc.spec.diagnostics.rules import CATALOGUE
from ortc.spec.diagnostics.rules.checks import OPSET, UNUSED_AXIS
from ortc.spec.diagnostics.sarif import to_sarif
from ortc.spec.diagnostics.source import SourceFile, Span

ROOT = Path(__file__).parents[3]
VALIDATOR = Draft4Validator(json.loads((ROOT / "tests/data/sarif-2.1.0-rtm.4.json").read_text("utf-8")))
BAD = sorted((ROOT / "tests/diagnostics").glob("*.yaml"))


def span(name: str, text: str = "name: bert\n", *, argument: int | None = None) -> Span:
    return SourceFile(name, text, argument).span(6, 10)


def valid(text: str) -> dict[str, Any]:
    """The run of a SARIF log, once the log follows the schema and its rule indices point at the right rules."""
    log = json.loads(text)
    assert [error.message for error in VALIDATOR.iter_errors(log)] == []
    (only,) = log["runs"]
    rules = only["tool"]["driver"]["rules"]
    for result in only["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
    return dict(only)


def test_rules_are_the_catalogue() -> None:
    rules = valid(to_sarif([]))["tool"]["driver"]["rules"]
    assert [(rule["id"], rule["name"]) for rule in rules] == [(rule.code, rule.name) for rule in CATALOGUE]
    levels = {rule["id"]: rule["defaultConfiguration"]["level"] for rule in rules}
    assert levels == {rule.code: rule.severity for rule in CATALOGUE}


def test_result() -> None:
    related = Related(span("targets/cpu.yaml"), "declared here")
    found = Diagnostic(OPSET, "opset 27", span("specs/a b.yaml"), "the runtime 26", "use 20", (related,))
    (result,) = valid(to_sarif([found]))["results"]
    assert result["level"] == "error"
    assert result["message"]["text"] == "opset 27 (the runtime 26)\nhelp: use 20"
    assert result["locations"] == [
        {
            "physicalLocation": {
                "artifactLocation": {"uri": "specs/a%20b.yaml"},
                "region": {"startLine": 1, "startColumn": 7, "endLine": 1, "endColumn": 11},
            }
        }
    ]
    assert result["relatedLocations"][0]["message"]["text"] == "declared here"


@pytest.mark.parametrize(
    ("name", "uri"),
    [("/spec.yaml", "file:///spec.yaml"), ("a:b%.yaml", "a%3Ab%25.yaml"), ("../é.yaml", "../%C3%A9.yaml")],
)
def test_uris(name: str, uri: str) -> None:
    (result,) = valid(to_sarif([Diagnostic(OPSET, "m", span(name))]))["results"]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == uri


def test_without_a_file() -> None:
    argument = Diagnostic(OPSET, "m", span("--set", "name=bert", argument=0))
    results = valid(to_sarif([argument, Diagnostic(UNUSED_AXIS, "w")]))["results"]
    assert results[0]["locations"] == [{"logicalLocations": [{"fullyQualifiedName": "--set name=bert"}]}]
    assert "locations" not in results[1]
    assert results[1]["level"] == "warning"


def test_check(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert run(["check", "specs/bert.yaml", "--output-format", "sarif"]) == 0
    assert valid(capsys.readouterr().out)["results"] == []
    files = [str(path.relative_to(ROOT)) for path in BAD]
    assert run(["check", *files, "--output-format", "sarif"]) == 3
    results = valid(capsys.readouterr().out)["results"]
    places = {location["physicalLocation"]["artifactLocation"]["uri"] for r in results for location in r["locations"]}
    assert len(results) > 100
    assert len(places) > 60
