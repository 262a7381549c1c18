"""From a spec to its plan, and what a plan promises: every default filled in, one digest for one content."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.support.examples import examples
from tests.support.plans import ROOT, SPECS, manifest, plan, target

from ortc.bundle.render import render
from ortc.bundle.session_file import session_file
from ortc.common.values import canonical, digest
from ortc.plan.checks import check_spec
from ortc.plan.plan import AxisPlan, ExportPlan, InputPlan, Plan, Search, TuningPlan
from ortc.plan.resolve import engine_of, padded_axis, resolve, variants_for, why_not
from ortc.spec.load import load_profile
from ortc.spec.profile import GraphLevel, TargetProfile
from ortc.spec.quantization import StaticQuantization
from ortc.spec.runtimes import pins

BERT = ROOT / "specs" / "bert.yaml"


@pytest.mark.parametrize("spec", SPECS, ids=lambda path: path.stem)
def test_plans_survive_json(spec: Path) -> None:
    made = plan(spec)
    read = Plan.model_validate_json(made.to_json())
    assert read == made
    assert read.digest() == made.digest()
    assert read.to_json() == made.to_json()
    assert plan(spec) == made


def leaves(node: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, (*path, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from leaves(value, (*path, index))
    else:
        yield path


def others(value: object) -> list[object]:
    """Values that could stand instead; one of them is valid wherever the value is of a free type."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, (int, float)):
        return [value + 1, value + 0.5]
    if value is None:
        return [1, "x", 0.5, "padding", {"path": "adapters/x"}]
    return [f"{value}x", "latency", "size", "linux/arm64", "int8", "fp32", "off", "basic", "allow", "fail", "require"]


