"""The generated tables say what was measured on the real wheels, and answer unknown names with what they know."""

import re

import pytest
from packaging.markers import Marker
from packaging.version import Version
from tests.support import bundles

from ortc.spec import runtimes
from ortc.spec.runtimes import Option, PinSet, UnknownVersionError

CURRENT = "1.31.1"
OPENVINO = "1.24.1"
PIN_SETS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-gpu-cuda", "onnxruntime-openvino")


# --- runtimes ---


@pytest.mark.parametrize(
    ("version", "opset", "ir"), [("1.23.2", 23, 11), ("1.24.4", 25, 13), ("1.25.1", 26, 13), (CURRENT, 26, 13)]
)
def test_limits_of_the_runtimes(version: str, opset: int, ir: int) -> None:
    found = runtimes.runtime("onnxruntime", version)
    assert (found.max_opset, found.max_ir) == (opset, ir)


def test_runtimes_are_ordered_by_package_and_version_and_none_is_there_twice() -> None:
    keys = [(found.package, Version(found.version)) for found in runtimes.runtimes()]
    assert keys == sorted(set(keys))
    assert {package for package, _ in keys} == {
        "onnxruntime",
        "onnxruntime-gpu",
        "onnxruntime-node",
        "onnxruntime-openvino",
        "onnxruntime-web",
    }


def test_pythons_and_platforms_come_from_the_wheels() -> None:
    cpu = runtimes.runtime("onnxruntime", CURRENT)
    assert cpu.pythons == ("3.11", "3.12", "3.13", "3.14")
    assert cpu.platforms == ("linux/amd64", "linux/arm64")
    assert runtimes.runtime("onnxruntime", "1.23.2").pythons[0] == "3.10"
    assert runtimes.runtime("onnxruntime-gpu", CURRENT).platforms == ("linux/amd64",)
    openvino = runtimes.runtime("onnxruntime-openvino", OPENVINO)
    assert (openvino.platforms, openvino.pythons) == (("linux/amd64",), ("3.11", "3.12", "3.13"))


def test_limits_of_the_openvino_package() -> None:
    found = runtimes.runtime("onnxruntime-openvino", OPENVINO)
    assert (found.max_opset, found.max_ir) == (25, 13)
    assert found.providers.available == ("CPUExecutionProvider", "OpenVINOExecutionProvider")
    # What the loader's placement data rests on.
    assert "session.record_ep_graph_assignment_info" in found.config_keys


def test_only_gpu_runtimes_need_cuda() -> None:
    needed = runtimes.runtime("onnxruntime-gpu", CURRENT).cuda
    assert needed is not None
    assert (needed.version, needed.cudnn, needed.least_driver) == ("13.0", "~=9.0", "580")
    assert runtimes.runtime("onnxruntime", CURRENT).cuda is None


def test_the_loader_asks_of_a_gpu_what_the_table_says() -> None:
    needs = bundles.runtime_module("loading.nvidia").CUDA_NEEDS
    tables = [found.cuda for found in runtimes.runtimes() if found.cuda is not None]
    assert tables
    for table in tables:
        driver, capability, _ = needs[table.version.partition(".")[0]]
        assert (driver, capability) == (table.least_driver, tuple(map(int, table.least_capability.split("."))))


@pytest.mark.parametrize(
    "key",
    [
        "ep.context_enable",
        "mlas.enable_gemm_fastmath_arm64_bfloat16",  # only in the arm64 wheel
        "optimization.disable_specified_optimizers",
        "optimization.enable_gelu_approximation",
        "session.disable_cpu_ep_fallback",
        "session.disable_prepacking",
        "session.dynamic_block_base",
        "session.inter_op.allow_spinning",
        "session.intra_op.allow_spinning",
        "session.intra_op_thread_affinities",
        "session.optimized_model_external_initializers_file_name",
        "session.optimized_model_external_initializers_min_size_in_bytes",
        "session.prepack.enable_parallel",
        "session.qdqisint8allowed",
        "session.record_ep_graph_assignment_info",
        "session.save_external_prepacked_constant_initializers",
        "session.set_denormal_as_zero",
        "session.use_device_allocator_for_initializers",
        "session.use_env_allocators",
        "session.x64quantprecision",
    ],
)
def test_documented_config_keys_are_known(key: str) -> None:
    assert key in runtimes.runtime("onnxruntime", CURRENT).config_keys


