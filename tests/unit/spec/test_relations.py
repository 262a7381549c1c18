"""Sizes that follow from others: sums as specs and files write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortc.spec.relations import parse_relation, split_sum


@pytest.mark.parametrize(
    ("text", "terms", "constant", "said"),
    [
        ("past + sequence", {"past": 1, "sequence": 1}, 0, "past + sequence"),
        ("past+1", {"past": 1}, 1, "past + 1"),
        ("2*frames + 3 * 4", {"frames": 2}, 12, "2 * frames + 12"),
        ("frames * 2", {"frames": 2}, 0, "2 * frames"),
        ("a + b + a", {"a": 2, "b": 1}, 0, "2 * a + b"),
    ],
)
def test_sums_are_read(text: str, terms: dict[str, int], constant: int, said: str) -> None:
    found = parse_relation(text)
    assert (dict(found.terms), found.constant, str(found)) == (terms, constant, said)
    assert found.size(dict.fromkeys(terms, 10)) == constant + 10 * sum(terms.values())
    assert parse_relation(str(found)) == found


@pytest.mark.parametrize(
    "text", ["", "1", "a - b", "a // 2", "a * b", "(a + b)", "a +", "a b", "0 * a", "max(a, b)", "a" * 2000, "a + ${x}"]
)
def test_other_texts_are_no_sums(text: str) -> None:
    with pytest.raises(ValueError, match="a sum of other axes"):
        parse_relation(text)


@given(st.text(max_size=30))
def test_any_text_is_a_sum_or_refused(text: str) -> None:
    try:
        terms, constant = split_sum(text)
    except ValueError:
        return
    assert terms
    assert constant >= 0
