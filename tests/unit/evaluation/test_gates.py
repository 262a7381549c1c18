"""What broken gates mean for a build."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortc.evaluation.gates import describe, failure_code, parity
from ortc.evaluation.report import Verdict
from ortc.evaluation.wording import value_text


@pytest.mark.parametrize(
    ("gates", "code"),
    [
        ({"runs"}, 4),
        ({"applies", "runs"}, 4),
        ({"max_abs"}, 5),
        ({"outputs"}, 5),
        ({"cosine", "top1_agreement", "metric"}, 5),
        # Of what could not be made nothing is known; what was made is wrong.
        ({"applies", "cosine"}, 5),
        ({"applies", "cosine on CPU"}, 5),
        ({"runs on CPU"}, 4),
        ({"size"}, 6),
        ({"memory", "applies"}, 6),
        # One variant is right and too large: the budget is what stands in the way.
        ({"cosine", "size"}, 6),
        ({"latency p99", "runs", "max_abs"}, 6),
    ],
)
def test_exit_code_when_no_variant_passes(gates: set[str], code: int) -> None:
    assert failure_code(gates) == code


def verdict(gate: str, where: str = "") -> Verdict:
    return Verdict(gate=gate, platform="linux/amd64", outcome="fail", observed="0.5", limit=">= 0.9", where=where)


def test_verdicts_in_a_line() -> None:
    assert describe(None) == "passes"
    assert describe(verdict("cosine")) == "cosine is 0.5, must be >= 0.9"
    assert describe(verdict("cosine", "batch=1")) == "cosine is 0.5, must be >= 0.9 at batch=1"
    assert describe(verdict("applies")) == "cannot be made: 0.5"
    assert describe(verdict("runs", "batch=1")) == "does not run at batch=1: 0.5"


def test_parity_is_the_first_number_of_accuracy() -> None:
    assert parity((verdict("size"), verdict("cosine"), verdict("max_abs"))) == "cosine 0.5"
    assert parity((verdict("size"),)) is None
    # What was seen on another provider is not the parity of what ships.
    assert parity((verdict("cosine on CPU"),)) is None


@pytest.mark.parametrize(
    ("value", "limit", "text"),
    [
        (0.99912345, 0.99, "0.99912"),
        (0.9989999, 0.999, "0.9989999"),
        (0.9990001, 0.999, "0.9990001"),
        (0.999, 0.999, "0.99900"),
        (0.99999949, 0.9999995, "0.999999"),
        (float("nan"), 0.999, "nan"),
    ],
)
def test_a_number_shows_on_which_side_of_its_limit_it_is(value: float, limit: float, text: str) -> None:
    assert value_text(value, limit, 5) == text


@given(st.floats(0, 1), st.floats(0, 1))
def test_every_number_does(value: float, limit: float) -> None:
    shown = float(value_text(value, limit, 5))
    assert (shown < limit, shown > limit) == (value < limit, value > limit)


@pytest.mark.parametrize(
    ("gate", "values", "observed", "limit"),
    [
        ("latency p99", {"value": 0.0024, "interval": (0.002, None), "unit": "seconds"}, "2.4 ms [2 ms, ?]", "<= 5 ms"),
        (
            "size",
            {"value": 50_000_001, "bound": 50_000_000, "unit": "bytes"},
            "50,000,001 bytes",
            "<= 50,000,000 bytes",
        ),
        ("cpu_nodes", {"interval": (3, None), "bound": 1, "unit": "nodes"}, "at least 3 nodes", "<= 1 node"),
        (
            "cpu_nodes",
            {"value": 1, "bound": 0, "unit": "nodes", "said": "2 more compute shapes"},
            "1 node (2 more compute shapes)",
            "<= 0 nodes",
        ),
        (
            "speed-up",
            {"value": 2.251, "interval": (1.934, 2.666), "comparison": ">=", "bound": 1.5, "unit": "times"},
            "2.25x [1.93x, 2.67x]",
            ">= 1.5x",
        ),
        ("teacher cosine on CPU", {"value": 0.9989999, "comparison": ">=", "bound": 0.999}, "0.9989999", ">= 0.999"),
        ("max_abs", {"value": 1.23456e-5, "bound": 1e-4}, "1.23e-05", "<= 0.0001"),
        ("cosine", {"value": float("nan"), "comparison": ">=", "bound": 0.9}, "nan", ">= 0.9"),
        (
            "runs",
            {"bound": None, "comparison": None, "said": "it stopped", "required": "every case runs"},
            "it stopped",
            "every case runs",
        ),
    ],
)
def test_words_follow_from_values(gate: str, values: dict[str, Any], observed: str, limit: str) -> None:
    found = Verdict(gate=gate, platform="linux/amd64", outcome="fail", **{"comparison": "<=", "bound": 0.005} | values)
    assert (found.observed, found.limit) == (observed, limit)
    written = found.model_dump(mode="json")
    assert (written["observed"], written["limit"]) == (observed, limit)
    assert Verdict.model_validate(written) == found
    assert Verdict.model_validate_json(json.dumps(written, allow_nan=False)) == found


def test_verdicts_of_words_alone_are_read() -> None:
    words = {"gate": "size", "platform": "linux/amd64", "outcome": "pass", "observed": "3.0 MB", "limit": "<= 4.0 MB"}
    found = Verdict.model_validate(words)
    assert (found.observed, found.limit, found.value, found.bound) == ("3.0 MB", "<= 4.0 MB", None, None)