@pytest.mark.parametrize(
    "key",
    [
        "memory.pattern_optimization.enabled",  # never existed
        "memory.enable_memory_arena_shrinkage",  # belongs to a run
        "session.intra_op.allow_spining",
        "session.compile_only",  # internal
        "",
    ],
)
def test_other_config_keys_are_not(key: str) -> None:
    assert all(key not in found.config_keys for found in runtimes.runtimes())


def test_every_config_key_is_one_whole_name() -> None:
    keys = {key for found in runtimes.runtimes() for key in found.config_keys | found.run_config_keys}
    dotted = r"(session|optimization|ep|mlas|memory|qnn)(\.[a-z0-9][a-z0-9_]*[a-z0-9])+"
    assert {key for key in keys if not re.fullmatch(dotted, key)} == {
        "disable_synchronize_execution_providers",
        "gpu_graph_id",
    }
    # A name that a compiler cut in two would be the beginning of another one.
    assert [(key, other) for key in keys for other in keys if other != key and other.startswith(key)] == []


def test_run_config_keys_are_apart() -> None:
    found = runtimes.runtime("onnxruntime", CURRENT)
    assert "memory.enable_memory_arena_shrinkage" in found.run_config_keys
    assert not found.run_config_keys & found.config_keys


def test_session_options_have_kinds() -> None:
    options = runtimes.runtime("onnxruntime", CURRENT).session_options
    assert options["enable_mem_pattern"] == Option(kind="bool")
    assert options["intra_op_num_threads"] == Option(kind="int")
    assert options["optimized_model_filepath"] == Option(kind="str")
    assert options["execution_mode"] == Option(kind="enum", values=("ORT_PARALLEL", "ORT_SEQUENTIAL"))
    assert "ORT_ENABLE_LAYOUT" in options["graph_optimization_level"].values
    assert "add_session_config_entry" not in options


def test_available_providers_are_those_of_the_wheel() -> None:
    cpu, gpu = runtimes.runtime("onnxruntime", CURRENT), runtimes.runtime("onnxruntime-gpu", CURRENT)
    assert "CPUExecutionProvider" in cpu.providers.available
    assert "CUDAExecutionProvider" not in cpu.providers.available
    assert "CUDAExecutionProvider" in cpu.providers.all
    assert {"TensorrtExecutionProvider", "CUDAExecutionProvider"} <= set(gpu.providers.available)
    assert "CudaExecutionProvider" not in gpu.providers.all
    for found in runtimes.runtimes():
        assert set(found.providers.available) == found.options.keys()
        assert set(found.providers.available) <= set(found.providers.all)


def test_provider_options() -> None:
    gpu = runtimes.runtime("onnxruntime-gpu", CURRENT)
    cuda = gpu.provider_options("CUDAExecutionProvider")
    assert {"gpu_mem_limit", "sdpa_kernel", "prefer_nhwc", "enable_cudnn", "user_compute_stream"} <= cuda.keys()
    assert "gpu_memory_limit" not in cuda
    assert "trt_profile_opt_shapes" in gpu.provider_options("TensorrtExecutionProvider")
    assert gpu.provider_options("CPUExecutionProvider") == {}
    with pytest.raises(UnknownVersionError, match="has no CUDAExecutionProvider; it has Azure"):
        runtimes.runtime("onnxruntime", CURRENT).provider_options("CUDAExecutionProvider")