@pytest.mark.parametrize("spec", SPECS, ids=lambda path: path.stem)
def test_every_field_is_in_the_digest(spec: Path) -> None:
    made = plan(spec)
    document = made.model_dump(mode="json")
    digests = {made.digest()}
    changed = total = 0
    paths = list(leaves(document))
    for path in paths[:: -(-len(paths) // examples(len(paths)))]:
        total += 1
        copy = json.loads(json.dumps(document))
        node = copy
        for key in path[:-1]:
            node = node[key]
        original = node[path[-1]]
        for other in others(original):
            if other == original:
                continue
            node[path[-1]] = other
            try:
                different = Plan.model_validate_json(json.dumps(copy))
            except ValidationError:
                continue
            assert different != made, path
            assert different.digest() not in digests, path
            digests.add(different.digest())
            changed += 1
            break
    assert changed > 0.75 * total


def test_an_unknown_field_is_refused() -> None:
    document = plan(BERT).model_dump(mode="json") | {"more": 1}
    with pytest.raises(ValidationError, match="more"):
        Plan.model_validate(document)


def test_canonical_text_does_not_depend_on_order() -> None:
    assert canonical({"b": 1, "a": [1, {"d": None, "c": "é"}]}) == '{"a":[1,{"c":"é","d":null}],"b":1}'
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest([1, 2]) != digest([2, 1])


def test_plans_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        plan(BERT).name = "other"


def test_defaults_come_from_the_profile() -> None:
    cpu, edge = (plan(BERT, targets=(name,)).targets[0] for name in ("cpu", "edge"))
    assert (cpu.platforms, edge.platforms) == (("linux/amd64",), ("linux/arm64", "linux/amd64"))
    assert [variant.name for variant in cpu.variants] == ["fp32", "fp32-unfused", "fp32-openvino"]
    assert {variant.precision for variant in edge.variants} == {"int8"}
    assert cpu.variants[0].runtime.pins_sha256 == pins("onnxruntime").sha256
    assert cpu.variants[2].runtime.pins_sha256 == pins("onnxruntime-openvino").sha256
    assert cpu.measure_at.as_dict() == {"batch": 1, "sequence": 128}
    assert cpu.budgets.latency == {"p99": pytest.approx(0.12)}
    assert (cpu.unmeasured, edge.unmeasured) == ("fail", "allow")


def test_what_the_spec_says_goes_before_the_profile() -> None:
    made = plan(
        BERT,
        "targets.cpu.precision=auto",
        "targets.cpu.platforms=[linux/arm64]",
        "targets.cpu.latency_budget={p50: 1ms, p90: 2ms, at: {batch: 4}}",
        "targets.cpu.size_budget=80MB",
        "targets.cpu.unmeasured=allow",
        targets=("cpu",),
    ).targets[0]
    # All of the profile's, but for those of an engine that has no wheels for the platform.
    profile = load_profile("cpu")
    assert [variant.name for variant in made.variants] == [v.name for v in profile.variants if v.engine is None]
    assert [entry.variant for entry in made.left_out] == [v.name for v in profile.variants if v.engine is not None]
    assert made.platforms == ("linux/arm64",)
    # An axis that `at` leaves out is at its typical size; percentiles in rising order.
    assert made.measure_at.as_dict() == {"batch": 4, "sequence": 128}
    assert sorted(made.budgets.latency) == ["p50", "p90"]
    assert (made.budgets.limit("size_budget"), made.unmeasured) == (80_000_000, "allow")


def test_only_the_targets_asked_for() -> None:
    assert [entry.name for entry in plan(BERT).targets] == ["server-gpu", "cpu", "edge"]
    assert [entry.name for entry in plan(BERT, targets=("edge", "server-gpu")).targets] == ["server-gpu", "edge"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"precision": "fp32"}, "`v` has precision `fp32`, and its rewrites make it `fp16`"),
        ({"precision": "fp16", "rewrites": ["bfloat16"]}, "its rewrites make it `bf16`"),
        ({"precision": "fp32", "rewrites": []}, "`v` has a `fallback`, and neither integers nor a rewrite to 16 bits"),
        ({"fallback": ["int8-weights"]}, "`v` has the `fallback` int8-weights, which is for int8"),
    ],
)
def test_precisions_of_a_profile_are_those_of_its_graphs(changes: dict[str, Any], why: str) -> None:
    document = load_profile("server-gpu").model_dump(mode="json")
    variant = {"name": "v", "precision": "fp16", "rewrites": ["half"], "fallback": ["fp32"]}
    assert TargetProfile.model_validate_json(json.dumps({**document, "variants": [variant]})).variants[0].name == "v"
    with pytest.raises(ValidationError, match=re.escape(why)):
        TargetProfile.model_validate_json(json.dumps({**document, "variants": [{**variant, **changes}]}))


@pytest.mark.parametrize("precision", ["fp32", "int8", "auto"])
def test_precision_filters_variants(precision: Any) -> None:
    profile = load_profile("cpu")
    found = variants_for(profile, precision)
    assert found
    assert all(variant.precision == precision for variant in found) or precision == "auto"
    assert precision != "auto" or found == profile.variants


def test_a_tuning_goes_over_the_session_of_a_variant() -> None:
    session = target().variants[0].session
    tuning = TuningPlan(
        name="one-thread-a-request",
        concurrency="physical",
        intra_op=1,
        options={"enable_mem_pattern": False},
        config_entries={"session.intra_op.allow_spinning": "0", "session.dynamic_block_base": "4"},
    )
    made = tuning.apply(session)
    assert session == target().variants[0].session
    assert made.options == {**session.options, "enable_mem_pattern": False}
    assert made.config_entries == {
        **session.config_entries,
        "session.intra_op.allow_spinning": "0",
        "session.dynamic_block_base": "4",
    }
    assert (made.threads.intra_op, made.threads.inter_op) == (1, session.threads.inter_op)
    assert (session.concurrency, made.concurrency) == ("one", "physical")
    assert (made.providers, made.environment) == (session.providers, session.environment)
    # Threads are left alone by a tuning that does not name them; twice is as good as once.
    assert tuning.model_copy(update={"intra_op": None}).apply(session).threads == session.threads
    assert tuning.apply(made) == made


