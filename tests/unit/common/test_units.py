"""Durations and sizes, read and written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortc.common.units import QuantityError, format_bytes, format_seconds, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("8ms", 0.008), ("1.5s", 1.5), ("2 min", 120.0), ("250us", 250e-6), ("250µs", 250e-6), (" 1s ", 1.0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "count"),
    [("50MB", 50_000_000), ("48MiB", 48 * 2**20), ("1GiB", 2**30), ("1.5 kB", 1500), ("2KB", 2000), ("7B", 7)],
)
def test_sizes(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize(
    "value", [8, 0.5, None, True, "", "8", "ms", "-8ms", "8 m s", "8e3ms", "1,5s", "inf s", "nan s", "0x8ms", "8ms!"]
)
def test_no_quantities(value: object) -> None:
    with pytest.raises(
        QuantityError, match="expected a duration with a unit, like `8ms`; the units are us, ms, s, min"
    ):
        parse_duration(value)
    with pytest.raises(QuantityError):
        parse_size(value)


@pytest.mark.parametrize("text", ["8h", "8MS", "8Ms", "8Min"])
def test_unknown_units(text: str) -> None:
    with pytest.raises(QuantityError, match="unknown unit"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["50mb", "50Mb", "50TB", "50MIB"])
def test_sizes_are_exact_about_their_units(text: str) -> None:
    with pytest.raises(QuantityError, match="the units are B, kB, MB, GB, KiB, MiB, GiB"):
        parse_size(text)


@pytest.mark.parametrize("text", ["0ms", "0.0s"])
def test_nothing_is_no_budget(text: str) -> None:
    with pytest.raises(QuantityError, match="greater than zero"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (22_713_728, "22.7 MB"),
        (10**9, "1.0 GB"),
        (12 * 10**12, "12000.0 GB"),
    ],
)
def test_sizes_for_people(count: int, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.12, "120 ms"),
        (0.001, "1 ms"),
        (0.0123456, "12.3 ms"),
        (1.0, "1 s"),
        (90.0, "90 s"),
        (250e-6, "250 µs"),
        (1000.0, "1000 s"),
        (0.9999, "1000 ms"),
    ],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@given(st.floats(1e-6, 1e5))
def test_what_is_written_can_be_read(seconds: float) -> None:
    text = format_seconds(seconds)
    assert parse_duration(text) == pytest.approx(seconds, rel=0.006)


@given(st.integers(1, 10**13))
def test_sizes_that_are_written_can_be_read(count: int) -> None:
    assert parse_size(format_bytes(count)) == pytest.approx(count, rel=0.06)
