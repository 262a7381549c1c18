"""The generated tables agree with the ONNX Runtime and the torch that are installed here."""

import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ortc.common.resources import targets_dir
from ortc.spec import runtimes
from ortc.spec.runtimes import Option, Runtime

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """The generator's own probe; its directory is put on the path, as running it as a script would."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(targets_dir()))
        return importlib.import_module("generate_runtimes")


@pytest.fixture(scope="module")
def installed() -> Runtime:
    for package in ("onnxruntime-gpu", "onnxruntime"):
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
        if version != "1.31.1":
            pytest.skip(f"{package} {version} is installed, and the check is written for 1.31.1")
        return runtimes.runtime(package, version)
    pytest.fail("no onnxruntime is installed; install the project with its dependencies")


@pytest.fixture(scope="module")
def probed(generator: ModuleType) -> dict[str, Any]:
    found: dict[str, Any] = generator.ask(Path(sys.executable))
    return found


def test_limits_are_those_of_the_installed_runtime(installed: Runtime, probed: dict[str, Any]) -> None:
    assert (installed.max_opset, installed.max_ir) == (probed["max_opset"], probed["max_ir"])


@pytest.mark.parametrize("attribute", ["session_options", "run_options"])
def test_attributes_are_those_of_the_installed_runtime(
    installed: Runtime, probed: dict[str, Any], attribute: str
) -> None:
    known = getattr(installed, attribute)
    assert known == {name: Option.model_validate(kind) for name, kind in probed[attribute].items()}


def test_providers_are_those_of_the_installed_runtime(installed: Runtime, probed: dict[str, Any]) -> None:
    assert list(installed.providers.all) == sorted(probed["all_providers"])
    assert list(installed.providers.available) == sorted(probed["available_providers"])


def test_keys_are_those_of_the_installed_libraries(installed: Runtime, generator: ModuleType) -> None:
    spec = importlib.util.find_spec("onnxruntime")
    assert spec is not None
    assert spec.origin is not None
    libraries = [
        generator.Library(path.name, path.read_bytes())
        for path in sorted((Path(spec.origin).parent / "capi").glob("*.so*"))
    ]
    here = set(generator.config_keys(libraries))
    assert here <= installed.config_keys
    # The table holds the keys of every platform's wheel; this is one of them.
    assert installed.config_keys - here <= {"mlas.enable_gemm_fastmath_arm64_bfloat16", "session.x64quantprecision"}
    assert set(generator.run_keys(libraries)) == installed.run_config_keys
    for provider in installed.providers.available:
        known = installed.provider_options(provider)
        assert known.keys() == generator.provider_options(provider, libraries).keys()


def test_least_ir_versions_are_those_of_the_installed_onnx(generator: ModuleType) -> None:
    if importlib.metadata.version("onnx") != runtimes.tool_versions()["onnx"]:
        pytest.skip(f"the table was made with onnx {runtimes.tool_versions()['onnx']}, another one is installed")
    found = dict(generator.min_ir_for_opset())
    assert found == {opset: runtimes.ir_version_for_opset(opset) for opset in found}


def test_exporter_limits_are_those_of_the_installed_torch(generator: ModuleType) -> None:
    if generator.public_version("torch") != runtimes.tool_versions()["torch"]:
        pytest.skip(f"the table was made with torch {runtimes.tool_versions()['torch']}, another one is installed")
    for name, limits in generator.exporters().items():
        assert runtimes.exporter_limits(name).model_dump() == limits


@pytest.mark.parametrize(("exceeding", "refusal"), [("opset", "opset"), ("ir", "IR version")])
def test_one_more_than_the_limit_is_refused_and_the_limit_is_not(
    installed: Runtime, generator: ModuleType, exceeding: str, refusal: str
) -> None:
    import onnxruntime

    opset, ir = installed.max_opset, installed.max_ir
    providers = ["CPUExecutionProvider"]
    onnxruntime.InferenceSession(bytes.fromhex(generator.model(opset, ir)), providers=providers)
    opset, ir = (opset + 1, ir) if exceeding == "opset" else (opset, ir + 1)
    with pytest.raises(Exception, match=refusal):
        onnxruntime.InferenceSession(bytes.fromhex(generator.model(opset, ir)), providers=providers)
