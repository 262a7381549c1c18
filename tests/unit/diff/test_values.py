"""Differences of JSON values: complete, at the deepest path, readable."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortc.diff.requirements import versions
from ortc.diff.values import Change, changes
from ortc.diff.wording import values

KEYS = st.text(min_size=1, max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(KEYS, JSON, max_size=4)


def applied(document: dict[str, Any], found: list[Change]) -> dict[str, Any]:
    """The document with every change made; for documents whose lists are values."""
    result = copy.deepcopy(document)
    for change in found:
        place = result
        for step in change.path[:-1]:
            place = place[step]
        if change.kind == "removed":
            del place[change.path[-1]]
        else:
            place[change.path[-1]] = change.after
    return result


def without_lists(value: Any) -> bool:
    if isinstance(value, dict):
        return all(without_lists(item) for item in value.values())
    return not isinstance(value, list)


@given(DOCUMENTS, DOCUMENTS)
def test_the_changes_lead_from_one_to_the_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    found = list(changes(before, after))
    if all(without_lists(document) for document in (before, after)):
        made = applied(before, found)
        assert made == after
        assert list(changes(made, after)) == []
    assert list(changes(before, copy.deepcopy(before))) == []
    assert bool(found) == bool(list(changes(after, before)))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"a": {"b": 1}}, {"a": {"b": 2}}, [("a.b", "changed", 1, 2)]),
        ({"a": 1}, {"a": True}, [("a", "changed", 1, True)]),
        ({"a": None}, {}, [("a", "removed", None, None)]),
        ({}, {"a": None}, [("a", "added", None, None)]),
        ({"a": [1, 2]}, {"a": [2, 1]}, [("a", "changed", [1, 2], [2, 1])]),
        ({"a": {"x.y": 1}}, {"a": {"x.y": 2}}, [('a."x.y"', "changed", 1, 2)]),
        # One more in front is one more, not a change of all that come after it.
        (
            {"t": [{"name": "b", "v": 1}]},
            {"t": [{"name": "a", "v": 0}, {"name": "b", "v": 1}]},
            [("t.a", "added", None, {"v": 0})],
        ),
        (
            {"p": [{"name": "CUDA", "o": {}}, {"name": "CPU", "o": {}}]},
            {"p": [{"name": "CPU", "o": {}}, {"name": "CUDA", "o": {}}]},
            [("p.order", "changed", ["CUDA", "CPU"], ["CPU", "CUDA"])],
        ),
        ({"p": [["p99", 0.1]]}, {"p": [["p50", 0.2], ["p99", 0.1]]}, [("p.p50", "added", None, 0.2)]),
        # Two of the same name cannot be told apart by it.
        (
            {"t": [{"name": "a"}, {"name": "a"}]},
            {"t": [{"name": "a"}]},
            [("t", "changed", [{"name": "a"}, {"name": "a"}], [{"name": "a"}])],
        ),
    ],
)
def test_changes(before: Any, after: Any, expected: list[tuple[str, str, Any, Any]]) -> None:
    assert [(c.dotted, c.kind, c.before, c.after) for c in changes(before, after)] == expected


@pytest.mark.parametrize(
    ("path", "value", "shown"),
    [
        ("targets.cpu.latency_budget.p99", 0.12, "120 ms"),
        ("targets.cpu.size_budget", 50_000_000, "50.0 MB"),
        ("model.sha256", "a" * 64, "aaaaaaaaaaaa…"),
        ("export.opset", 17, "17"),
        ("promises.size", None, "null"),
        ("name", "a\nb\x1b[31m", "a\\nb\\x1b[31m"),
        ("mirrors", "https://user:secret@host/x", "https://***********@host/x"),
        ("note", "x" * 300, "x" * 99 + "…"),
    ],
)
def test_values_for_people(path: str, value: Any, shown: str) -> None:
    change = Change(path=tuple(path.split(".")), kind="added", after=value)
    assert values(change) == ("\N{EN DASH}", shown)


def test_versions_of_requirements() -> None:
    text = (
        "# made by ortc\n"
        "NumPy==2.4.6 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
        'onnxruntime==1.31.1 ; platform_machine == "x86_64" --hash=sha256:cc\n'
        'onnxruntime==1.30.0 ; platform_machine == "aarch64"\n'
        "--no-binary :all:\n\n"
    )
    assert versions(text) == {
        "numpy": "2.4.6",
        "onnxruntime": '1.31.1 ; platform_machine == "x86_64", 1.30.0 ; platform_machine == "aarch64"',
        "--no-binary :all:": "",
    }
