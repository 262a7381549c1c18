"""`ortc build --plan`: a plan is read back as it was made, and whatever else is in the file is refused at its place."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.support.graphs import model, node
from tests.support.plans import ROOT, SPECS, plan, plan_text

from ortc.__main__ import run
from ortc.build import pipeline
from ortc.evaluation.report import BuildReport
from ortc.plan.checks import check_spec
from ortc.plan.checks.plan import check_plan
from ortc.plan.plan import Plan
from ortc.plan.resolve import resolve
from ortc.spec.diagnostics.diagnostic import render_text
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.diagnostics.source import SourceFile
from ortc.spec.syntax.json_parser import MAX_NODES, parse_json
from ortc.spec.syntax.text import PLAN

BERT = ROOT / "specs" / "bert.yaml"
DIGITS = ROOT / "specs" / "digits.yaml"
Json = Any
BUDGETS = (
    "targets.cpu.latency_budget={p50: 1.7ms, p90: 120us, p99: 1min, at: {sequence: 3}}",
    "targets.cpu.latency_budget.p90=2.3ms",
    "targets.cpu.size_budget=777MiB",
    "targets.cpu.memory_budget=2GB",
    "targets.cpu.start_budget=0.3s",
    "targets.cpu.min_speedup=1.1",
    "targets.server-gpu.max_cpu_nodes=0",
    "targets.server-gpu.max_memcpy_nodes=2",
    "targets.cpu.batch_invariance=require",
    "targets.cpu.objective=size",
)


def checked(text: str) -> Plan:
    return check_plan(text.encode(), ROOT).plan


def findings(text: str) -> list[tuple[str, int]]:
    """Code and line of everything that is found in a plan."""
    with pytest.raises(SpecError) as caught:
        checked(text)
    return [(item.code, 0 if item.span is None else item.span.start.line) for item in caught.value.diagnostics]


@pytest.mark.parametrize("spec", SPECS, ids=lambda path: path.stem)
@pytest.mark.parametrize("precision", [None, "auto", "int8"])
def test_what_was_printed_is_what_is_built(spec: Path, precision: str | None) -> None:
    overrides = [f"targets.cpu.precision={precision}"] if precision else []
    made, written = plan(spec, *overrides), plan_text(spec, *overrides)
    assert checked(written) == made
    # However it is written: one line, other order, escapes, tabs.
    document = json.loads(written)
    for text in (
        json.dumps(document),
        json.dumps(dict(sorted(document.items())), indent="\t"),
        "\ufeff" + json.dumps(document, ensure_ascii=False, separators=(" ,", ": ")) + "\r\n",
    ):
        assert checked(text).digest() == made.digest()


def test_every_promise_survives() -> None:
    made = plan(BERT, *BUDGETS)
    assert checked(plan_text(BERT, *BUDGETS)) == made
    assert checked(plan_text(BERT, *BUDGETS, targets=("edge", "cpu"))) == made.slice("edge", "cpu")


@pytest.mark.parametrize("search", ["full", "quick", "none"])
@pytest.mark.parametrize("variant", [None, "fp32", "int8-dynamic"])
def test_how_far_to_look_survives(search: Any, variant: str | None) -> None:
    found = check_spec(BERT)
    made = resolve(found.loaded.spec, found.profiles, ("cpu",), search=search, variant=variant)
    assert checked(plan_text(BERT, targets=("cpu",), search=search, variant=variant)) == made


def test_a_variant_by_name_is_the_only_one() -> None:
    """Of another precision than the target's it is by name alone."""
    document = json.loads(plan_text(BERT, targets=("cpu",), variant="int8-dynamic"))
    assert [entry.name for entry in checked(json.dumps(document)).targets[0].variants] == ["int8-dynamic"]
    document["variant"] = "int8-dynamics"
    assert {code for code, _ in findings(json.dumps(document))} == {"ORTC162"}


