"""Execution providers: those asked for or none, their thread policy, and which nodes they may leave to the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support import bundles
from tests.support.sessions import CPU, bundle_with, loader

measuring = bundles.runtime_module("loading.measuring")
placement_module = bundles.runtime_module("loading.placement")
providers_module = bundles.runtime_module("loading.providers")

AZURE = {"name": "AzureExecutionProvider", "options": {}}


CUDA = pytest.param(
    "CUDAExecutionProvider",
    marks=pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this host has what the test wants missing"),
)


@pytest.mark.parametrize("name", [CUDA, "CudaExecutionProvider", "NoSuchProvider"])
def test_a_provider_that_is_not_there_is_an_error_and_no_cpu_session(tmp_path: Path, name: str) -> None:
    bundle = bundle_with(tmp_path, providers=[{"name": name, "options": {}}, CPU])
    with pytest.raises(loader.ProvidersError, match=f"asks for {name}, CPUExecutionProvider") as caught:
        loader.Model.load(bundle)
    assert (caught.value.code, caught.value.exit_code) == ("providers", 6)


def test_a_session_needs_a_provider(tmp_path: Path) -> None:
    with pytest.raises(loader.ProvidersError, match="asks for no provider"):
        loader.Model.load(bundle_with(tmp_path, providers=[]))


def has_azure() -> bool:
    import onnxruntime

    return "AzureExecutionProvider" in onnxruntime.get_available_providers()


# The one provider besides the CPU that needs no hardware; in the wheels of `onnxruntime`, not of `onnxruntime-gpu`.
needs_azure = pytest.mark.skipif(not has_azure(), reason="this onnxruntime has no AzureExecutionProvider")


@needs_azure
def test_the_providers_given_must_be_those_asked_for(tmp_path: Path) -> None:
    # ONNX Runtime adds the CPU by itself.
    with pytest.raises(loader.ProvidersError, match="gave AzureExecutionProvider, CPUExecutionProvider"):
        loader.Model.load(bundle_with(tmp_path, providers=[AZURE]))


def test_openvino_gets_the_thread_policy_within_its_own_options() -> None:
    hint = json.dumps({"CPU": {"INFERENCE_PRECISION_HINT": "bf16", "ENABLE_CPU_PINNING": "YES"}})
    for given, expected in (
        ({}, {"ENABLE_CPU_PINNING": "NO"}),
        ({"device_type": "CPU", "num_streams": "1"}, {"ENABLE_CPU_PINNING": "NO"}),
        ({"load_config": hint}, {"INFERENCE_PRECISION_HINT": "bf16", "ENABLE_CPU_PINNING": "YES"}),
    ):
        made = providers_module.provider_options("OpenVINOExecutionProvider", given, 3)
        assert json.loads(made.pop("load_config")) == {"CPU": {**expected, "INFERENCE_NUM_THREADS": "3"}}
        assert made == {"device_type": "CPU"} | {name: given[name] for name in given if name != "load_config"}


def test_openvino_parts_its_threads_among_requests_at_once() -> None:
    made = providers_module.provider_options("OpenVINOExecutionProvider", {}, 1, 4)
    assert json.loads(made["load_config"])["CPU"] == {
        "ENABLE_CPU_PINNING": "NO",
        "NUM_STREAMS": "4",
        "INFERENCE_NUM_THREADS": "4",
    }
    given = {"load_config": '{"CPU": {"NUM_STREAMS": "2"}}'}
    made = providers_module.provider_options("OpenVINOExecutionProvider", given, 2, 4)
    assert json.loads(made["load_config"])["CPU"] == {
        "ENABLE_CPU_PINNING": "NO",
        "NUM_STREAMS": "2",
        "INFERENCE_NUM_THREADS": "8",
    }


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("OpenVINOExecutionProvider", {"device_type": "GPU", "load_config": '{"GPU": {}}'}),
        ("CPUExecutionProvider", {}),
        ("CUDAExecutionProvider", {"device_id": "1"}),
    ],
)
def test_other_devices_and_providers_keep_their_options(name: str, options: dict[str, str]) -> None:
    assert providers_module.provider_options(name, options, 3) == options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_of_threads": "4"}, "number of threads, which is for threads.intra_op"),
        (
            {"load_config": '{"CPU": {"INFERENCE_NUM_THREADS": "4"}}'},
            "number of threads, which is for threads.intra_op",
        ),
        ({"load_config": '{"CPU": {"INFERENCE_PRECISION_HINT": "fp16"}}'}, "is 'fp16', expected bf16, f16 or f32"),
        ({"load_config": '{"GPU": {}}'}, "expected the device CPU and no other, found CPU, GPU"),
        ({"device_type": "HETERO:CPU"}, "expected the device CPU and no other, found HETERO:CPU"),
        ({"load_config": "{"}, "is malformed: Expecting property name"),
        ({"load_config": "[1]"}, "is malformed"),
        ({"load_config": '{"CPU": 1}'}, "is malformed"),
    ],
)
def test_options_that_openvino_would_ignore_or_that_set_threads_are_refused(
    tmp_path: Path, options: dict[str, str], message: str
) -> None:
    openvino = {"name": "OpenVINOExecutionProvider", "options": options}
    with pytest.raises(loader.FormatError, match=message) as caught:
        loader.Model.load(bundle_with(tmp_path, providers=[openvino, CPU]))
    assert "session.json" in str(caught.value)


def test_openvino_must_run_something() -> None:
    placement = [("CPUExecutionProvider", f"c{i}", "Cast", "") for i in range(3)]
    placement_module.check_used([])
    placement_module.check_used([*placement, ("OpenVINOExecutionProvider", "m", "MatMul", "")])
    with pytest.raises(loader.ProvidersError, match="OpenVINOExecutionProvider runs none of the 3 nodes"):
        placement_module.check_used(placement)


def test_placement_is_data(tmp_path: Path) -> None:
    with loader.Model.load(bundle_with(tmp_path)) as model:
        placement = model.placement()
        assert {provider for provider, *_ in placement} == {"CPUExecutionProvider"}
        assert {op for _, _, op, _ in placement} >= {"Tanh", "ArgMax"}
        assert model.providers == ("CPUExecutionProvider",)


@pytest.mark.parametrize(
    ("budget", "message"), [(9, r"10 of 12 nodes .* allows 9: Cast 'c0', .*, Cast 'c7', \.\.\."), (0, "allows 0")]
)
def test_nodes_on_the_cpu_are_counted_against_the_budget(budget: int, message: str) -> None:
    placement = [("CPUExecutionProvider", f"c{i}", "Cast", "") for i in range(10)]
    placement += [("CUDAExecutionProvider", f"m{i}", "MatMul", "") for i in range(2)]
    placement_module.check_placement(placement, 10)
    placement_module.check_placement(placement, None)
    with pytest.raises(loader.PlacementError, match=message):
        placement_module.check_placement(placement, budget)


ON_CPU = "CPUExecutionProvider"
SHAPES = {"Concat": ["c0", "c1"], "com.microsoft::Fused": ["f0"]}


@pytest.mark.parametrize(
    ("node", "is_shape"),
    [
        ((ON_CPU, "c0", "Concat", ""), True),
        ((ON_CPU, "c0", "Concat", "ai.onnx"), True),
        ((ON_CPU, "f0", "Fused", "com.microsoft"), True),
        # Another operator of the name, another domain, a name that ONNX Runtime made.
        ((ON_CPU, "c0", "Gather", ""), False),
        ((ON_CPU, "c0", "Concat", "com.microsoft"), False),
        ((ON_CPU, "f0", "Fused", ""), False),
        ((ON_CPU, "c0_token_1", "Concat", ""), False),
    ],
)
def test_shape_arithmetic_is_told_by_operator_domain_and_name(node: Any, is_shape: bool) -> None:
    elsewhere = ("CUDAExecutionProvider", "c1", "Concat", "")
    assert placement_module.left_to_cpu([node, elsewhere], SHAPES) == (([node], []) if is_shape else ([], [node]))


def test_shape_arithmetic_does_not_count_and_is_told() -> None:
    placement = [(ON_CPU, "c0", "Concat", ""), (ON_CPU, "x", "Tanh", ""), ("CUDAExecutionProvider", "m", "MatMul", "")]
    placement_module.check_placement(placement, 1, SHAPES)
    with pytest.raises(loader.PlacementError, match=r"1 of 3 nodes run on the CPU besides 1 .* allows 0: Tanh 'x'\."):
        placement_module.check_placement(placement, 0, SHAPES)


@needs_azure
@pytest.mark.parametrize(("listed", "left"), [({"ArgMax": ["argmax"]}, 2), ({"ArgMax": ["other"]}, 3)])
def test_a_session_tells_what_was_left_to_the_cpu(tmp_path: Path, listed: dict[str, list[str]], left: int) -> None:
    placement = {"max_cpu_nodes": 3, "max_memcpy_nodes": 0, "shape_nodes": listed}
    bundle = bundle_with(tmp_path, providers=[AZURE, CPU], manifest={"placement": placement})
    with loader.Model.load(bundle) as model:
        found = model.info()["fallback"]
    assert (found["nodes"], found["shape_nodes"], len(found["named"])) == (left, 3 - left, left)
    assert ("ArgMax 'argmax'" in found["named"]) == (left == 3)
    # Both run on the host: there is nothing to copy.
    assert measuring.count_copies(bundle, bundles.linear().golden[0]) == {}


def test_the_time_of_a_run_is_told_by_operator(tmp_path: Path) -> None:
    found = measuring.time_operators(bundle_with(tmp_path), bundles.linear().golden[0])
    assert {entry["provider"] for entry in found} == {"CPUExecutionProvider"}
    assert sum(entry["nodes"] for entry in found) >= 2
    times = [entry["microseconds"] for entry in found]
    assert times == sorted(times, reverse=True)
    assert max(times) > 0


def test_shape_arithmetic_that_is_no_list_of_names_is_refused(tmp_path: Path) -> None:
    placement = {"max_cpu_nodes": 0, "shape_nodes": {"Concat": "c0"}}
    with pytest.raises(loader.FormatError, match="expected a list of names"):
        loader.Model.load(bundle_with(tmp_path, manifest={"placement": placement}))


@needs_azure
@pytest.mark.parametrize(("budget", "fits"), [(None, True), (100, True), (3, True), (2, False), (0, False)])
def test_the_placement_budget_is_enforced(tmp_path: Path, budget: int | None, fits: bool) -> None:
    bundle = bundle_with(tmp_path, providers=[AZURE, CPU], manifest={"placement": {"max_cpu_nodes": budget}})
    if fits:
        loader.Model.load(bundle).close()
        return
    with pytest.raises(
        loader.PlacementError, match=f"3 of 3 nodes run on the CPU, .*allows {budget}: .*Tanh"
    ) as caught:
        loader.Model.load(bundle)
    assert caught.value.code == "placement"


def test_the_budget_means_nothing_where_only_the_cpu_is_asked_for(tmp_path: Path) -> None:
    loader.Model.load(bundle_with(tmp_path, manifest={"placement": {"max_cpu_nodes": 0}})).close()
