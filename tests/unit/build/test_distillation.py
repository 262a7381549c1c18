"""How near to its teacher a student must be."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from ortc.build.distillation import teacher_verdicts
from ortc.evaluation.compare import Difference
from ortc.evaluation.gate_table import ACCURACY_GATES
from ortc.evaluation.gates import EXIT_ACCURACY, failure_code
from ortc.evaluation.report import CaseResult, Check, Verdict
from ortc.spec.model_sources import Teacher

MODEL = {"source": "huggingface", "path": "teacher"}


def difference(**changes: Any) -> Difference:
    return Difference(**({"output": "y", "max_abs": 0.5, "cosine": 0.9, "top1": 0.8} | changes))


def check(*taught: Difference, **fields: Any) -> Check:
    """Cases of which the first was not asked of the teacher."""
    own = Difference(output="y", max_abs=0.0, cosine=1.0, top1=1.0)
    alone = CaseResult(case="batch=1", differences=(own,))
    asked = tuple(CaseResult(case=f"samples {n}", differences=(own,), teacher=(e,)) for n, e in enumerate(taught))
    return Check(cases=(alone, *asked), **fields)


def judge(found: Check, metric: float | None = None, **limits: Any) -> dict[str, Verdict]:
    teacher = Teacher.model_validate({"model": MODEL, **limits})
    return {verdict.gate: verdict for verdict in teacher_verdicts(found, teacher, "linux/amd64", metric)}


def test_the_worst_case_decides() -> None:
    found = check(difference(), difference(cosine=0.7, max_abs=0.1, top1=0.6))
    verdict = judge(found, cosine=0.7)["teacher cosine"]
    assert (verdict.outcome, verdict.observed, verdict.where) == ("pass", "0.70000", "output `y` at samples 1")
    assert judge(found, cosine=0.701)["teacher cosine"].outcome == "fail"
    assert judge(found, max_abs=0.5)["teacher max_abs"].outcome == "pass"
    assert judge(found, max_abs=0.49)["teacher max_abs"].where == "output `y` at samples 0"
    assert judge(found, max_abs=0.49)["teacher max_abs"].outcome == "fail"


def test_agreement_is_the_mean() -> None:
    found = check(difference(top1=0.9), difference(top1=0.5), difference(top1=None))
    assert judge(found, top1_agreement=0.7)["teacher top1_agreement"].outcome == "pass"
    assert judge(found, top1_agreement=0.71)["teacher top1_agreement"].outcome == "fail"
    assert judge(check(difference(top1=None)), top1_agreement=0.1)["teacher top1_agreement"].outcome == "fail"


def test_the_metric_is_compared_with_the_teachers() -> None:
    found = check(difference(), metric=0.80)
    assert judge(found, 0.85, max_drop=0.05)["teacher metric"].outcome == "pass"
    assert judge(found, 0.86, max_drop=0.05)["teacher metric"].outcome == "fail"
    # The canonical graph is checked without a metric.
    assert judge(check(difference()), None, max_drop=0.05) == {}


def test_another_shape_fails_whatever_the_limits() -> None:
    broken = difference(problem="shape [1, 4] instead of [1, 8]", cosine=-1.0)
    verdicts = judge(check(difference(), broken), cosine=0.1, max_abs=1e9)
    assert set(verdicts) == {"teacher outputs"}
    assert verdicts["teacher outputs"].outcome == "fail"


def test_what_does_not_run_is_judged_elsewhere() -> None:
    assert judge(Check(error="it does not load"), cosine=0.9) == {}
    assert teacher_verdicts(check(difference()), None, "linux/amd64", None) == ()


def test_a_broken_limit_is_a_matter_of_accuracy() -> None:
    gates = set(judge(check(difference(), metric=0.1), 0.9, cosine=0.99, max_abs=0.1, top1_agreement=1, max_drop=0.1))
    assert gates <= ACCURACY_GATES
    assert len(gates) == 4
    assert failure_code(gates) == EXIT_ACCURACY


def test_some_limit_is_needed() -> None:
    with pytest.raises(ValidationError, match="give at least one of `max_abs`, `cosine`"):
        Teacher.model_validate({"model": MODEL})


def test_a_cosine_alone_says_nothing_of_one_value() -> None:
    found = check(difference(), difference(values=1, cosine=1.0, max_abs=9.0))
    verdict = judge(found, cosine=0.9)["teacher cosine"]
    assert (verdict.outcome, verdict.observed) == ("fail", "one value a sample, whose cosine is its sign")
    assert judge(found, cosine=0.9, max_abs=10.0)["teacher cosine"].outcome == "pass"


def test_integers_are_the_teachers_or_agree_as_far_as_the_spec_says() -> None:
    found = check(difference(), difference(cosine=None, max_abs=1.0, top1=0.9, labels=10))
    assert judge(found, cosine=0.9)["teacher outputs"].outcome == "fail"
    assert judge(found, top1_agreement=0.8)["teacher top1_agreement"].outcome == "pass"
    assert judge(found, top1_agreement=0.95)["teacher top1_agreement"].outcome == "fail"