def test_what_is_chosen_has_to_be_there() -> None:
    """Targets, profiles, pinned sets and the base of the spec: each fits the rest of the file."""

    def change(document: Json) -> None:
        document["targets"] += ["cpu", "gpu"]
        document["profiles"]["other"] = document["profiles"]["cpu"]
        document["profiles"]["cpu"] = document["profiles"].pop("edge")
        del document["pins"]["onnxruntime"]
        document["pins"]["torch"] = "0" * 64
        document["spec"]["base"] = "common.yaml"

    with pytest.raises(SpecError) as caught:
        checked(edited(change))
    assert {item.code for item in caught.value.diagnostics} == {"ORTC162"}
    messages = [item.message for item in caught.value.diagnostics]
    assert sorted(messages) == [
        "the pinned set `onnxruntime`: a profile names it, and `pins` has no digest of it",
        "the pinned set `torch`: no profile names it",
        "the profile of `cpu` is `edge`, its target wants `cpu`",
        "the profile of `other` belongs to no target of the spec",
        "the spec has no target `gpu`; it has `cpu` and `edge`",
        "the spec of a plan has a `base`, and a plan holds the spec with its base",
        "the target `cpu` is there twice",
        "the target `edge` has no profile in `profiles`",
    ]


def test_sources_and_inputs_survive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shape = {"x": ["a", "b", 3], "y": ["c", "d"], "é": []}
    graph = model([node("Identity", "x", "z")], shape, {"z": ["a", "b", 3]})
    Path("model.onnx").write_bytes(graph.SerializeToString())
    Path("spec.yaml").write_text(
        "apiVersion: ortc/v1alpha1\nkind: ModelDeployment\nname: a\nversion: 1.0.0\n"
        "model: {source: onnx, path: model.onnx}\n"
        "export:\n  dynamic_axes: {a: {max: 9}, b: {max: 9, multiple_of: 3, min: 3},\n"
        "    c: {typical: 4, max: 16}, d: {typical: 4, max: 16}}\n"
        "  inputs:\n    x: {dtype: float32, shape: [a, b, 3], range: [-0.5, 1]}\n"
        "    y: {dtype: int64, shape: [c, d], fill: 2}\n    é: {dtype: bool, shape: []}\n"
        "targets: {mine: {profile: cpu}}\n",
        "utf-8",
    )
    made = plan(Path("spec.yaml"))
    assert made.skipped_cases
    assert check_plan(plan_text(Path("spec.yaml")).encode(), tmp_path).plan == made


def test_warnings_are_those_of_the_spec() -> None:
    text = plan_text(BERT, "model.revision=main")
    assert [item.code for item in check_plan(text.encode(), ROOT).warnings] == ["ORTC306"]


def edited(change: Any, spec: Path = DIGITS) -> str:
    document = json.loads(plan_text(spec))
    change(document)
    return json.dumps(document, indent=2)


def test_an_edit_is_taken_at_its_word() -> None:
    def change(document: Json) -> None:
        document["spec"]["accuracy"]["max_abs"] = 1e-3
        document["spec"]["targets"]["cpu"] |= {"precision": "int8", "start_budget": "2.5s", "memory_budget": "1GB"}
        document["profiles"]["cpu"]["graph_levels"] = ["basic"]

    found = checked(edited(change))
    assert found.accuracy.max_abs == 1e-3
    assert {variant.precision for variant in found.targets[0].variants} == {"int8"}
    assert (found.targets[0].budgets.limit("start_budget"), found.targets[0].graph_levels) == (2.5, ("basic",))
    assert found.digest() != plan(DIGITS).digest()


