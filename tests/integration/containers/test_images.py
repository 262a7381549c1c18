"""The images of bundles: built as the Dockerfile says, looked into, and run as the least that a container can be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.support.builds import Build
from tests.support.containers import STAMP, Engine, Image, need
from tests.support.runs import SECONDS, Container, health_check

from ortc.evaluation.compare import compare

pytestmark = pytest.mark.integration

ImageOf = Callable[[Path, str], tuple[str, Image]]
MB = 10**6
LARGER = pytest.mark.proof("test_an_image_serves with the digits")
EMULATED = pytest.mark.proof("test_an_image_serves with the digits; test_a_bundle_is_judged_on_another_processor")
CASES = [
    pytest.param("digits", "edge", "linux/amd64", id="digits-edge-amd64"),
    pytest.param("bert", "cpu", "linux/amd64", id="bert-cpu-amd64", marks=LARGER),
    pytest.param("bert", "edge", "linux/arm64", id="bert-edge-arm64", marks=EMULATED),
]
DATATYPES = {"int64": "INT64", "float32": "FP32"}
LIMITS = {"onnxruntime": 160 * MB, "onnxruntime-openvino": 210 * MB}
"""Bytes above the base image without the model, by the package that the variant which won runs on."""
BOARD = 90 * MB
"""The same on ARM64, where disks are small."""
TEXTS = 15 * MB
"""What a bundle that takes texts may have besides: its tokenizer, the package that reads it, and the page."""
DOWNLOAD, DOWNLOAD_OF_TEXTS = 50 * MB, 5 * MB
"""Compressed bytes of the bundle for boards with its model, and what texts may add to them."""


def infer(container: Container, bundle: Path) -> None:
    """Ask for the smallest golden case over HTTP, and compare as the bundle says."""
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    case = min(manifest["golden"], key=lambda entry: (bundle / entry["outputs"]).stat().st_size)
    inputs, expected = (dict(np.load(bundle / case[kind])) for kind in ("inputs", "outputs"))
    request = [
        {
            "name": name,
            "shape": list(value.shape),
            "datatype": DATATYPES[value.dtype.name],
            "data": value.ravel().tolist(),
        }
        for name, value in inputs.items()
    ]
    status, answer = container.request("POST", f"/v2/models/{manifest['name']}/infer", {"inputs": request})
    assert status == 200, answer
    outputs = {entry["name"]: entry for entry in answer["outputs"]}
    assert outputs.keys() == expected.keys()
    for name, reference in expected.items():
        given = np.array(outputs[name]["data"], reference.dtype).reshape(outputs[name]["shape"])
        found = compare(name, reference, given, inputs.get(case["mask"]))
        assert found.problem is None
        if case["tolerance"]["max_abs"] is not None:
            assert found.max_abs <= case["tolerance"]["max_abs"]
        if case["tolerance"]["cosine"] is not None and found.cosine is not None:
            assert found.cosine >= case["tolerance"]["cosine"]


@pytest.mark.parametrize(("name", "target", "platform"), CASES)
def test_an_image_serves(
    built: Build, engine: Engine, image_of: ImageOf, name: str, target: str, platform: str
) -> None:
    """Ready only after its self-test, the numbers of PyTorch over HTTP, and an orderly end on SIGTERM.

    Its user is nobody, its root file system cannot be written, and there is no shell.
    """
    if platform == "linux/arm64":
        need("qemu-aarch64-static")
    bundle = built.succeeded().bundle(name, target)
    tag, image = image_of(bundle, platform)
    with engine.run(tag, image, "--host", "127.0.0.1", "--port", "0") as container:
        port = container.port()
        assert container.request("GET", "/v2/health/ready") == (200, {"ready": True})
        infer(container, bundle)
        if platform == "linux/amd64":
            check = health_check((bundle / "Dockerfile").read_text("utf-8"), port)
            assert container.execute(*check) == 0
            assert container.execute(*(part.replace(str(port), "1") for part in check)) != 0
            # What would have to be there for any of it to be found.
            assert container.execute("python3", "-c", "import os; os.stat('/bin/sh')") != 0
        loaded = next(json.loads(line) for line in container.log if '"event": "loaded"' in line)
        assert loaded["platform"] == f"linux/{'aarch64' if platform == 'linux/arm64' else 'x86_64'}"
        assert container.stop() == 0, container.log


@pytest.mark.proof("test_an_image_serves with the digits; test_the_health_protocol_of_grpc_is_answered")
def test_an_image_with_extras_serves_grpc_and_traces(built: Build, engine: Engine) -> None:
    bundle = built.succeeded().bundle("digits", "edge")
    image = engine.build(bundle, "linux/amd64", "digits-extras", extras=("grpc", "trace"))
    assert {"grpc", "opentelemetry"} <= {
        path.split("/")[2] for path in image.files() if path.startswith("opt/runtime/")
    }
    with engine.run("digits-extras", image, "--port", "0", "--grpc-port", "0", "--trace") as container:
        container.port()
        place = next(json.loads(line)["grpc"] for line in container.log if '"event": "serving"' in line)
        with grpc.insecure_channel(place) as channel:
            ready = channel.unary_unary("/inference.GRPCInferenceService/ServerReady")
            assert ready(b"", timeout=SECONDS) == b"\x08\x01"  # field 1, true
        assert container.stop() == 0, container.log


def test_an_image_with_other_weights_does_not_serve(
    built: Build, engine: Engine, image_of: ImageOf, tmp_path: Path
) -> None:
    bundle = built.succeeded().bundle("digits", "edge")
    tag, image = image_of(bundle, "linux/amd64")
    damaged = bytearray((bundle / "model/model.onnx").read_bytes())
    damaged[-1] ^= 1
    other = tmp_path / "model.onnx"
    other.write_bytes(damaged)
    with engine.run(tag, image, over={"/srv/bundle/model/model.onnx": other}) as container:
        assert container.start().wait(SECONDS) == 4, container.log
    assert "model/model.onnx" in "".join(container.log)


@pytest.mark.parametrize(("name", "target", "platform"), CASES)
def test_an_image_holds_what_it_needs(built: Build, image_of: ImageOf, name: str, target: str, platform: str) -> None:
    bundle = built.succeeded().bundle(name, target)
    _, image = image_of(bundle, platform)
    config = image.config["config"]
    assert f"{image.config['os']}/{image.config['architecture']}" == platform
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["python3", "runtime/server.py"]
    assert config["StopSignal"] == "SIGTERM"
    assert "8080/tcp" in config["ExposedPorts"]
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    assert image.labels["org.opencontainers.image.version"] == manifest["version"]
    assert image.labels.get("org.opencontainers.image.revision") == manifest["provenance"]["revision"]
    assert image.labels["ortc.plan"] == f"sha256:{manifest['provenance']['plan_sha256']}"
    assert image.labels["ortc.runtime"] == f"{manifest['runtime']['package']}=={manifest['runtime']['version']}"

    files = image.files()
    # The bundle whole, and its packages; nothing of pip, of the index it was given, or of a cache.
    present = {path.removeprefix("srv/bundle/") for path in files if path.startswith("srv/bundle/")}
    listed = {line.split("  ", 1)[1] for line in (bundle / "SHA256SUMS").read_text("utf-8").splitlines()}
    assert {path for path in present if "__pycache__" not in path} == listed | {"SHA256SUMS"}
    assert {path.split("/")[0] for path in files} == {"opt", "srv"}
    packages = {path.split("/")[2] for path in files if path.startswith("opt/runtime/")}
    assert {"numpy", "onnxruntime", "uvicorn"} <= packages
    assert not {"grpc", "opentelemetry", "pip", "setuptools", "wheel", "bin"} & packages
    everything = [member for layer in image.added for member in layer.members()]
    assert {member.mtime for member in everything} == {STAMP}
    assert all(
        member.uid == 0 and member.gid == 0 and not member.mode & 0o022 for member in everything if not member.issym()
    )


@pytest.mark.parametrize(("name", "target", "platform"), CASES)
def test_an_image_is_small(
    built: Build, image_of: ImageOf, name: str, target: str, platform: str, record_property: Callable[[str, Any], None]
) -> None:
    bundle = built.succeeded().bundle(name, target)
    _, image = image_of(bundle, platform)
    model = sum(path.stat().st_size for path in (bundle / "model").iterdir())
    unpacked = sum(layer.unpacked for layer in image.added) - model
    record_property("unpacked_without_base_and_model", unpacked)
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    limit = BOARD if platform == "linux/arm64" else LIMITS[manifest["runtime"]["package"]]
    assert unpacked <= limit + (0 if manifest.get("processing") is None else TEXTS)
    if (name, target) == ("bert", "edge"):
        # What a board downloads besides Python; this bundle takes texts.
        compressed = sum(layer.compressed for layer in image.added)
        record_property("compressed_without_base", compressed)
        assert compressed <= DOWNLOAD + DOWNLOAD_OF_TEXTS


@pytest.mark.proof("test_an_image_holds_what_it_needs: every file has one time and one owner")
def test_building_again_gives_the_same_image(built: Build, engine: Engine, image_of: ImageOf, tmp_path: Path) -> None:
    """From a copy of the bundle elsewhere, whose files have other times."""
    bundle = built.succeeded().bundle("digits", "edge")
    _, image = image_of(bundle, "linux/amd64")
    elsewhere = tmp_path / "digits" / "1.0.0" / "edge"
    shutil.copytree(bundle, elsewhere, copy_function=shutil.copyfile)
    again = engine.build(elsewhere, "linux/amd64", "digits-again")
    assert again.digest == image.digest
