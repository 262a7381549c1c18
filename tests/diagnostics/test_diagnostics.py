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

from ortc.plan.checks import check_spec, load_profiles
from ortc.plan.checks.plan import check_plan
from ortc.plan.resolve import resolve
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
    cpu, edge = plan["targets"]
    plan["export"]["opset"] = 99
    fp32 = cpu["variants"][0]
    fp32["session"]["config_entries"] |= {"session.spinning": "1"}
    fp32["session"]["providers"][0]["name"] = "CpuExecutionProvider"
    fp32["runtime"]["pins"] = "onnxruntimes"
    cpu["tuning"][0]["options"] = {"enable_mem_patern": True}
    cpu["image"]["template"] = "Dockerfile.jinja"
    cpu["measure_at"]["sizes"][0][0] = "bach"
    edge["budgets"]["size"] = 20


def misname(plan: Json) -> None:
    plan["name"] = "../elsewhere"
    plan["exports"] = plan.pop("export")
    plan["targets"][0]["budgets"] |= {"size": "50MB", "start": 0}
    plan["targets"][1]["platforms"] = ["linux/riscv64"]
    del plan["targets"][1]["variants"][0]["runtime"]["version"]


def another(plan: Json) -> None:
    for target in plan["targets"]:
        target["variants"][0]["runtime"]["pins_sha256"] = "0" * 64
    plan["export"]["ir_version"] += 1
    plan["cases"].pop()
    plan["targets"][0]["measure_at"]["sizes"].reverse()


def out_of_reach(plan: Json) -> None:
    """A variant that cannot be tried for what the rest of the plan says."""
    plan["model"]["weights"] = "pretrained"
    plan["targets"][1]["variants"][0]["quantization"] = "int8-static"


PLANS: dict[str, Callable[[str], str]] = {
    "plan-cut-off": lambda text: text[: text.index('"opset"') + 8],
    "plan-no-json": lambda text: text.replace('"version": "1.0.0",', "version: 1.0.0,"),
    "plan-followed": lambda text: text * 2,
    "plan-list": lambda text: f"[{text}]",
    "plan-numbers": lambda text: text.replace('"max_abs": 0.0001', '"max_abs": 1e999, "max_abs": NaN'),
    "plan-format": changed(lambda plan: plan.update(format_version=2, ortc_version="0.0.9")),
    "plan-of-a-bundle": lambda _: '{"format_version": 1, "kind": "ortc-bundle", "name": "bert"}',
    "plan-with-stages": lambda text: f'{{"format_version": 1, "plan": {text.strip()}, "stages": []}}',
    "plan-misspelt": changed(misname),
    "plan-repeated-names": changed(lambda plan: plan["targets"].append(plan["targets"][0])),
    "plan-precision": changed(lambda plan: plan["targets"][0].update(precision="int8")),
    "plan-targets": changed(mix_up),
    "plan-variant": changed(out_of_reach),
    "plan-not-what-follows": changed(another),
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
    profiles, _ = load_profiles(loaded)
    return resolve(loaded.spec, {name: item.profile for name, item in profiles.items()}).to_json()


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