def leaves(node: Json, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from leaves(value, (*path, key))


TEXTS = {spec.stem: plan_text(spec, *(BUDGETS if spec == BERT else ())) for spec in SPECS}
PLACES = [(name, path) for name, text in TEXTS.items() for path in leaves(json.loads(text))]
junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([-1, 0, 1, 2**31, 2**64, 10**399])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["batch", "sequence", "cpu", "fp32", "int8", "auto", "../x", "${env:HOME}", "p99", "a:b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
relaxed = settings(
    max_examples=examples(150), suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


def looked_at(text: str) -> Plan | None:
    """The plan, or none where it was refused; what is said about it can be shown."""
    try:
        return check_plan(text.encode(errors="surrogatepass"), ROOT).plan
    except SpecError as error:
        diagnostics = error.diagnostics
    assert render_text(diagnostics)
    assert all(item.span is not None for item in diagnostics)
    return None


@relaxed
@given(st.sampled_from(PLACES), junk, st.sampled_from(["replace", "remove", "add", "repeat"]))
def test_any_change_gives_a_plan_or_diagnostics(
    place: tuple[str, tuple[str | int, ...]], value: Json, how: str
) -> None:
    name, path = place
    document = json.loads(TEXTS[name])
    node = document
    for step in path[:-1]:
        node = node[step]
    if how == "remove":
        del node[path[-1]]
    elif how == "repeat" and isinstance(node, list):
        node.append(node[path[-1]])
    elif how == "add" and isinstance(node, dict):
        node["more"] = value
    else:
        node[path[-1]] = value
    looked_at(json.dumps(document))


@relaxed
@given(st.sampled_from(sorted(TEXTS)), st.data())
def test_any_text_gives_a_plan_or_diagnostics(name: str, data: st.DataObject) -> None:
    text = TEXTS[name]
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 40)))
    looked_at(text[:start] + data.draw(st.text(max_size=6) | st.sampled_from(list('{}[],:"\\'))) + text[end:])


@given(st.binary(max_size=60))
def test_any_bytes_give_diagnostics(content: bytes) -> None:
    with pytest.raises(SpecError):
        check_plan(content, ROOT)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(10**30), 10**30)
        | st.floats(allow_nan=False, allow_infinity=False)
        # What a spec and a plan refuse to hold is left out.
        | st.text(st.characters(exclude_categories=["Cs", "Cc"])),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs", "Cc"])), inner),
        max_leaves=30,
    ),
    st.sampled_from([None, 0, 3, "\t"]),
    st.booleans(),
)
def test_json_is_read_as_python_reads_it(value: Json, indent: int | str | None, ascii_only: bool) -> None:
    text = json.dumps({"value": value}, indent=indent, ensure_ascii=ascii_only)
    document = parse_json(SourceFile("x.json", text))
    assert json.dumps(document.data) == json.dumps({"value": value})
    # Every value stands where the document says.
    for path in leaves({"value": value}):
        node = document.find(path)
        assert node is not None
        lines = text.split("\n")
        start, end = node.span.start, node.span.end
        if start.line == end.line:
            json.loads(lines[start.line - 1][start.column - 1 : end.column - 1])


def test_what_is_found_stands_where_it_was_written() -> None:
    def change(document: Json) -> None:
        document["profiles"]["edge"]["session"]["config_entries"]["session.nothing"] = "1"

    text = edited(change)
    line = next(number for number, line in enumerate(text.splitlines(), 1) if "session.nothing" in line)
    assert findings(text) == [("ORTC210", line)]


def test_a_fallback_without_reduced_precision_is_refused_at_its_target() -> None:
    def change(document: Json) -> None:
        for profile in document["profiles"].values():
            for variant in profile["variants"]:
                if "fallback" in variant:
                    variant |= {"rewrites": [], "quantization": None}

    found = findings(edited(change))
    assert found
    assert {code for code, _ in found} == {"ORTC129"}


def test_a_hostile_plan_stays_inside_of_the_output() -> None:
    for field, value in (("name", "../../etc"), ("version", ".."), ("version", "a/b")):
        text = edited(lambda document, f=field, v=value: document["spec"].update({f: v}))
        assert [code for code, _ in findings(text)] == ["ORTC127"]
    text = edited(lambda document: document["spec"]["targets"].update({"../cpu": document["spec"]["targets"]["cpu"]}))
    assert findings(text)[0][0] == "ORTC127"
    text = edited(lambda document: document["profiles"]["cpu"]["image"].update(template="../../secret.j2"))
    assert findings(text)[0][0] == "ORTC127"


