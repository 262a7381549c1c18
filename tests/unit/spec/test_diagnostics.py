"""Diagnostics as text, JSON and workflow commands."""

import json
import re

import pytest

from ortc.common.redaction import mask_secrets
from ortc.spec.diagnostics.diagnostic import (
    Diagnostic,
    Related,
    in_order,
    quoted,
    render_text,
    summary,
    to_github,
    to_json,
)
from ortc.spec.diagnostics.rules.checks import OPSET, UNUSED_AXIS
from ortc.spec.diagnostics.sarif import to_sarif
from ortc.spec.diagnostics.source import SourceFile, Span


def span(text: str, mark: str, *, name: str = "specs/bert.yaml", argument: int | None = None) -> Span:
    """The first place of `mark` in `text`."""
    start = text.index(mark)
    return SourceFile(name, text, argument).span(start, start + len(mark))


SPEC = "name: bert\nexport:\n  opset: 27\n"
EXAMPLE = Diagnostic(
    OPSET,
    "opset 27 is not supported by onnxruntime 1.31.1 (target `cpu`)",
    span(SPEC, "27"),
    "the exporter reaches 23, the runtime 26",
    "use `opset: 20`, or pin another runtime in targets/cpu.yaml",
)


def test_text() -> None:
    assert render_text([EXAMPLE]) == (
        "error[ORTC204]: opset 27 is not supported by onnxruntime 1.31.1 (target `cpu`)\n"
        "  --> specs/bert.yaml:3:10\n"
        " 2 | export:\n"
        " 3 |   opset: 27\n"
        "   |          ^^ the exporter reaches 23, the runtime 26\n"
        "  help: use `opset: 20`, or pin another runtime in targets/cpu.yaml\n"
    )


def test_colour_changes_nothing_but_colour() -> None:
    coloured = render_text([EXAMPLE], color=True)
    assert "\x1b[1;31m" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == render_text([EXAMPLE])


def body(text: str, mark: str, **kwargs: object) -> list[str]:
    """The excerpt of one diagnostic, without its first two lines."""
    return render_text([Diagnostic(OPSET, "m", span(text, mark), "here", **kwargs)]).splitlines()[2:]  # type: ignore[arg-type]


def test_tabs_and_wide_characters_keep_the_caret_below() -> None:
    assert body("a: {\tx: '名前', b: 1}\n", "b:") == [
        " 1 | a: {    x: '名前', b: 1}",
        "   |                    ^^ here",
    ]


def test_combining_characters_have_no_width() -> None:
    assert body("a: {e\u0301: 1, b: 2}\n", "b:")[1] == "   |           ^^ here"


def test_hidden_characters_are_shown() -> None:
    lines = body("a: x\u202e\x07y # \x1b[2J\n", "y")
    assert lines == [" 1 | a: x\ufffd\ufffdy # \ufffd[2J", "   |       ^ here"]
    message = render_text([Diagnostic(OPSET, "a\x1b[2Jb\nc\u202e")])
    assert message == "error[ORTC204]: a\\x1b[2Jb\\nc\\u202e\n"


@pytest.mark.parametrize("position", [0, 50, 99, 100, 150, 500, 950])
def test_long_lines_are_cropped_around_the_mark(position: int) -> None:
    line = "x" * position + "MARK" + "y" * (1000 - position)
    excerpt, carets = body(line, "MARK")
    assert len(excerpt) <= len(" 1 | ") + 100
    assert excerpt[carets.index("^") :].startswith("MARK")
    assert carets.count("^") == 4


def test_a_mark_longer_than_the_window() -> None:
    excerpt, carets = body("a" * 300, "a" * 300)
    assert len(excerpt) <= 105
    assert carets.startswith("   | ^^^")


def test_a_span_of_several_lines_marks_the_first() -> None:
    assert body("a: |\n  b\n  c\nd: 1\n", "|\n  b\n  c\n") == [" 1 | a: |", "   |    ^ here"]


def test_place_beyond_the_last_line() -> None:
    source = SourceFile("a.yaml", "a: [1,\n")
    text = render_text([Diagnostic(OPSET, "m", source.span(7, 8), "here")])
    assert text.splitlines()[1:] == ["  --> a.yaml:2:1", " 2 |", "   | ^ here"]