@pytest.mark.parametrize(
    ("provider", "option", "accepted", "refused"),
    [
        ("OpenVINOExecutionProvider", "num_of_threads", ("2", "0"), ("two", "1.5", "")),
        ("OpenVINOExecutionProvider", "disable_dynamic_shapes", ("true", "False"), ("1", "0", "TRUE")),
        ("OpenVINOExecutionProvider", "precision", ("ACCURACY",), ("accuracy", "bf16")),
        ("OpenVINOExecutionProvider", "load_config", ('{"CPU": {}}',), ()),
        ("CUDAExecutionProvider", "use_tf32", ("0", "1", "True"), ("yes", "2", "")),
        ("CUDAExecutionProvider", "device_id", ("0", "-1"), ("zero", "1.5", "", "٣")),
        ("CUDAExecutionProvider", "cudnn_conv_algo_search", ("HEURISTIC",), ("heuristic",)),
        # The Python binding parses these, and takes no digits.
        ("TensorrtExecutionProvider", "trt_engine_cache_enable", ("True", "False"), ("1", "0")),
        ("TensorrtExecutionProvider", "trt_engine_cache_path", ("/var/cache/engines",), ()),
    ],
)
def test_provider_option_values(
    provider: str, option: str, accepted: tuple[str, ...], refused: tuple[str, ...]
) -> None:
    package = ("onnxruntime-openvino", OPENVINO) if provider.startswith("OpenVINO") else ("onnxruntime-gpu", CURRENT)
    found = runtimes.runtime(*package).provider_options(provider)[option]
    assert [text for text in accepted if not found.accepts(text)] == []
    assert [text for text in refused if found.accepts(text)] == []


@pytest.mark.parametrize(
    ("package", "version", "message"),
    [
        ("onnxruntime", "1.22.0", r"onnxruntime 1\.22\.0 is not supported; supported are 1\.23\.2, .*1\.31\.1"),
        ("onnxruntime-directml", CURRENT, "supported are onnxruntime, onnxruntime-gpu"),
    ],
)
def test_an_unknown_runtime_names_the_known_ones(package: str, version: str, message: str) -> None:
    with pytest.raises(UnknownVersionError, match=message):
        runtimes.runtime(package, version)


# --- opsets ---


@pytest.mark.parametrize(("opset", "ir"), [(9, 4), (13, 7), (17, 8), (20, 9), (21, 10), (23, 11), (24, 12), (26, 13)])
def test_least_ir_version_of_an_opset(opset: int, ir: int) -> None:
    assert runtimes.ir_version_for_opset(opset) == ir


def test_every_runtime_loads_the_ir_version_chosen_for_its_opsets() -> None:
    for found in runtimes.runtimes():
        assert runtimes.ir_version_for_opset(found.max_opset) <= found.max_ir


@pytest.mark.parametrize("opset", [0, 6, 99])
def test_an_unknown_opset_names_the_range(opset: int) -> None:
    with pytest.raises(UnknownVersionError, match=f"opset {opset} is unknown; known are 7 to"):
        runtimes.ir_version_for_opset(opset)


def test_exporter_limits() -> None:
    dynamo, torchscript = runtimes.exporter_limits("dynamo"), runtimes.exporter_limits("torchscript")
    assert (dynamo.default_opset, dynamo.min_native_opset, dynamo.max_opset) == (20, 18, 23)
    assert (torchscript.min_native_opset, torchscript.max_opset) == (7, 20)
    with pytest.raises(UnknownVersionError, match="known are dynamo, torchscript"):
        runtimes.exporter_limits("auto")


def test_the_table_names_the_tools_it_was_made_with() -> None:
    assert runtimes.tool_versions().keys() == {"onnx", "torch"}
    assert runtimes.tool_versions()["torch"].startswith("2.13.")


# --- pins ---


