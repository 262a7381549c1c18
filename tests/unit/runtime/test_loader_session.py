"""Opening a session exactly as session.json says, or not at all; and using it."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support import bundles
from tests.support.sessions import CPU, bundle_with, loader

machine_module = bundles.runtime_module("loading.machine")
model_module = bundles.runtime_module("loading.model")
nvidia = bundles.runtime_module("loading.nvidia")
settings = bundles.runtime_module("loading.settings")


def test_the_session_gets_what_the_file_says(tmp_path: Path) -> None:
    bundle = bundle_with(
        tmp_path,
        session_options={
            "graph_optimization_level": "layout",
            "execution_mode": "parallel",
            "enable_mem_pattern": False,
            "enable_mem_reuse": False,
            "enable_cpu_mem_arena": False,
        },
        threads={"intra_op": 2, "inter_op": 3},
        config_entries={"session.enable_quant_qdq_cleanup": "1"},
    )
    with loader.Model.load(bundle) as model:
        import onnxruntime as ort

        options = model._session.get_session_options()
        assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_LAYOUT
        assert options.execution_mode == ort.ExecutionMode.ORT_PARALLEL
        assert not options.enable_mem_pattern
        assert not options.enable_mem_reuse
        assert not options.enable_cpu_mem_arena
        assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 3)
        assert options.get_session_config_entry("session.enable_quant_qdq_cleanup") == "1"


@pytest.mark.parametrize(
    ("flags", "set_"),
    [
        ("fpu avx2 avx512f avx512_vnni", None),
        ("fpu avx2 avx_vnni", None),
        ("fpu avx2 avx512f", "1"),
        ("", "1"),
    ],
)
def test_weights_become_unsigned_only_where_signed_ones_overflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, set_: str | None
) -> None:
    """With VNNI nothing overflows, and the option costs a third of the speed."""
    bundle = bundle_with(tmp_path, config_entries={"session.x64quantprecision": "1"})
    monkeypatch.setattr(machine_module, "cpu_fields", lambda _: {"flags": flags})
    with loader.Model.load(bundle) as model:
        options = model._session.get_session_options()
        if set_ is None:
            with pytest.raises(RuntimeError, match=r"session\.x64quantprecision"):
                options.get_session_config_entry("session.x64quantprecision")
        else:
            assert options.get_session_config_entry("session.x64quantprecision") == set_


@pytest.mark.parametrize(
    ("session", "message"),
    [
        ({"session_options": {"enable_memory_pattern": True}}, "session_options may not have 'enable_memory_pattern'"),
        ({"session_options": {"graph_optimization_level": "max"}}, "is 'max', expected one of off, basic, extended"),
        ({"session_options": {"execution_mode": 1}}, "is 1, expected one of sequential, parallel"),
        ({"session_options": {"enable_mem_pattern": "yes"}}, "incompatible function arguments"),
        ({"session_options": None}, "is malformed"),
        ({"config_entries": {"session.intra_op.allow_spinning": 1}}, "incompatible function arguments"),
        ({"threads": {"intra_op": 1}}, "has no 'inter_op'"),
        ({"providers": [{"name": "CPUExecutionProvider"}]}, "has no 'options'"),
        ({"environment": None}, "is malformed"),
        ({"format_version": 9}, "format_version is 9"),
    ],
)
def test_a_session_file_that_cannot_be_applied_is_refused(tmp_path: Path, session: Any, message: str) -> None:
    with pytest.raises(loader.FormatError, match=message) as caught:
        loader.Model.load(bundle_with(tmp_path, **session))
    assert "session.json" in str(caught.value)


def _runtime(minimum: str) -> dict[str, Any]:
    return {"runtime": {"package": "onnxruntime", "version": "99.1.0", "minimum_version": minimum, "python": []}}


def test_a_runtime_that_is_too_old_is_named_with_the_one_wanted(tmp_path: Path) -> None:
    import onnxruntime

    with pytest.raises(loader.RuntimeVersionError) as caught:
        loader.Model.load(bundle_with(tmp_path, manifest=_runtime("99.0.0")))
    assert f"onnxruntime is {onnxruntime.__version__}, too old. Expected 99.0.0 or newer" in str(caught.value)
    assert "install onnxruntime==99.1.0" in str(caught.value)
    assert (caught.value.code, caught.value.exit_code) == ("runtime-version", 5)


@pytest.mark.parametrize("minimum", ["1.0", "1.31.0.dev1"])
def test_newer_runtimes_are_accepted(tmp_path: Path, minimum: str) -> None:
    loader.Model.load(bundle_with(tmp_path, manifest=_runtime(minimum))).close()


def test_a_missing_runtime_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # what import sees when a package is not there
    with pytest.raises(loader.RuntimeVersionError, match=r"cannot be imported: .* install onnxruntime==1\.31\.1"):
        loader.Model.load(bundle_with(tmp_path))


def test_the_environment_is_set_but_never_overridden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "mine")
    monkeypatch.setenv("CUDA_MODULE_LOADING", "x")
    monkeypatch.delenv("CUDA_MODULE_LOADING")
    bundle = bundle_with(tmp_path, environment={"OMP_WAIT_POLICY": "theirs", "CUDA_MODULE_LOADING": "theirs"})
    loader.Model.load(bundle).close()
    import os

    assert os.environ["OMP_WAIT_POLICY"] == "mine"
    assert os.environ.pop("CUDA_MODULE_LOADING") == "theirs"


def test_a_model_that_is_no_model(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path)
    (bundle / "model/model.onnx").write_bytes(b"nonsense")
    bundles.seal(bundle)
    with pytest.raises(loader.SessionError, match=r"cannot open .*model\.onnx on CPU") as caught:
        loader.Model.load(bundle)
    assert (caught.value.code, caught.value.exit_code) == ("session", 8)


@pytest.mark.parametrize("key", ["inputs", "outputs"])
def test_a_manifest_about_another_model_is_refused(tmp_path: Path, key: str) -> None:
    recipe = bundles.linear()
    recipe.manifest[key][0]["name"] = "other"
    with pytest.raises(loader.FormatError, match=f"lists the {key} .*'other'.*, the model has"):
        loader.Model.load(recipe.write(tmp_path / "bundle"))


def test_a_warm_up_shape_out_of_bounds_is_refused(tmp_path: Path) -> None:
    bundle = bundle_with(tmp_path, manifest={"warmup": [{"batch": 17}]})
    with pytest.raises(loader.FormatError, match=r"warmup has \{'batch': 17\}"):
        loader.Model.load(bundle)
    loader.Model.load(bundle, warmup=False).close()


def test_an_unfit_bundle_says_so_in_one_line_at_every_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = bundle_with(tmp_path, manifest={"fit_to_serve": False, "unfit_reason": "random weights"})
    for _ in range(2):
        loader.Model.load(bundle).close()
        captured = capsys.readouterr()
        assert captured.err == "warning: linear 1.0.0 (cpu) is not fit to serve: random weights\n"
        assert captured.out == ""


def test_the_interface_is_readable(tmp_path: Path) -> None:
    with loader.Model.load(bundle_with(tmp_path)) as model:
        assert model.inputs == (loader.Tensor("x", np.dtype("float32"), ("batch", 4), None),)
        assert [tensor.name for tensor in model.outputs] == ["y", "label"]
        assert model.axes == (loader.Axis("batch", 1, 1, 16),)
        assert model.manifest["variant"]["name"] == "fp32-all"
        info = model.info()
        assert info["placement"] == {"CPUExecutionProvider": 3}
        assert info["peak_rss_bytes"] > 10_000_000
        assert info["load_seconds"] > 0


def test_a_closed_model_says_so(tmp_path: Path) -> None:
    with loader.Model.load(bundle_with(tmp_path)) as model:
        inputs = model.example()
    with pytest.raises(loader.SessionError, match="linear was closed"):
        model.run(inputs)
    model.close()


def test_sixteen_threads_get_the_answers_of_one(tmp_path: Path) -> None:
    with loader.Model.load(bundles.text().write(tmp_path / "bundle"), threads=2) as model:
        random = np.random.default_rng(0)
        requests = [
            {"ids": random.integers(0, 50, shape), "mask": random.integers(0, 2, shape)}
            for shape in random.integers(1, (5, 13), (64, 2)).tolist()
        ]
        expected = [model.run(request)["hidden"] for request in requests]

        def worker(seed: int) -> int:
            order = np.random.default_rng(seed).permutation(len(requests))
            return sum(np.array_equal(model.run(requests[i])["hidden"], expected[i]) for i in order)

        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(worker, range(16))) == [len(requests)] * 16


class Driver:
    """NVIDIA's driver as far as the loader asks it: the CUDA that it serves, its devices and their capability."""

    def __init__(self, version: int = 13000, devices: int = 1, capability: tuple[int, int] = (9, 0)) -> None:
        self._version, self._devices, self._capability = version, devices, capability

    def cuDriverGetVersion(self, number: Any) -> int:  # noqa: N802 - the driver's own names
        number._obj.value = self._version
        return 0

    def cuInit(self, _: int) -> int:  # noqa: N802
        return 0 if self._devices else 100

    def cuDeviceGetCount(self, number: Any) -> int:  # noqa: N802
        number._obj.value = self._devices
        return 0

    def cuDeviceGetAttribute(self, number: Any, attribute: int, _: int) -> int:  # noqa: N802
        number._obj.value = self._capability[attribute - 75]
        return 0


