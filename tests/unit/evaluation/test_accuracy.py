"""Verdicts on accuracy and budgets: each promise alone decides, and none passes by default."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.support.plans import accuracy, target, variant

from ortc.common.errors import StageError
from ortc.evaluation.accuracy_gates import accuracy_verdicts, worst_case
from ortc.evaluation.budget_gates import run_verdicts, size_verdicts, weight_verdicts
from ortc.evaluation.compare import Difference, compare
from ortc.evaluation.gates import describe
from ortc.evaluation.report import CaseResult, Check, Verdict
from ortc.evaluation.spread import Spreads
from ortc.evaluation.unproven import unproven
from ortc.passes.variant_graph import VariantGraph
from ortc.spec.accuracy import Metric
from ortc.spec.quantization import DynamicQuantization
from ortc.spec.runtimes import pins


def difference(**changes: Any) -> Difference:
    return Difference(**({"output": "y", "max_abs": 0.0, "cosine": 1.0, "top1": 1.0} | changes))


def check(*differences: Difference, **fields: Any) -> Check:
    cases = tuple(CaseResult(case=f"case {n}", differences=(entry,)) for n, entry in enumerate(differences))
    return Check(cases=cases, **fields)


def judge(found: Check, precision: str = "fp32", reference: float | None = None, **promises: Any) -> dict[str, Verdict]:
    verdicts = accuracy_verdicts(found, precision, accuracy(**promises), "linux/amd64", reference)
    assert len({verdict.gate for verdict in verdicts}) == len(verdicts)
    return {verdict.gate: verdict for verdict in verdicts}


def test_fp32_is_judged_by_the_greatest_difference() -> None:
    found = check(difference(max_abs=1e-6), difference(max_abs=9e-5, cosine=0.1), difference())
    verdict = judge(found, max_abs=1e-4)["max_abs"]
    assert (verdict.outcome, verdict.observed, verdict.limit) == ("pass", "9e-05", "<= 0.0001")
    assert verdict.where == "output `y` at case 1"
    assert judge(found, max_abs=9e-5)["max_abs"].outcome == "pass"
    assert judge(found, max_abs=8e-5)["max_abs"].outcome == "fail"
    assert set(judge(found)) == {"max_abs"}


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_reduced_precision_is_judged_by_the_worst_cosine(precision: str) -> None:
    found = check(difference(cosine=0.99, max_abs=5.0), difference(cosine=0.97), difference(cosine=None, max_abs=0))
    verdict = judge(found, precision, cosine=0.97)["cosine"]
    assert (verdict.outcome, verdict.observed, verdict.where) == ("pass", "0.97000", "output `y` at case 1")
    assert judge(found, precision, cosine=0.98)["cosine"].outcome == "fail"
    assert set(judge(found, precision)) == {"cosine"}


def test_a_variant_that_does_not_run_fails() -> None:
    verdicts = judge(Check(error="Gather: index out of range"), "int8", top1_agreement=0.9)
    assert [(v.gate, v.outcome, v.observed) for v in verdicts.values()] == [
        ("runs", "fail", "Gather: index out of range")
    ]


def test_outputs_that_cannot_be_compared_fail_every_precision() -> None:
    broken = difference(problem="shape [1] instead of [2]", max_abs=float("inf"), cosine=-1.0, top1=0.0)
    for precision in ("fp32", "int8"):
        (verdict,) = judge(check(difference(), broken), precision).values()
        assert (verdict.gate, verdict.outcome, verdict.where) == ("outputs", "fail", "output `y` at case 1")


def test_nothing_checked_is_no_pass() -> None:
    with pytest.raises(StageError, match="no case was checked"):
        judge(check())


def test_integer_outputs_alone_are_judged_too() -> None:
    integers = difference(cosine=None, top1=None)
    assert judge(check(integers), "int8")["outputs"].outcome == "pass"
    assert judge(check(integers), "fp32")["max_abs"].outcome == "pass"


def answers(expected: Any, actual: Any, name: str = "samples 1") -> Check:
    """A check of one output of one case."""
    spreads = Spreads()
    found = compare("y", expected, actual, None)
    spreads.add("y", expected, actual, None, is_sample=True)
    case = CaseResult(case=name, differences=(found,))
    return Check(cases=(case,), outputs=spreads.errors(), labels=spreads.labels())


def failed(found: Check, precision: str = "int8", **promises: Any) -> set[str]:
    return {gate for gate, verdict in judge(found, precision, **promises).items() if verdict.outcome == "fail"}


RANDOM = np.random.default_rng(0).standard_normal
PRECISIONS = pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])


@PRECISIONS
@pytest.mark.parametrize("factor", [0.33, 3.0, 0.5, 1.5])
@pytest.mark.parametrize("shape", [(32, 1), (32,), (32, 2), (8, 16), (2, 5, 64)])
def test_a_wrong_scale_fails_at_every_reduced_precision(precision: str, factor: float, shape: Any) -> None:
    expected = RANDOM(shape).astype(np.float32) + np.float32(3)
    found = answers(expected, expected * np.float32(factor))
    assert min(d.cosine or 0.0 for d in found.cases[0].differences) > 0.9999
    assert failed(found, precision) & {"nrmse", "relative_error"}


@PRECISIONS
def test_rows_of_one_value_are_judged_by_their_spread_and_ranks(precision: str) -> None:
    expected = (5 + RANDOM((64, 1))).astype(np.float32)
    noise = (5 + 0.39 * (expected - 5) + 0.92 * RANDOM((64, 1))).astype(np.float32)
    assert failed(answers(expected, noise), precision) == {"nrmse", "spearman"}
    right = answers(expected, expected + (0.02 * RANDOM((64, 1))).astype(np.float32))
    verdicts = judge(right, precision)
    assert {gate: verdict.outcome for gate, verdict in verdicts.items()} == {"nrmse": "pass", "spearman": "pass"}
    assert verdicts["nrmse"].where == "output `y`, 64 rows"


def test_a_value_near_zero_may_change_its_sign() -> None:
    expected = np.linspace(-1, 1, 41, dtype=np.float32).reshape(-1, 1)
    assert failed(answers(expected, expected + np.float32(0.03))) == set()


def test_the_limits_of_the_spread_are_those_of_the_spec() -> None:
    expected = RANDOM((64, 1)).astype(np.float32)
    found = answers(expected, expected + (0.2 * RANDOM((64, 1))).astype(np.float32))
    assert failed(found) == set()
    assert failed(found, nrmse=0.1, spearman=0.999) == {"nrmse", "spearman"}


@PRECISIONS
def test_an_output_without_variation_is_judged_by_max_abs(precision: str) -> None:
    for expected in (np.full((16, 1), 4.6), np.tile(RANDOM(64), (16, 1)), np.zeros((16, 64))):
        wanted = expected.astype(np.float32)
        wrong, right = answers(wanted, wanted + np.float32(1e-3)), answers(wanted, wanted + np.float32(1e-5))
        for found, outcome in ((wrong, "fail"), (right, "pass")):
            (verdict,) = judge(found, precision, max_abs=1e-4).values()
            assert (verdict.gate, verdict.outcome) == ("max_abs", outcome)
            assert verdict.where.endswith("at samples 1; PyTorch gives the same at every row")
    # One row is no row too few to vary: it is judged by its direction.
    assert "cosine" in judge(answers(RANDOM((1, 64)), RANDOM((1, 64))), precision)


@PRECISIONS
def test_a_common_offset_of_the_only_row_hides_nothing(precision: str) -> None:
    """A model of fixed shape has one row, whose offset makes any answer look alike."""
    expected = (1000 + RANDOM((1, 16))).astype(np.float32)
    noise = (1000 + RANDOM((1, 16))).astype(np.float32)
    assert failed(answers(expected, noise), precision) == {"nrmse"}
    assert failed(answers(expected, expected + (0.02 * RANDOM((1, 16))).astype(np.float32)), precision) == set()


@PRECISIONS
def test_comparisons_of_nothing_are_no_verdict(precision: str) -> None:
    empty = check(difference(compared=0, top1=None, values=0), difference(compared=0, top1=None, values=0))
    assert judge(empty, precision) == {}
    assert judge(empty, precision, top1_agreement=0.5)["top1_agreement"].outcome == "fail"
    some = check(difference(compared=0), difference(compared=4, cosine=0.5, top1=0.25))
    verdicts = judge(some, precision, top1_agreement=0.5)
    assert (verdicts["cosine"].observed, verdicts["top1_agreement"].observed) == ("0.50000", "0.2500")
    labels = difference(compared=0, labels=0, cosine=None)
    assert judge(check(labels), precision) == {}


def test_what_no_case_shows_is_unmeasured() -> None:
    def told(*entries: Difference) -> list[str]:
        return [f"{v.gate} {v.outcome}: {v.observed} {v.where}" for v in unproven(check(*entries), "linux/amd64")]

    zero, empty, masked = {"compared": 4, "is_zero": True}, {"compared": 0}, {"compared": 4, "is_whole": False}
    assert told(difference(), difference(compared=4)) == []
    assert told(difference(**zero), difference(**empty)) == [
        "parity unmeasured: the reference is 0 at all 2 cases output `y`"
    ]
    assert told(difference(**empty)) == ["parity unmeasured: no finite value at the only case output `y`"]
    assert told(difference(**masked)) == [
        "parity unmeasured: masked positions are left out at the only case output `y`"
    ]
    assert told(difference(**masked), difference(compared=1)) == []
    assert told(difference(), difference(output="z", **empty)) == [
        "parity unmeasured: no finite value at the only case output `z`"
    ]
    labels = difference(cosine=None, labels=0, compared=0)
    assert told(labels) == ["parity unmeasured: no finite value at the only case output `y`"]


def test_fp32_is_not_judged_by_the_spread() -> None:
    expected = np.full((8, 1), 1.0, np.float32)
    assert set(judge(answers(expected, expected * np.float32(1.00001)), "fp32", max_abs=1e-3)) == {"max_abs"}


def test_integers_are_judged_by_the_share_that_is_equal() -> None:
    expected = np.arange(200)
    actual = expected.copy()
    actual[:2] += 1
    found = answers(expected, actual)
    verdict = judge(found, "int8")["top1_agreement"]
    assert (verdict.outcome, verdict.observed, verdict.limit) == ("pass", "0.9900", ">= 0.98")
    assert failed(found, top1_agreement=0.995) == {"top1_agreement"}
    actual[:5] += 1
    assert failed(answers(expected, actual)) == {"top1_agreement"}
    # In fp32 there is nothing to round them otherwise.
    assert failed(found, "fp32") == {"outputs"}
    assert failed(found, "fp32", max_abs=100.0) == {"outputs"}


def test_labels_of_real_samples_outweigh_those_of_random_numbers() -> None:
    spreads = Spreads()
    for is_sample, wrong in ((False, 10), (True, 0), (True, 0)):
        spreads.add("label", np.zeros(20, np.int64), np.arange(20) < wrong, None, is_sample=is_sample)
    assert [(entry.labels, entry.equal) for entry in spreads.labels()] == [(40, 40)]


def test_top1_is_the_mean_over_cases() -> None:
    found = check(difference(top1=1.0), difference(top1=0.9), difference(top1=None))
    assert judge(found, top1_agreement=0.95)["top1_agreement"].outcome == "pass"
    assert judge(found, "int8", top1_agreement=0.951)["top1_agreement"].outcome == "fail"
    assert judge(found, "int8", top1_agreement=0.951)["top1_agreement"].observed == "0.9500"


def test_top1_of_nothing_to_rank_is_no_pass() -> None:
    verdict = judge(check(difference(top1=None)), top1_agreement=0.5)["top1_agreement"]
    assert (verdict.outcome, verdict.observed) == ("fail", "no output has anything to rank")


METRIC = Metric(entrypoint="m:f", max_drop=0.01)


@pytest.mark.parametrize(
    ("value", "minimum", "outcome"),
    [
        (0.90, None, "pass"),
        (0.8901, None, "pass"),
        (0.8899, None, "fail"),
        (0.99, None, "pass"),
        (float("nan"), None, "fail"),
        (0.90, 0.89, "pass"),
        (0.90, 0.91, "fail"),
        (0.895, 0.5, "pass"),
    ],
)
def test_the_metric_may_fall_by_so_much(value: float, minimum: float | None, outcome: str) -> None:
    metric = METRIC.model_copy(update={"minimum": minimum})
    found = judge(check(difference(), metric=value), "int8", 0.90, metric=metric)
    assert found["metric"].outcome == outcome
    assert found["metric"].where == "m:f (PyTorch: 0.9000)"


def test_the_least_that_the_metric_may_be_is_enough() -> None:
    metric = Metric(entrypoint="m:f", max_drop=0.25)
    assert judge(check(difference(), metric=0.75), "int8", 1.0, metric=metric)["metric"].outcome == "pass"


def test_no_metric_no_verdict() -> None:
    assert "metric" not in judge(check(difference(), metric=0.75), "int8", 1.0)


def test_the_worst_case_is_measured_as_the_precision_promises() -> None:
    found = check(difference(max_abs=1.0), difference(cosine=0.5), difference(max_abs=0.1, cosine=None))
    assert worst_case(found, "fp32") == "case 0"
    assert worst_case(found, "int8") == "case 1"
    assert worst_case(check(difference(), difference(problem="NaN")), "int8") == "case 1"
    assert worst_case(Check(error="x"), "fp32") is None


def budgets(found: Check, **fields: Any) -> dict[str, str]:
    verdicts = run_verdicts(found, target(**fields), accuracy(max_abs=1e-4), "linux/amd64")
    return {verdict.gate: verdict.outcome for verdict in verdicts}


def test_quantized_weights_are_no_more_than_those_of_fp32() -> None:
    quantized = variant("int8", "int8", quantization=DynamicQuantization(kind="dynamic", operators=("MatMul", "Gemm")))
    graph = VariantGraph(bytes=9, domains={}, operators={}, weights=2000, exact_weights=1000)
    (verdict,) = weight_verdicts(quantized, graph, "linux/amd64")
    told = "weights is 2.0 kB, must be <= 1.0 kB, the weights of fp32"
    assert (verdict.outcome, describe(verdict)) == ("fail", told)
    for weights in (2000, None):
        assert weight_verdicts(quantized, graph.model_copy(update={"exact_weights": weights}), "linux/amd64") == ()
    assert weight_verdicts(variant("fp32", "fp32"), graph, "linux/amd64") == ()


def test_budgets() -> None:
    found = check(difference(), peak_rss_bytes=1000, cpu_nodes=3)
    assert budgets(found) == {}
    assert budgets(found, memory=1000, max_cpu_nodes=3) == {"memory": "pass", "cpu_nodes": "pass"}
    assert budgets(found, memory=999, max_cpu_nodes=2) == {"memory": "fail", "cpu_nodes": "fail"}
    # No node at all is a promise too.
    assert budgets(found, max_cpu_nodes=0) == {"cpu_nodes": "fail"}


def test_copies_are_judged_where_they_were_counted() -> None:
    counted = check(difference(), memcpy_nodes=2)
    assert budgets(counted, max_memcpy_nodes=2) == {"memcpy_nodes": "pass"}
    assert budgets(counted, max_memcpy_nodes=1) == {"memcpy_nodes": "fail"}
    assert budgets(check(difference()), max_memcpy_nodes=9) == {"memcpy_nodes": "unmeasured"}


def test_shape_arithmetic_is_told_beside_what_counts() -> None:
    found = check(difference(), cpu_nodes=1, shape_nodes=12)
    (verdict,) = run_verdicts(found, target(max_cpu_nodes=1), accuracy(), "linux/amd64")
    assert (verdict.observed, verdict.limit) == ("1 node (12 more compute shapes)", "<= 1 node")


def test_size() -> None:
    fp32 = variant("fp32", "fp32")
    assert size_verdicts(target(), fp32, 10**9, "linux/amd64") == ()
    (verdict,) = size_verdicts(target(size=50_000_000), fp32, 50_000_001, "linux/arm64")
    assert (verdict.gate, verdict.platform, verdict.outcome) == ("size", "linux/arm64", "fail")
    assert (verdict.observed, verdict.limit) == ("50,000,001 bytes", "<= 50,000,000 bytes")
    assert size_verdicts(target(size=50_000_000), fp32, 50_000_000, "linux/amd64")[0].outcome == "pass"


def test_what_is_downloaded_is_the_model_and_the_wheels_of_each_platform() -> None:
    wheels = {platform: pins("onnxruntime").loader_bytes(platform) for platform in ("linux/amd64", "linux/arm64")}
    promised = target(platforms=tuple(wheels), download=wheels["linux/arm64"] + 1000)
    fp32 = variant("fp32", "fp32")
    found = size_verdicts(promised, fp32, 1000, "linux/amd64")
    assert [(v.gate, v.platform, v.outcome) for v in found] == [
        ("download", "linux/amd64", "fail"),
        ("download", "linux/arm64", "pass"),
    ]
    assert {v.outcome for v in size_verdicts(promised, fp32, 1001, "linux/amd64")} == {"fail"}
    assert found[1].where == "model 1.0 kB, the loader's wheels 37.9 MB"