@pytest.fixture(params=PIN_SETS)
def pin_set(request: pytest.FixtureRequest) -> PinSet:
    return runtimes.pins(request.param)


def test_every_pair_of_a_set_gets_exactly_one_wheel_of_each_package(pin_set: PinSet) -> None:
    machines = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
    for platform in pin_set.platforms:
        for python in pin_set.pythons:
            environment = {"platform_machine": machines[platform], "python_version": python}
            names = []
            for pin in pin_set.requirements:
                served = [wheel for wheel in pin.wheels if python in wheel.serves.get(platform, ())]
                wanted = pin.marker is None or Marker(pin.marker).evaluate(environment)
                assert len(served) == (1 if wanted else 0), f"{pin.name} on {platform}, Python {python}"
                names += [pin.name] if wanted else []
            assert sorted(set(names)) == sorted(names)


def test_wheels_are_of_the_pinned_version_and_digests_are_sha256(pin_set: PinSet) -> None:
    for pin in pin_set.requirements:
        for wheel in pin.wheels:
            name, version, *_ = wheel.file.split("-")
            assert (name.replace("_", "-"), version) == (pin.name, pin.version)
            assert re.fullmatch("[0-9a-f]{64}", wheel.sha256)
            assert wheel.bytes > 1000


def test_what_the_sets_hold() -> None:
    names = {name: {pin.name for pin in runtimes.pins(name).requirements} for name in PIN_SETS}
    server = {"anyio", "click", "h11", "httptools", "idna", "orjson", "prometheus-client", "starlette", "uvicorn"}
    runtime = {"flatbuffers", "numpy", "onnxruntime", "packaging", "protobuf"}
    assert names["onnxruntime"] == runtime | server | {"typing-extensions"}
    assert names["onnxruntime-gpu"] == names["onnxruntime"] - {"onnxruntime"} | {"onnxruntime-gpu"}
    assert names["onnxruntime-openvino"] == (
        names["onnxruntime"] - {"onnxruntime"} | {"onnxruntime-openvino", "sympy", "mpmath"}
    )
    assert names["onnxruntime-gpu-cuda"] - names["onnxruntime-gpu"] == {
        "nvidia-cublas",  # not in the extra `cuda`; cuDNN requires it
        "nvidia-cuda-nvrtc",
        "nvidia-cuda-runtime",
        "nvidia-cudnn-cu13",
        "nvidia-cufft",
        "nvidia-curand",
        "nvidia-nvjitlink",
    }


def digests(text: str) -> set[str]:
    return set(re.findall(r"sha256:([0-9a-f]{64})", text))


def test_what_a_set_serves() -> None:
    openvino = runtimes.pins("onnxruntime-openvino")
    assert openvino.serves("linux/amd64", "3.11")
    assert not openvino.serves("linux/amd64", "3.14")
    assert not openvino.serves("linux/arm64", "3.11")


def test_requirements_are_hash_pinned_text() -> None:
    text = runtimes.pins("onnxruntime").requirements_txt(("linux/amd64",), ("3.12",))
    lines = text.splitlines()
    assert [line.partition("==")[0] for line in lines if not line.startswith(" ")] == [
        "anyio",
        "click",
        "flatbuffers",
        "h11",
        "httptools",
        "idna",
        "numpy",
        "onnxruntime",
        "orjson",
        "packaging",
        "prometheus-client",
        "protobuf",
        "starlette",
        "typing-extensions",
        "uvicorn",
    ]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+( ; .+)? \\", line) for line in lines[::2])
    assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", line) for line in lines[1::2])
    assert text.endswith("\n")