def test_tunings_are_those_of_the_objective() -> None:
    names = {
        objective: {
            entry.name for entry in plan(BERT, f"targets.cpu.objective={objective}", targets=("cpu",)).targets[0].tuning
        }
        for objective in ("latency", "throughput", "size")
    }
    assert "one-thread-a-request" in names["throughput"]
    assert "one-thread" in names["latency"]
    assert not names["latency"] & names["throughput"]
    assert names["size"] == set()


def searched(search: Search, variant: str | None = None, *overrides: str) -> Plan:
    checked = check_spec(BERT, overrides)
    return resolve(checked.loaded.spec, checked.profiles, ("cpu",), search=search, variant=variant)


def test_no_search_takes_the_first_variant_as_it_is() -> None:
    (cpu,) = (made := searched("none")).targets
    assert made.search == "none"
    assert [variant.name for variant in cpu.variants] == ["fp32"]
    assert {entry.variant: entry.reason for entry in cpu.left_out} == {
        "fp32-unfused": "not looked at: `--search none` takes the first",
        "fp32-openvino": "not looked at: `--search none` takes the first",
    }
    assert cpu.tuning == ()
    # The first that can be tried: the reason of one before it is its own.
    arm = searched("none", None, "targets.cpu.platforms=[linux/arm64]").targets[0]
    assert {entry.variant: entry.reason for entry in arm.left_out}["fp32-openvino"] == (
        "onnxruntime-openvino is not for linux/arm64, which the target promises"
    )


def test_a_quick_search_takes_one_of_two_that_are_alike() -> None:
    def stand_ins(search: Search, *overrides: str) -> dict[str, str]:
        variants = searched(search, None, "targets.cpu.precision=auto", *overrides).targets[0].variants
        return {variant.name: variant.stands_in_for for variant in variants if variant.stands_in_for is not None}

    assert stand_ins("quick") == {"int8-dynamic": "int8-merged"}
    assert stand_ins("full") == stand_ins("none") == {}


def test_a_quick_search_looks_at_fewer_shapes() -> None:
    full, quick = searched("full"), searched("quick")
    assert len(full.skipped_cases) == 0
    # The settings that rarely win are for a full search; those of an objective are for both.
    assert [tuning.name for tuning in full.targets[0].tuning] == ["sleeping", "one-thread", "small-blocks"]
    assert quick.targets[0].tuning == ()
    for search in ("full", "quick"):
        (tuning,) = searched(search, None, "targets.cpu.objective=throughput").targets[0].tuning
        assert tuning.name == "one-thread-a-request"
    assert len(quick.cases) < len(full.cases)
    assert {case.reason for case in quick.skipped_cases} == {"a quick search looks at the corners of the shape matrix"}
    assert full.targets[0].measure_at in {case.shape for case in quick.cases}
    assert full.digest() != quick.digest()


def test_a_forced_variant_is_the_only_one_whatever_the_precision() -> None:
    (cpu,) = searched("full", "int8-dynamic").targets
    assert (cpu.precision, [variant.name for variant in cpu.variants], cpu.left_out) == ("fp32", ["int8-dynamic"], ())


def test_a_mix_is_asked_for_by_the_name_of_its_variant() -> None:
    checked = check_spec(ROOT / "specs" / "bert.yaml")
    profile = checked.profiles["edge"]
    fallbacks = {variant.name for variant in profile.variants if variant.fallback}
    assert fallbacks >= {"int8-dynamic", "int8-calibrated"}
    for variant in profile.variants:
        made = resolve(checked.loaded.spec, checked.profiles, ("edge",), variant=f"{variant.name}-mixed")
        expected = [variant.name] if variant.name in fallbacks else []
        assert [entry.name for entry in made.targets[0].variants] == expected


