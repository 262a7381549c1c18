"""The command line in process: output, exit codes, what goes where."""

import json
from pathlib import Path

import pytest

from ortc import __version__
from ortc.__main__ import run
from ortc.common.errors import AccuracyError, BudgetError, OrtcError, StageError, UnmeasuredError
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.diagnostics.rules import CATALOGUE

ROOT = Path(__file__).parents[3]
BERT = str(ROOT / "specs" / "bert.yaml")


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(ROOT)


def test_check_ok(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "specs/bert.yaml", "specs/digits.yaml"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "specs/bert.yaml: ok\nspecs/digits.yaml: ok\n"
    assert captured.err == ""


def test_check_reports_every_spec(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "specs/bert.yaml", "specs/none.yaml"]) == 3
    captured = capsys.readouterr()
    assert captured.out == "specs/bert.yaml: ok\nspecs/none.yaml: 1 error\n"
    assert captured.err.startswith("error[ORTC101]: cannot read `specs/none.yaml`")


def test_check_reports_an_override_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "specs/bert.yaml", "specs/digits.yaml", "--set", "export.opset=99"]) == 3
    captured = capsys.readouterr()
    assert captured.err.count("--set:14") == len({line for line in captured.err.splitlines() if "ORTC204" in line})


def test_check_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", BERT, "--output-format", "json", "--set", "accuracy.cosine=2"]) == 3
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert [item["code"] for item in document["diagnostics"]] == ["ORTC126"]
    assert captured.err == ""


def test_check_github(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", BERT, "--output-format", "github", "--set", "model.revision=main"]) == 0
    assert capsys.readouterr().out == (
        "::warning title=ORTC306 revision-moves::--set model.revision=main: the revision `main` is not a commit, and "
        "can move%0Ahelp: use the 40 digits of the commit\n"
    )


def test_explain_lists_and_explains(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [rule.code for rule in CATALOGUE]
    assert run(["explain", "ortc204"]) == 0
    page = capsys.readouterr().out
    assert run(["explain", "opset-unsupported"]) == 0
    assert capsys.readouterr().out == page
    assert page.startswith("error[ORTC204] opset-unsupported: ")
    assert "    export:\n      opset: 27\n" in page


def test_explain_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", "ORTC20"]) == 2
    assert "there is no rule `ORTC20`" in capsys.readouterr().err


def test_targets(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["targets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "RUNTIME", "PLATFORMS", "PRECISION", "DESCRIPTION"]
    assert [line.split()[0] for line in lines[1:]] == sorted(path.stem for path in (ROOT / "targets").glob("*.yaml"))


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"ortc, version {__version__}\n"
    assert run(["--help"]) == 0
    assert "Validate specs without building anything." in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["chek"], ["check"], ["check", BERT, "--output-format", "xml"], ["--nope"]])
def test_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Error" in captured.err


@pytest.mark.parametrize(
    ("error", "code"), [(StageError, 4), (AccuracyError, 5), (BudgetError, 6), (UnmeasuredError, 7), (OrtcError, 1)]
)
def test_errors_become_exit_codes(
    error: type[OrtcError], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise error("it broke", help="mend it\nwith care", details=("first", "second\nthird"))

    monkeypatch.setattr("ortc.cli.check.check_spec", fail)
    assert run(["check", BERT]) == code
    assert capsys.readouterr().err == (
        "error: it broke\n  first\n  second\n  third\n  help: mend it\n        with care\n"
    )
    assert run(["--debug", "check", BERT]) == code
    assert "Traceback" in capsys.readouterr().err


def test_bugs_show_a_traceback_and_ask_for_a_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr("ortc.cli.check.check_spec", fail)
    assert run(["check", BERT]) == 1
    err = capsys.readouterr().err
    assert "KeyError: 'oops'" in err
    assert f"This is a bug in ortc {__version__}. Please report it" in err


def test_interrupt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ortc.cli.check.check_spec", fail)
    assert run(["check", BERT]) == 130
    assert capsys.readouterr().err.strip().endswith("interrupted")


def test_a_spec_error_needs_a_diagnostic() -> None:
    with pytest.raises(ValueError, match="at least one"):
        SpecError([])


@pytest.mark.parametrize("command", ["build", "plan", "bench"])
def test_an_unknown_variant(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "specs/digits.yaml", "--variant", "int4"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "target `cpu` has no variant `int4`; its profile has fp32, fp32-unfused," in told
    # One that another target's profile has: the way out is to name that target.
    assert run([command, "specs/digits.yaml", "-t", "edge", "--variant", "int8-smooth-mixed"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "target `edge` has no `int8-smooth-mixed`: its profile gives `int8-smooth` no `fallback`" in told
    assert "mixes are int8-dynamic-mixed, int8-calibrated-mixed, int8-static-mixed" in told
    assert run([command, "specs/digits.yaml", "--variant", "fp32-openvino"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "target `edge` has no variant `fp32-openvino`" in told
    assert "choose a target with -t" in told


def test_how_far_to_search(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "specs/digits.yaml", "-t", "cpu", "--search", "none", "--print"]) == 0
    assert json.loads(capsys.readouterr().out)["search"] == "none"
    assert run(["plan", "specs/digits.yaml", "-t", "cpu", "--search", "none", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert plan["search"] == "none"
    assert [variant["name"] for variant in plan["targets"][0]["variants"]] == ["fp32"]
    assert run(["plan", "specs/digits.yaml", "--search", "wide"]) == 2
    assert "'full', 'quick', 'none'" in " ".join(capsys.readouterr().err.split())
