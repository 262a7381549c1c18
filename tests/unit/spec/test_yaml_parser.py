"""The YAML loader: types, places, bounds."""

import math
import time
from contextlib import suppress

import pytest
from tests.support.examples import size

from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.diagnostics.source import Document, Path, Scalar, SourceFile
from ortc.spec.syntax.text import decode
from ortc.spec.syntax.yaml_parser import MAX_DEPTH, parse, parse_value


def document(text: str) -> Document:
    return parse(SourceFile("spec.yaml", text))


def codes(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        document(text)
    return [diagnostic.code for diagnostic in caught.value.diagnostics]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        (".5", 0.5),
        ("1.", 1.0),
        ("-1.5e+2", -150.0),
        (".inf", math.inf),
        ("-.Inf", -math.inf),
        ("17", 17),
        ("-3", -3),
        ("+3", 3),
        ("007", 7),
        ("0o17", 15),
        ("0xff", 255),
        ("1.10", 1.1),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("12:30", "12:30"),
        ("2026-01-02", "2026-01-02"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("8ms", "8ms"),
        ("1.0.0", "1.0.0"),
        ("tRUE", "tRUE"),
        ("nan", "nan"),
        ("'1'", "1"),
        ('"true"', "true"),
        ('"a\\tb"', "a\tb"),
        ("|\n  a\n  b", "a\nb\n"),
    ],
)
def test_core_types(text: str, value: object) -> None:
    found = document(f"x: {text}\n").data["x"]
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_a_float() -> None:
    assert math.isnan(document("x: .nan\n").data["x"])


def test_lists_are_tuples() -> None:
    assert document("x: [1, [2], {a: [3]}]\n").data == {"x": (1, (2,), {"a": (3,)})}


@pytest.mark.parametrize(
    ("path", "key", "place"),
    [
        (("name",), False, (1, 7, 11)),
        (("name",), True, (1, 1, 5)),
        (("export", "opset"), False, (3, 10, 12)),
        (("export", "opset"), True, (3, 3, 8)),
        (("export",), False, (2, 1, 7)),
        (("export", "axes", "batch", "max"), False, (4, 23, 25)),
        (("export", "axes"), False, (4, 9, 27)),
        (("export", "outputs", 1), False, (7, 7, 8)),
        (("export", "outputs", 9), False, (5, 3, 10)),
        (("export", "missing", "deeper"), False, (2, 1, 7)),
        ((), False, (1, 1, 5)),
    ],
)
def test_places(path: Path, key: bool, place: tuple[int, int, int]) -> None:
    text = "name: bert\nexport:\n  opset: 17\n  axes: {batch: {max: 16}}\n  outputs:\n    - é\n    - x\n"
    span = document(text).locate(path, key=key)
    assert (span.start.line, span.start.column, span.end.column) == place


def test_columns_count_characters() -> None:
    span = document("x: {名: é, 😀: b}\n").locate(["x", "😀"])
    assert (span.start.column, span.end.column) == (14, 15)


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r"])
def test_line_breaks(line_break: str) -> None:
    span = document(line_break.join(["# a", "x:", "  y: 1", ""])).locate(["x", "y"])
    assert (span.start.line, span.start.column) == (3, 6)


def test_aliases_repeat_values_and_stand_where_they_are_used() -> None:
    parsed = document("a: &a {x: 1}\nb: *a\nc: [*a, *a]\n")
    assert parsed.data == {"a": {"x": 1}, "b": {"x": 1}, "c": ({"x": 1}, {"x": 1})}
    assert parsed.locate(["b"]).start.line == 2
    assert parsed.locate(["b", "x"]).start.line == 1


def test_all_duplicates_and_tags_are_found_at_once() -> None:
    assert codes("a: !!str 1\nb: 1\nb: 2\n1: x\n") == ["ORTC109", "ORTC106", "ORTC108"]


def test_depth() -> None:
    within = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    assert document(f"x: {within}\n")
    assert codes(f"x: [{within}]\n") == ["ORTC111"]


def test_depth_counts_through_aliases() -> None:
    half = "[" * (MAX_DEPTH // 2) + "]" * (MAX_DEPTH // 2)
    nested = "[" * (MAX_DEPTH // 2) + "*a" + "]" * (MAX_DEPTH // 2)
    assert codes(f"a: &a {half}\nb: {nested}\n") == ["ORTC111"]


@pytest.mark.parametrize("text", ["[" * 5000, "{a: " * 5000, "- " * 5000, "? " * 5000, "&a " * 5000, "a: " * 5000])
def test_hostile_nesting_is_an_error_and_no_overflow(text: str) -> None:
    assert codes(text)


@pytest.mark.parametrize(
    "text", ['"\\UFFFFFFFF"', '"\\ud800"', "%YAML 9" + "9" * 5000 + ".1\n--- a", "\ufeff\ufeff", "\x85"]
)
def test_what_breaks_pyyaml_is_an_error(text: str) -> None:
    assert codes(f"x: {text}\n" if text.startswith('"') else text)


def test_byte_order_mark_is_dropped() -> None:
    assert parse(decode(b"\xef\xbb\xbfname: a\n", "spec.yaml")).data == {"name": "a"}


def test_values_of_arguments_have_places_in_the_argument() -> None:
    source = SourceFile("--set", "a.b={c: 1e-3}", argument=0)
    node = parse_value(source, 4)
    assert str(node.span) == "--set:5"
    assert not isinstance(node, Scalar)


def test_mistakes_are_counted_to_a_hundred() -> None:
    assert len(codes("a: 1\n" * 3000)) == 100


def test_the_largest_file_is_read_in_time() -> None:
    large = size(2**20)
    for text in ("# " + "x" * large, "x: " + "y" * large, "".join(f"k{n}: v\n" for n in range(size(80_000)))):
        began = time.process_time()
        with suppress(SpecError):
            document(text)
        assert time.process_time() - began < 5