def test_sizes_are_bounded() -> None:
    assert findings(f'{{"a": [{"0," * MAX_NODES}0]}}')[0][0] == "ORTC102"
    assert findings(" " * (PLAN.most_bytes + 1))[0][0] == "ORTC102"
    assert findings("[" * 100_000)[0][0] == "ORTC111"


# --- the command line ---


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Plan, Path]]:
    """What the command line asks the driver to build; the work itself is for integration tests."""
    asked: list[tuple[Plan, Path]] = []

    def note(plan: Plan, root: Path, *_: Any, **__: Any) -> BuildReport:
        from ortc.execution.host import describe

        asked.append((plan, root))
        return BuildReport(
            name=plan.name, version=plan.version, plan_sha256=plan.digest(), host=describe(), stages=(), exit_code=0
        )

    monkeypatch.setattr(pipeline, "build", note)
    monkeypatch.setenv("ORTC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(ROOT)
    return asked


def build(*arguments: str | Path, output: Path) -> int:
    return run(["build", *map(str, arguments), "-o", str(output)])


def test_a_plan_from_a_file(built: list[tuple[Plan, Path]], tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(TEXTS["digits"], "utf-8")
    assert build("--plan", tmp_path / "plan.json", output=tmp_path / "dist") == 0
    assert built == [(plan(DIGITS), ROOT)]


def test_a_plan_from_stdin(
    built: list[tuple[Plan, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", str(DIGITS), "--print"]) == 0
    printed = capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(printed.encode())))
    monkeypatch.chdir(ROOT / "tests")
    assert build("--plan", "-", "-t", "edge", output=tmp_path / "dist") == 0
    # Paths start from the project of the current directory, wherever in it that is.
    assert built == [(plan(DIGITS, targets=("edge",)), ROOT)]


def test_wrong_usage(built: list[tuple[Plan, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "plan.json"
    file.write_text(TEXTS["digits"], "utf-8")
    cases = (
        (("--plan", file, DIGITS), "SPEC does not go with --plan"),
        (("--plan", file, "--set", "version=2"), "--set does not go with --plan"),
        (("--plan", file, "--locked"), "--locked does not go with --plan"),
        (("--plan", file, "--search", "quick"), "--search does not go with --plan"),
        (("--plan", file, "--variant", "fp32"), "--variant does not go with --plan"),
        (("--plan", file, "-t", "server-gpu"), "has no target `server-gpu`; it has cpu, edge"),
        ((), "Missing argument 'SPEC...', or `--plan FILE`."),
    )
    for arguments, message in cases:
        assert build(*arguments, output=tmp_path / "dist") == 2
        assert message in " ".join(capsys.readouterr().err.replace("│", "").split())
    assert built == []


def test_bad_plans(built: list[tuple[Plan, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build("--plan", tmp_path / "none.json", output=tmp_path / "dist") == 3
    told = capsys.readouterr().err
    assert "cannot read" in told
    assert "give the path of a plan, which `ortc plan SPEC --print` writes" in told
    (tmp_path / "plan.json").write_text(TEXTS["digits"][:100], "utf-8")
    assert build("--plan", tmp_path / "plan.json", output=tmp_path / "dist") == 3
    assert "error[ORTC160]" in capsys.readouterr().err
    assert built == []


@pytest.mark.parametrize("size", [2**31, 2**63, 10**20])
def test_sizes_beyond_every_tensor_are_refused_in_specs_and_plans(size: int) -> None:
    for override in (f"export.inputs.image.shape=[batch, 1, {size}, 8]", f"targets.cpu.max_cpu_nodes={size}"):
        with pytest.raises(SpecError, match="must be at most"):
            check_spec(DIGITS, [override])
    document = json.loads(TEXTS["digits"])
    document["spec"]["export"]["inputs"]["image"]["shape"][2] = size
    assert {code for code, _ in findings(json.dumps(document))} == {"ORTC126"}
