"""What others wrote reaches no terminal as an escape, and no log as a command."""

from __future__ import annotations

import io
import json
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortc.__main__ import run
from ortc.cli.streams import CleanStream, clean, clean_streams, write_raw

HOSTILE = "a\x1b[2J\x1b]0;title\x07b\rc\x9bd\u202ee\n::set-output name=x::y\n  ::error::z\n##vso[task.setvariable x]\n"


def test_escapes_and_commands_are_written_out() -> None:
    text = clean(HOSTILE)
    assert text == (
        "a\\u001b[2J\\u001b]0;title\\u0007b\\u000dc\\u009bd\\u202ee\n"
        ": :set-output name=x::y\n  : :error::z\n\\u0023#vso[task.setvariable x]\n"
    )
    assert clean(text) == text


def test_colours_of_a_terminal_stay() -> None:
    assert clean("\x1b[1mbold\x1b[0m \x1b[2K\x1b[1A\x1b]8;;x\x07", colored=True) == (
        "\x1b[1mbold\x1b[0m \x1b[2K\x1b[1A\\u001b]8;;x\\u0007"
    )
    assert "\x1b" not in clean("\x1b[1mbold")


@given(st.text())
def test_any_text(text: str) -> None:
    shown = clean(text)
    assert not any(unicodedata.category(char) in ("Cc", "Cs") for char in shown if char not in "\n\t")
    assert not any(line.lstrip().startswith("::") or "##[" in line or "##vso[" in line for line in shown.split("\n"))


@given(st.text())
def test_documents_keep_their_values(text: str) -> None:
    assert json.loads(clean(json.dumps({"a": text, "b": HOSTILE}, ensure_ascii=False))) == {"a": text, "b": HOSTILE}


def test_commands_of_a_workflow_are_written_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    with clean_streams(), clean_streams():
        assert isinstance(sys.stdout, CleanStream)
        assert not isinstance(sys.stdout.stream, CleanStream)
        write_raw("::error::x\n")
        sys.stdout.writelines(["::error", "::y\n"])
    assert capsys.readouterr().out == "::error::x\n: :error: :y\n"
    assert not isinstance(sys.stdout, CleanStream)


def test_every_command_and_traceback_is_cleaned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError(HOSTILE)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ortc.cli.check.check_spec", broken)
    assert run(["check", "spec.yaml"]) == 1
    assert run(["explain", HOSTILE]) != 0
    assert run(["registry", "ls", HOSTILE, "--registry", str(tmp_path / HOSTILE)]) != 0
    told = capsys.readouterr()
    for text in (told.out, told.err):
        assert not set(text) & set("\x1b\x07\r\x9b\u202e")
        assert not any(line.lstrip().startswith("::") or "##vso[" in line for line in text.split("\n"))


def test_a_stream_is_otherwise_the_one_below() -> None:
    below = io.StringIO()
    stream = CleanStream(below)
    assert stream.write("x\x1b") == 2
    assert stream.getvalue() == "x\\u001b"