def test_why_a_variant_is_left_out() -> None:
    checked = check_spec(BERT, ())
    spec, profile = checked.loaded.spec, checked.profiles["cpu"]
    variants = {variant.name: variant for variant in profile.variants}
    plain, other = (engine_of(profile, variants[name]) for name in ("fp32", "fp32-openvino"))
    assert why_not(spec, plain, variants["fp32"], ("linux/amd64", "linux/arm64")) is None
    assert why_not(spec, other, variants["fp32-openvino"], ("linux/amd64",)) is None
    assert why_not(spec, other, variants["fp32-openvino"], ("linux/amd64", "linux/arm64")) == (
        "onnxruntime-openvino is not for linux/arm64, which the target promises"
    )
    newer = spec.model_copy(update={"export": spec.export.model_copy(update={"opset": 26})})
    assert why_not(newer, plain, variants["fp32"], ("linux/amd64",)) is None
    assert why_not(newer, other, variants["fp32-openvino"], ("linux/amd64",)) == (
        "onnxruntime-openvino 1.24.1 reaches opset 25"
    )
    how = StaticQuantization(kind="static", operators=("MatMul",))
    static = variants["int8-dynamic"].model_copy(update={"quantization": how})
    assert why_not(spec, plain, static, ("linux/amd64",)) is None
    without = spec.model_copy(update={"accuracy": spec.accuracy.model_copy(update={"samples": None})})
    assert why_not(without, plain, static, ("linux/amd64",)) == "calibration needs real inputs: `accuracy.samples`"
    # Weights that were never trained have no real inputs to be right on.
    seeded = without.model_copy(update={"model": spec.model.model_copy(update={"weights": "random"})})
    assert why_not(seeded, plain, static, ("linux/amd64",)) is None


def export(inputs: tuple[InputPlan, ...] | None, *axes: str) -> ExportPlan:
    bounds = tuple(AxisPlan(name=name, min=1, typical=1, max=8) for name in axes)
    return ExportPlan(opset=17, ir_version=8, exporter="auto", axes=bounds, inputs=inputs, outputs=None)


def test_the_axis_that_a_mask_pads() -> None:
    mask = InputPlan(name="attention_mask", dtype="int64", shape=("batch", "length"))
    assert padded_axis(export((mask,), "batch", "length")) == "length"
    assert padded_axis(export((mask.model_copy(update={"shape": ("batch", 8)}),), "batch")) is None
    assert padded_axis(export((mask.model_copy(update={"name": "x"}),), "batch", "length")) is None
    # Derived later: a text model's canonical axis.
    assert padded_axis(export(None, "batch", "sequence")) == "sequence"
    assert padded_axis(export(None, "batch", "samples")) is None


def test_rendering_gives_equal_bytes() -> None:
    session = target().variants[0].session

    def files(level: GraphLevel = "all", **changes: Any) -> dict[str, bytes]:
        rendered = render(target(), manifest(**changes), session_file(session, level), pins("onnxruntime"))
        assert len({file.path for file in rendered}) == len(rendered)
        return {file.path: file.content for file in rendered}

    first, again = files(), files()
    assert first == again
    # What it depends on shows.
    for other, changed in (
        (files(version="2"), {"Dockerfile", "README.md"}),
        (files("basic"), {"session.json"}),
    ):
        assert {path for path, content in first.items() if other[path] != content} == changed


def test_samples_are_held_out_whichever_targets_are_built() -> None:
    checked = check_spec(BERT, ())
    plans = [resolve(checked.loaded.spec, checked.profiles, names) for names in ((), ("cpu",), ("edge",))]
    assert [plan.holds_out for plan in plans] == [True, True, True]
    assert not plans[1].targets[0].calibrates
    exact = check_spec(BERT, ("targets.edge.precision=fp32", "targets.server-gpu.precision=fp32"))
    plan = resolve(exact.loaded.spec, exact.profiles)
    assert not plan.holds_out
    assert not plan.calibrates