def test_requirements_hold_the_digests_of_the_platforms_asked_for() -> None:
    pins = runtimes.pins("onnxruntime")
    amd64, arm64 = (pins.requirements_txt((platform,)) for platform in pins.platforms)
    assert digests(pins.requirements_txt()) == digests(amd64) | digests(arm64)
    pure = {wheel.sha256 for pin in pins.requirements for wheel in pin.wheels if wheel.file.endswith("-any.whl")}
    assert digests(amd64) & digests(arm64) == pure
    # onnxruntime, numpy, httptools and orjson for each Python, protobuf, two pure ones, and eight of the server
    assert len(digests(amd64)) == 4 * 4 + 1 + 2 + 8


def test_a_marker_is_written_before_the_digests() -> None:
    pin = next(pin for pin in runtimes.pins("onnxruntime").requirements if pin.name == "flatbuffers")
    marked = pin.model_copy(update={"marker": 'python_version == "3.11"'})
    text = runtimes.pins("onnxruntime").model_copy(update={"requirements": (marked,)}).requirements_txt()
    assert text.startswith(f'flatbuffers=={pin.version} ; python_version == "3.11" \\\n    --hash=sha256:')


def test_the_loader_needs_less_than_the_server_and_what_onnx_runtime_requires_is_counted() -> None:
    for pinned in map(
        runtimes.pins, ("onnxruntime", "onnxruntime-openvino", "onnxruntime-gpu", "onnxruntime-gpu-cuda")
    ):
        needed = {pin.name for pin in pinned.requirements if pin.loader}
        assert {pinned.requirement.partition("==")[0].partition("[")[0], "numpy", "protobuf"} <= needed
        assert not needed & {"starlette", "uvicorn", "orjson", "prometheus-client"}
        for platform in pinned.platforms:
            by_python = [pinned.download_bytes(platform, python) for python in pinned.pythons]
            assert 0 < pinned.loader_bytes(platform) < max(by_python)
    cpu = runtimes.pins("onnxruntime")
    assert 37_000_000 < cpu.loader_bytes("linux/arm64") < cpu.loader_bytes("linux/amd64") < 42_000_000
    assert runtimes.pins("onnxruntime-gpu-cuda").loader_bytes("linux/amd64") > 10**9
    with pytest.raises(UnknownVersionError, match="do not serve platform linux/arm64"):
        runtimes.pins("onnxruntime-gpu").loader_bytes("linux/arm64")


def test_download_size_counts_what_one_machine_fetches() -> None:
    pins = runtimes.pins("onnxruntime")
    assert 35_000_000 < pins.download_bytes("linux/arm64", "3.12") < pins.download_bytes("linux/amd64", "3.12")
    assert pins.download_bytes("linux/amd64", "3.12") < 50_000_000
    assert runtimes.pins("onnxruntime-gpu-cuda").download_bytes("linux/amd64", "3.12") > 10**9


@pytest.mark.parametrize(
    ("platforms", "pythons", "message"),
    [
        (("linux/riscv64",), None, "platform linux/riscv64; they serve linux/amd64, linux/arm64"),
        (None, ("3.9",), "Python 3.9; they serve 3.11"),
    ],
)
def test_a_pair_that_is_not_served_is_an_error(
    platforms: tuple[str, ...] | None, pythons: tuple[str, ...] | None, message: str
) -> None:
    with pytest.raises(UnknownVersionError, match=message):
        runtimes.pins("onnxruntime").requirements_txt(platforms, pythons)


@pytest.mark.parametrize("name", ["onnxruntime-qnn", "../runtimes", ""])
def test_unknown_pins_name_the_known_ones(name: str) -> None:
    with pytest.raises(UnknownVersionError, match="known are onnxruntime, onnxruntime-gpu, onnxruntime-gpu-cuda"):
        runtimes.pins(name)


def test_the_digest_of_a_set_changes_with_any_pin() -> None:
    pins = runtimes.pins("onnxruntime")
    (first, *rest) = pins.requirements
    changed = pins.model_copy(update={"requirements": (first.model_copy(update={"version": "0"}), *rest)})
    assert re.fullmatch("[0-9a-f]{64}", pins.sha256)
    assert changed.sha256 != pins.sha256
