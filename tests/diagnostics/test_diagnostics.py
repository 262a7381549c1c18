"""Every bad spec beside the exact text that a user reads about it.

A case is `NAME.yaml`, or a project of its own in `NAME/` when it needs target profiles; `NAME.txt` is what is expected.
Lines `# --set KEY=VALUE` in a spec are its overrides. Rewrite the expected files with `pytest --update-golden`, and
read the difference.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ortc.checks import check_spec
from ortc.diagnostics import Diagnostic, render_text, summary
from ortc.errors import SpecError
from ortc.read import MAX_BYTES, MAX_LINES
from ortc.rules import CATALOGUE, Rule
from ortc.rules.markdown import page

HERE = Path(__file__).parent
WRITTEN = {path.stem: path.relative_to(HERE) for path in sorted(HERE.glob("*.yaml"))} | {
    path.parent.name: path.relative_to(HERE) for path in sorted(HERE.glob("*/spec.yaml"))
}
GENERATED: dict[str, Callable[[Path], object]] = {
    "file-missing-spec": lambda path: None,
    "file-is-directory": lambda path: path.mkdir(),
    "file-too-large": lambda path: path.write_bytes(b"# " + b"x" * MAX_BYTES),
    "file-too-long": lambda path: path.write_text("\n" * (MAX_LINES + 1)),
    "file-utf16": lambda path: path.write_bytes("name: bert\n".encode("utf-16")),
    "file-latin1": lambda path: path.write_bytes("# spec\nname: café\n".encode("latin-1")),
}
BASE = {
    "apiVersion": "apiVersion: ortc/v1alpha1\n",
    "kind": "kind: ModelDeployment\n",
    "name": "name: example\n",
    "version": "version: 1.0.0\n",
    "model": "model: {source: huggingface, path: examples/bert-base, weights: random}\n",
    "targets": "targets:\n  cpu: {}\n",
}


def diagnose(path: Path) -> tuple[Diagnostic, ...]:
    """What is found in a spec, with the overrides that its comments name."""
    overrides: tuple[str, ...] = ()
    if path.is_file():
        overrides = tuple(re.findall(r"(?m)^# --set (.*)$", path.read_text("utf-8", errors="replace")))
    try:
        return check_spec(path, overrides).warnings
    except SpecError as error:
        return error.diagnostics


def found_in(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Diagnostic, ...]:
    monkeypatch.delenv("ORTC_UNSET", raising=False)
    monkeypatch.setenv("ORTC_EMPTY", "")
    monkeypatch.setenv("ORTC_CONTROL", "a\x1b[2Jb")
    monkeypatch.setenv("ORTC_WORDS", "two words")
    if name in WRITTEN:
        monkeypatch.chdir(HERE)
        return diagnose(WRITTEN[name])
    path = Path(f"{name}.yaml")
    monkeypatch.chdir(tmp_path)
    GENERATED[name](path)
    return diagnose(path)


@pytest.mark.parametrize("name", [*WRITTEN, *GENERATED])
def test_text(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, update_golden: bool) -> None:
    found = found_in(name, tmp_path, monkeypatch)
    assert found, "the spec has no mistake"
    text = f"{render_text(found)}\n{summary(found)}\n"
    expected = HERE / f"{name}.txt"
    if update_golden:
        expected.write_text(text, "utf-8")
    assert text == (expected.read_text("utf-8") if expected.exists() else ""), "see `pytest --update-golden`"


def test_no_expectation_is_left_over() -> None:
    assert {path.stem for path in HERE.glob("*.txt")} == {*WRITTEN, *GENERATED}


def test_every_rule_is_shown() -> None:
    shown = set(re.findall(r"\[(ORTC\d+)\]", "".join(path.read_text("utf-8") for path in HERE.glob("*.txt"))))
    assert shown == {rule.code for rule in CATALOGUE}


def test_enough_cases() -> None:
    several = [
        path for path in HERE.glob("*.txt") if len(re.findall(r"(?m)^(?:error|warning)\[", path.read_text())) > 1
    ]
    assert len([*WRITTEN, *GENERATED]) >= 60
    assert len(several) >= 10


def test_documentation_is_up_to_date(update_golden: bool) -> None:
    path = HERE.parents[1] / "docs" / "diagnostics.md"
    if update_golden:
        path.write_text(page(), "utf-8")
    assert path.read_text("utf-8") == page(), "run `python -m ortc.rules > docs/diagnostics.md`"
    anchors = re.findall(r"\(#([^)]+)\)", page())
    assert anchors == [f"{rule.code.lower()}-{rule.name}" for rule in CATALOGUE]
    assert [line.removeprefix("### ") for line in page().splitlines() if line.startswith("### ")] == [
        f"{rule.code} {rule.name}" for rule in CATALOGUE
    ]


def test_codes_and_names_are_unique_and_rising() -> None:
    codes = [rule.code for rule in CATALOGUE]
    assert codes == sorted(set(codes))
    assert len({rule.name for rule in CATALOGUE}) == len(CATALOGUE)


@pytest.mark.parametrize(
    "rule", [rule for rule in CATALOGUE if not rule.bad.startswith("$")], ids=lambda rule: rule.code
)
def test_examples_of_a_rule(rule: Rule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bad example of the catalogue breaks the rule, the good one does not break any."""
    monkeypatch.chdir(HERE)
    monkeypatch.setenv("VERSION", "1.0.0")
    path = HERE / f"_{rule.code}.yaml"
    try:
        path.write_text(_whole(rule.bad), "utf-8")
        bad = {diagnostic.code for diagnostic in diagnose(path)}
        path.write_text(_whole(rule.good), "utf-8")
        good = {diagnostic.code for diagnostic in diagnose(path)}
    finally:
        path.unlink()
    assert rule.code in bad
    assert not good


def _whole(example: str) -> str:
    """An example with everything else that a spec needs."""
    keys = re.findall(r"(?m)^([A-Za-z]+):", example)
    if not keys:
        return example
    return "".join(text for key, text in BASE.items() if key not in keys) + example
