"""Commands over several paths: every result, the worst exit code, and one document."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from ortc.__main__ import run
from ortc.bundle.delivery.pack import Packed
from ortc.bundle.supply_chain.signing import Signed
from ortc.bundle.verify import Reverified
from ortc.cli.several import Outcome, run_each, worst
from ortc.common.errors import AccuracyError, StageError
from ortc.diff.report import SpecDiff

ONE, TWO, THREE = (Path(name) for name in ("one", "two", "three"))


def outcome(path: Path) -> Outcome:
    if path == TWO:
        raise AccuracyError("two is wrong")
    return Outcome({"format_version": 1, "name": path.name}, f"{path} is right\n", 6 if path == THREE else 0)


def test_a_single_result_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_each((ONE,), outcome, as_json=False, headed=True) == 0
    assert capsys.readouterr().out == "one is right\n"
    assert run_each((ONE,), outcome, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {"format_version": 1, "name": "one"}
    with pytest.raises(AccuracyError):
        run_each((TWO,), outcome, as_json=True)


def test_an_error_ends_the_work_on_its_own_path(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_each((ONE, TWO, THREE), outcome, as_json=False, headed=True) == 5
    captured = capsys.readouterr()
    assert captured.out == "one:\none is right\nthree:\nthree is right\n"
    assert "two is wrong" in captured.err


def test_several_results_are_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_each((ONE, TWO, THREE), outcome, as_json=True, noun="spec") == 5
    assert json.loads(capsys.readouterr().out) == {
        "format_version": 1,
        "specs": [
            {"path": "one", "exit_code": 0, "format_version": 1, "name": "one"},
            {"path": "two", "exit_code": 5, "error": "two is wrong"},
            {"path": "three", "exit_code": 6, "format_version": 1, "name": "three"},
        ],
    }


def test_an_entry_has_its_path_whatever_the_document_has(capsys: pytest.CaptureFixture[str]) -> None:
    for document in (Reverified, Packed, Signed, SpecDiff):
        assert not document.model_fields.keys() & {"path", "exit_code", "error"}
    assert run_each((ONE, THREE), lambda path: Outcome({"bundle": "name/1/cpu"}, ""), as_json=True) == 0
    entries = json.loads(capsys.readouterr().out)["bundles"]
    assert [(entry["path"], entry["bundle"]) for entry in entries] == [("one", "name/1/cpu"), ("three", "name/1/cpu")]


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (click.UsageError("one has no target `t`"), 2, "one has no target `t`"),
        (PermissionError(13, "Permission denied", "one/x"), 4, "cannot use the path `one/x`: Permission denied"),
    ],
)
def test_whatever_is_wrong_with_one_path_leaves_the_others_alone(
    raised: Exception, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(path: Path) -> Outcome:
        if path == ONE:
            raise raised
        return Outcome({}, "")

    assert run_each((ONE, THREE), work, as_json=True) == code
    captured = capsys.readouterr()
    first, second = json.loads(captured.out)["bundles"]
    assert (first["error"], first["exit_code"], second["exit_code"]) == (said, code, 0)
    assert said in captured.err


def test_bugs_stay_bugs() -> None:
    def work(path: Path) -> Outcome:
        raise ValueError(path)

    with pytest.raises(ValueError, match="one"):
        run_each((ONE, TWO), work, as_json=True)


@pytest.mark.parametrize(
    "image", ["{name:>99999999999}", "{name.__class__}", "{name!r}", "{other}", "{", "{}", "", " "]
)
def test_images_that_are_no_names_are_refused(image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["emit", str(tmp_path), "--image", image]) == 2
    assert "Invalid value for '--image'" in capsys.readouterr().err


def test_the_lowest_code_is_the_commands() -> None:
    assert (worst([]), worst([0, 0]), worst([7, 0, StageError.exit_code])) == (0, 0, 4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plan", "a.yaml", "b.yaml", "--print"], "not with several specs"),
        (["emit", "one", "two", "-o", "out"], "not with several bundles"),
        (["verify", "one", "two", "--measurement", "m.json"], "not with several bundles"),
        (["verify"], "Missing argument 'BUNDLE...'"),
        (["lock"], "Missing argument 'SPEC...'"),
    ],
)
def test_what_goes_with_one_alone(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "m.json").write_text("{}", "utf-8")
    assert run(arguments) == 2
    assert said in capsys.readouterr().err.replace("\n│ ", " ").replace("  ", " ")
