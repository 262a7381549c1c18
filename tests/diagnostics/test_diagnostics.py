"""Every bad spec beside the exact text that a user reads about it.

A case is `NAME.yaml`, or a project of its own in `NAME/` when it needs target profiles; `NAME.txt` is what is expected.
Lines `# --set KEY=VALUE` in a spec are its overrides. Bad plans are edited from the plan of a good spec. Rewrite the
expected files with `pytest --update-golden`, and read the difference.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ortc.plan.checks import CheckedSpec, check_spec, load_profiles
from ortc.plan.checks.plan import check_plan
from ortc.plan.plan_file import plan_file_text
from ortc.spec.diagnostics.diagnostic import Diagnostic, render_text, summary
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.diagnostics.rules import CATALOGUE, Rule
from ortc.spec.diagnostics.rules.markdown import page
from ortc.spec.diagnostics.source import SourceFile
from ortc.spec.load import from_document
from ortc.spec.syntax.text import MAX_BYTES, MAX_LINES
from ortc.spec.syntax.yaml_parser import parse

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
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


Json = dict[str, Any]


def changed(change: Callable[[Json], object]) -> Callable[[str], str]:
    """A plan with values replaced."""

    def edit(text: str) -> str:
        document = json.loads(text)
        change(document)
        return json.dumps(document, indent=2)

    return edit


def mix_up(plan: Json) -> None:
    """Mistakes of every kind in what a plan says of its targets."""
    cpu = plan["profiles"]["cpu"]
    plan["spec"]["export"]["opset"] = 99
    cpu["session"]["config_entries"] |= {"session.spinning": "1"}
    cpu["execution_providers"][0]["name"] = "CpuExecutionProvider"
    cpu["runtime"]["pins"] = "onnxruntimes"
    plan["pins"]["onnxruntimes"] = plan["pins"]["onnxruntime"]
    cpu["tuning"][0]["options"] = {"enable_mem_patern": True}
    cpu["image"]["template"] = "Dockerfile.jinja"
    plan["spec"]["targets"]["cpu"]["latency_budget"]["at"] = {"bach": 1}
    plan["spec"]["targets"]["edge"]["size_budget"] = "20B"


def misname(plan: Json) -> None:
    plan["spec"]["name"] = "../elsewhere"
    plan["spec"]["exports"] = plan["spec"].pop("export")
    plan["spec"]["targets"]["cpu"] |= {"size_budget": 20, "start_budget": "0s"}
    plan["spec"]["targets"]["edge"]["platforms"] = ["linux/riscv64"]
    del plan["profiles"]["edge"]["runtime"]["version"]
    plan["profil"] = {}


def others(plan: Json) -> None:
    """Choices that the spec and its profiles do not have, and the other way round."""
    plan["targets"].append("edges")
    plan["variant"] = "fp33"
    plan["profiles"]["edge"]["name"] = "board"
    plan["pins"] |= {"onnxruntime-gpu": "0" * 64}


def repinned(plan: Json) -> None:
    plan["pins"] = dict.fromkeys(plan["pins"], "0" * 64)


PLANS: dict[str, Callable[[str], str]] = {
    "plan-cut-off": lambda text: text[: text.index('"kind"') + 7],
    "plan-no-json": lambda text: text.replace('"version": "1.0.0",', "version: 1.0.0,", 1),
    "plan-followed": lambda text: text * 2,
    "plan-list": lambda text: f"[{text}]",
    "plan-numbers": lambda text: text.replace('"max": 4', '"max": 1e999, "max": NaN'),
    "plan-format": changed(lambda plan: plan.update(format_version=1, ortc_version="0.0.9")),
    "plan-of-a-bundle": lambda _: '{"format_version": 1, "kind": "ortc-bundle", "name": "bert"}',
    "plan-with-stages": lambda text: f'{{"format_version": 1, "plan": {text.strip()}, "stages": []}}',
    "plan-misspelt": changed(misname),
    "plan-targets": changed(mix_up),
    "plan-choices": changed(others),
    "plan-pins": changed(repinned),
}


def good_plan() -> str:
    """The plan of the good spec that the cases are edited from."""
    parts = {
        **BASE,
        "export": "export: {dynamic_axes: {batch: {max: 4}, sequence: {typical: 8, max: 64}}}\n",
        "targets": "targets: {cpu: {latency_budget: {p99: 9ms}}, edge: {platforms: [linux/arm64]}}\n",
    }
    # With profiles of its own: see plans/targets.
    loaded = from_document(parse(SourceFile("spec.yaml", "".join(parts.values()))), (), HERE / "plans")
    return plan_file_text(CheckedSpec(loaded, load_profiles(loaded)[0], ()))


def diagnose_plan(path: Path) -> tuple[Diagnostic, ...]:
    try:
        return check_plan(path, ROOT).warnings
    except SpecError as error:
        return error.diagnostics


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
    monkeypatch.chdir(tmp_path)
    if name in PLANS:
        path = Path(f"{name}.json")
        path.write_text(PLANS[name](good_plan()), "utf-8")
        return diagnose_plan(path)
    path = Path(f"{name}.yaml")
    GENERATED[name](path)
    return diagnose(path)


def test_the_plan_that_is_edited_is_good(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(good_plan(), "utf-8")
    assert diagnose_plan(tmp_path / "plan.json") == ()


@pytest.mark.parametrize("name", [*WRITTEN, *GENERATED, *PLANS])
def test_text(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, update_golden: bool) -> None:
    found = found_in(name, tmp_path, monkeypatch)
    assert found, "the spec has no mistake"
    text = f"{render_text(found)}\n{summary(found)}\n"
    expected = HERE / f"{name}.txt"
    if update_golden:
        expected.write_text(text, "utf-8")
    assert text == (expected.read_text("utf-8") if expected.exists() else ""), "see `pytest --update-golden`"


def test_no_expectation_is_left_over() -> None:
    assert {path.stem for path in HERE.glob("*.txt")} == {*WRITTEN, *GENERATED, *PLANS}


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
    path = ROOT / "docs" / "diagnostics.md"
    if update_golden:
        path.write_text(page(), "utf-8")
    assert path.read_text("utf-8") == page(), "run `python -m ortc.spec.diagnostics.rules > docs/diagnostics.md`"
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
    monkeypatch.setenv("ORTC_VERSION", "1.0.0")
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