def test_related_places_in_other_files() -> None:
    other = Related(span("name: cpu\n", "cpu", name="targets/cpu.yaml"), "declared here")
    lines = render_text([Diagnostic(OPSET, "m", span(SPEC, "27"), related=(other,))]).splitlines()
    assert lines[4:] == [
        "   |          ^^",
        "  ::: targets/cpu.yaml:1:7",
        " 1 | name: cpu",
        "   |       --- declared here",
    ]


def test_order_and_summary() -> None:
    warning = Diagnostic(UNUSED_AXIS, "w", span(SPEC, "name"))
    argument = Diagnostic(OPSET, "a", span("a=b", "b", name="--set", argument=0))
    placeless = Diagnostic(OPSET, "p")
    found = in_order([argument, EXAMPLE, placeless, warning, EXAMPLE])
    assert found == (placeless, warning, EXAMPLE, argument)
    assert summary(found) == "3 errors, 1 warning"


def test_json() -> None:
    document = json.loads(to_json([EXAMPLE, Diagnostic(OPSET, "p")]))
    assert document["format_version"] == 1
    first, second = document["diagnostics"]
    assert first["location"] == {
        "file": "specs/bert.yaml",
        "argument": None,
        "line": 3,
        "column": 10,
        "end_line": 3,
        "end_column": 12,
    }
    assert (first["code"], first["severity"], first["help"]) == ("ORTC204", "error", EXAMPLE.help)
    assert second["location"] is None


def test_github() -> None:
    place = span("name: b\n", "b", name="specs/a,b:c%.yaml")
    found = [Diagnostic(OPSET, "100% wrong\nreally", place, help="do: this, that"), Diagnostic(UNUSED_AXIS, "w")]
    assert to_github(found) == (
        "::error title=ORTC204 opset-unsupported,file=specs/a%2Cb%3Ac%25.yaml,line=1,col=7,endLine=1,endColumn=7"
        "::100%25 wrong\\nreally%0Ahelp: do: this, that\n"
        "::warning title=ORTC221 unused-axis::w\n"
    )


def test_github_names_arguments() -> None:
    place = span("export.opset=99", "99", name="--set", argument=0)
    assert to_github([Diagnostic(OPSET, "m", place)]) == (
        "::error title=ORTC204 opset-unsupported::--set export.opset=99: m\n"
    )


@pytest.mark.parametrize(
    "secret",
    [
        "hf_" + "a1" * 17,
        "ghp_" + "a1" * 18,
        "AKIA" + "A1" * 8,
        "https://user:hunter22@host/x",
        "https://host/x?X-Amz-Signature=" + "0af1" * 10,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    ],
)
def test_no_output_shows_a_secret(secret: str) -> None:
    found = [
        Diagnostic(OPSET, f"bad {secret}", span(f"x: {secret}\n", "x"), secret, secret),
        Diagnostic(OPSET, "m", span(f"x={secret}", "x", name="--set", argument=0)),
    ]
    core = secret.split("?X-Amz-Signature=")[-1].removeprefix("https://").removesuffix("@host/x")
    for output in (render_text(found), to_json(found), to_github(found), to_sarif(found)):
        assert core not in output
        assert "***" in output


def test_secrets_are_found_again_and_again() -> None:
    text = "https://user:hunter22@host/" + "x" * 3000
    assert mask_secrets(text) == mask_secrets(text) == text.replace("user:hunter22", "*" * 13)
    assert mask_secrets("no secret: a gh? b") == "no secret: a gh? b"


def test_a_mark_far_along_a_long_line() -> None:
    line = "a" * 100_000 + " MARK " + "b" * 100_000
    excerpt, carets = body(line, "MARK")
    assert excerpt[carets.index("^") :].startswith("MARK")
    assert excerpt.startswith(" 1 | ...a")
    assert excerpt.endswith("b...")


def test_arguments_and_names_that_are_not_utf8() -> None:
    found = [
        Diagnostic(OPSET, "m", span("name=\udcff", "name", name="--set", argument=0)),
        Diagnostic(OPSET, "bad \udcff", span(SPEC, "27", name="specs/\udce9.yaml"), "\udcff", "\udcff"),
    ]
    for output in (render_text(found), to_json(found), to_github(found), to_sarif(found)):
        output.encode("utf-8")
    assert json.loads(to_json(found))["diagnostics"][1]["location"]["file"] == "specs/\udce9.yaml"


def test_quoted_values_are_short() -> None:
    assert quoted("x" * 1000) == "`" + "x" * 61 + "...`"