@pytest.mark.parametrize(
    ("asked", "there", "said"),
    [
        (["CPUExecutionProvider"], {}, ""),
        (["CUDAExecutionProvider"], {}, "no NVIDIA driver here (libcuda.so.1). Install driver 580 or newer"),
        (
            ["CUDAExecutionProvider"],
            {"libcuda": Driver(12080)},
            "serves CUDA 12.8, this onnxruntime is for CUDA 13.0. Upd",
        ),
        (["CUDAExecutionProvider"], {"libcuda": Driver(devices=0)}, "no GPU that this process may use"),
        (
            ["CUDAExecutionProvider"],
            {"libcuda": Driver(capability=(7, 0))},
            "has compute capability 7.0, CUDA 13.0 needs 7.5 or higher",
        ),
        (
            ["CUDAExecutionProvider"],
            {"libcuda": Driver(), "libcudart": None, "libcublas": None},
            " libcudnn.so.9 cannot be loaded. Install what holds them: pip install --no-deps --require-hashes -r",
        ),
        (
            ["TensorrtExecutionProvider", "CUDAExecutionProvider"],
            {"libcuda": Driver(), "libcudart": None, "libcublas": None, "libcudnn": None},
            " libnvinfer.so.10 cannot be loaded. Install what holds them: TensorRT 10",
        ),
        (
            ["CUDAExecutionProvider"],
            {"libcuda": Driver(), "libcudart": None, "libcublas": None, "libcudnn": None},
            "",
        ),
    ],
)
def test_what_cuda_lacks_is_named_with_what_to_install(asked: list[str], there: dict[str, Any], said: str) -> None:
    def load(name: str) -> Any:
        for stem, library in there.items():
            if name.startswith(stem):
                return library
        raise OSError(name)

    found = nvidia.lacking(asked, "13.0", load)
    assert said in found
    assert bool(said) == bool(found)


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this host has what the test wants missing")
def test_without_a_driver_the_error_says_so(tmp_path: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no CUDAExecutionProvider")
    cuda = {"name": "CUDAExecutionProvider", "options": {}}
    with pytest.raises(loader.ProvidersError, match=r"There is no NVIDIA driver here .* driver 580 or newer"):
        loader.Model.load(bundle_with(tmp_path, providers=[cuda, CPU]))


@pytest.mark.parametrize(
    ("session", "named"),
    [
        ({"session_options": {"optimized_model_filepath": "/x/out.onnx"}}, "'optimized_model_filepath'"),
        ({"session_options": {"enable_profiling": True, "profile_file_prefix": "/x/x"}}, "'enable_profiling'"),
        ({"session_options": {"log_severity_level": 4}}, "'log_severity_level'"),
        ({"config_entries": {"ep.context_file_path": "/etc/passwd"}}, "'ep.context_file_path'"),
        ({"config_entries": {"session.node_partition_config_file": "x"}}, "'session.node_partition_config_file'"),
        ({"config_entries": {"session.load_config_from_model": "1"}}, "'session.load_config_from_model'"),
        ({"environment": {"LD_PRELOAD": "/x/a.so"}}, "'LD_PRELOAD'"),
        ({"environment": {"PYTHONPATH": "/x"}}, "'PYTHONPATH'"),
        ({"environment": {"HTTPS_PROXY": "http://x"}}, "'HTTPS_PROXY'"),
        ({"environment": {"ORTC_ENGINE_CACHE": "/x/x"}}, "'ORTC_ENGINE_CACHE'"),
        ({"environment": {"LD_LIBRARY_PATH": "/x"}}, "'LD_LIBRARY_PATH'"),
        (
            {"providers": [{"name": "TensorrtExecutionProvider", "options": {"trt_extra_plugin_lib_paths": "/a.so"}}]},
            "'trt_extra_plugin_lib_paths'",
        ),
        (
            {"providers": [{"name": "TensorrtExecutionProvider", "options": {"trt_engine_cache_path": "/bundle/x"}}]},
            "'trt_engine_cache_path'",
        ),
        (
            {
                "providers": [
                    {"name": "TensorrtExecutionProvider", "options": {"trt_engine_decryption_lib_path": "a.so"}}
                ]
            },
            "'trt_engine_decryption_lib_path'",
        ),
        (
            {"providers": [{"name": "CUDAExecutionProvider", "options": {"gpu_external_alloc": "140737"}}]},
            "'gpu_external_alloc'",
        ),
        (
            {"providers": [{"name": "OpenVINOExecutionProvider", "options": {"cache_dir": "/x/x"}}]},
            "'cache_dir'",
        ),
        (
            {
                "providers": [
                    {
                        "name": "OpenVINOExecutionProvider",
                        "options": {"device_type": "CPU", "load_config": '{"CPU": {"CACHE_DIR": "/x/x"}}'},
                    }
                ]
            },
            "'CACHE_DIR'",
        ),
        ({"providers": [{"name": "CPUExecutionProvider", "options": {"library_path": "/a.so"}}]}, "'library_path'"),
    ],
)
def test_settings_that_reach_beyond_the_computation_are_refused(
    session: dict[str, Any], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle may lie in a repository that others write to: nothing of it is opened, and no variable is set."""
    import os

    opened: list[Any] = []
    monkeypatch.setattr(model_module, "import_runtime", lambda *_: opened.append(1))
    before = dict(os.environ)
    with pytest.raises(loader.FormatError) as caught:
        loader.Model.load(bundle_with(tmp_path, **session))
    assert named in str(caught.value)
    assert "session.json" in str(caught.value)
    assert not opened
    assert dict(os.environ) == before


def test_loaders_take_what_profiles_say() -> None:
    """Every setting of every profile of ortc's own, with those of its variants and tunings."""
    import yaml

    profiles = sorted((Path(__file__).parents[3] / "targets").glob("*.yaml"))
    assert profiles
    for path in profiles:
        profile = yaml.safe_load(path.read_text("utf-8"))
        parts = [profile, *profile.get("engines", {}).values()]
        for part in parts:
            session = part.get("session", {})
            for more in [{}, *profile["variants"], *profile.get("tuning", [])]:
                providers = [{"options": {}, **entry} for entry in part["execution_providers"]]
                if bool(more.get("engine")) == (part is not profile):
                    first = providers[0]
                    options = {**first["options"], **more.get("provider_options", {})}
                    providers = [{**first, "options": options}, *providers[1:]]
                settings.refuse_settings(
                    {
                        "session_options": {**session.get("options", {}), **more.get("options", {})},
                        "config_entries": {**session.get("config_entries", {}), **more.get("config_entries", {})},
                        "environment": session.get("environment", {}),
                        "providers": providers,
                    }
                )
