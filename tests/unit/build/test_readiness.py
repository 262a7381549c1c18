"""What `ortc doctor` concludes from facts; the facts themselves are looked at in tests/integration/test_doctor.py."""

from pathlib import Path
from typing import Any

import pytest

from ortc.build.doctor import (
    Cpus,
    Disk,
    Facts,
    Gpu,
    Hub,
    Package,
    RuntimeFacts,
    Tool,
    hub,
    libraries,
    memory_limit,
    packages,
)
from ortc.build.readiness import Readiness, of_machine, of_target
from ortc.execution.host import Host
from ortc.spec.load import load_profile, profile_files

FINE = Facts(
    ortc="0.1.0",
    python="3.12.4",
    packages=(Package(name="numpy", wanted=">=2.1", installed="2.4.0", fits=True),),
    runtime=RuntimeFacts(version="1.31.1", providers=("CPUExecutionProvider",)),
    host=Host(platform="linux/amd64", cpu="a CPU", isa=("avx2",), cores=8, memory=2**35, gpus=()),
    cpus=Cpus(logical=16, allowed=16, physical_within_quota=8, quota=None),
    memory_limit=None,
    gpu=Gpu(names=(), driver=None, libraries=()),
    disks=(Disk(purpose="cache", path="/cache", free=10**12), Disk(purpose="here", path="/here", free=10**12)),
    tools=(Tool(name="docker", version="28"),),
    arm64_emulation=False,
    hub=Hub(endpoint="https://hub", reachable=True, detail="answers"),
)
WITH_GPU = {"gpu": Gpu(names=("NVIDIA H200",), driver="580.65.06", libraries=())}


def readiness(target: str, **facts: Any) -> Readiness:
    return of_target(FINE.model_copy(update=facts), load_profile(target))


def test_nothing_is_missing() -> None:
    assert of_machine(FINE) == ()
    assert readiness("cpu") == Readiness(target="cpu", measured=("linux/amd64",), unmeasured=(), problems=())


def test_every_problem_says_how_to_solve_it() -> None:
    facts = FINE.model_copy(
        update={
            "packages": (
                Package(name="torch", wanted="==2.13.*", installed="2.12.0", fits=False),
                Package(name="onnx", wanted="", installed=None, fits=False),
            ),
            "runtime": RuntimeFacts(version=None, error="ImportError: no module"),
            "disks": (Disk(purpose="cache", path="/cache", free=10**9), Disk(purpose="here", path="/here", free=5)),
            "tools": (Tool(name="docker", version=None), Tool(name="qemu-aarch64-static", version="9")),
            "hub": Hub(endpoint="https://hub", reachable=False, detail="no such host"),
        }
    )
    found = of_machine(facts)
    assert [problem.what for problem in found] == [
        "torch 2.12.0, ==2.13.* is needed",
        "onnx is not installed",
        "onnxruntime cannot be imported: ImportError: no module",
        "only 1.0 GB free at /cache (cache)",
        "only 5 B free at /here (here)",
        "the hub at https://hub cannot be reached (no such host)",
        "no docker, podman or buildah",
    ]
    assert all(problem.how for problem in found)
    assert found[0].how == "pip install 'torch==2.13.*'"


def test_another_platform() -> None:
    found = readiness("edge")
    assert (found.measured, found.unmeasured, found.ready) == (("linux/amd64",), ("linux/arm64",), False)
    assert found.problems[0].what == "this machine is linux/amd64, not linux/arm64"
    assert "qemu-user-static" in found.problems[0].how
    assert "qemu-user-static" not in readiness("edge", arm64_emulation=True).problems[0].how


def test_int8_needs_an_emulator_where_the_processor_hides_its_overflow() -> None:
    vnni = FINE.host.model_copy(update={"isa": ("avx2", "avx512_vnni")})
    found = readiness("cpu", host=vnni)
    (problem,) = found.problems
    assert found.ready
    assert "no qemu-x86_64 7.2 or later: INT8 variants are not judged on processors without VNNI" in problem.what
    assert "apt-get install qemu-user-static" in problem.how
    assert readiness("cpu", host=vnni, avx2_emulation="Haswell-noTSX emulated by QEMU 7.2.22").problems == ()
    arm64 = FINE.host.model_copy(update={"platform": "linux/arm64"})
    assert not any("VNNI" in entry.what for entry in readiness("edge", host=arm64).problems)


def test_a_gpu_is_needed() -> None:
    found = readiness("server-gpu")
    assert (found.measured, found.unmeasured) == ((), ("linux/amd64",))
    assert [problem.what for problem in found.problems] == ["no NVIDIA GPU that the driver shows"]
    assert readiness("server-gpu", **WITH_GPU).ready
    for capability, ready in (("7.0", False), ("7.5", True), ("10.0", True), ("[N/A]", True)):
        gpu = Gpu(names=("Tesla V100",), driver="580.65.06", libraries=(), capability=capability)
        found = readiness("server-gpu", gpu=gpu)
        assert found.ready is ready
        said = [problem.what for problem in found.problems]
        assert said == (
            [] if ready else ["the GPU Tesla V100 has compute capability 7.0, CUDA 13.0 needs 7.5 or higher"]
        )


def test_a_driver_that_is_too_old() -> None:
    old = Gpu(names=("NVIDIA T4",), driver="535.1", libraries=())
    assert [problem.what for problem in readiness("server-gpu", gpu=old).problems] == [
        "the NVIDIA driver is 535.1, CUDA 13.0 needs 580 or newer"
    ]


def test_tensorrt_needs_its_library() -> None:
    found = readiness("server-gpu-tensorrt", **WITH_GPU)
    assert [problem.what for problem in found.problems] == ["no libnvinfer, which the TensorRT provider loads"]
    gpu = WITH_GPU["gpu"].model_copy(update={"libraries": ("libnvinfer.so.10",)})
    assert readiness("server-gpu-tensorrt", gpu=gpu).ready


def test_a_python_without_wheels() -> None:
    found = readiness("cpu", python="3.9.1")
    assert not found.ready
    assert "no wheels for Python 3.9" in found.problems[0].what


def test_an_engine_without_wheels_is_named_and_the_target_is_ready_without_it() -> None:
    found = readiness("cpu", python="3.14.0")
    assert found.ready
    (problem,) = found.problems
    assert problem.what == (
        "onnxruntime-openvino 1.24.1 has no wheels for linux/amd64, Python 3.14: its variants are not tried"
    )
    assert problem.how == "run ortc with Python 3.11 or 3.12 or 3.13 on linux/amd64"
    arm64 = FINE.host.model_copy(update={"platform": "linux/arm64"})
    assert any("no wheels for linux/arm64" in problem.what for problem in readiness("cpu", host=arm64).problems)


def test_an_engine_whose_pins_are_unknown() -> None:
    profile = load_profile("cpu")
    runtime = profile.engines["openvino"].runtime.model_copy(update={"pins": "none"})
    engine = profile.engines["openvino"].model_copy(update={"runtime": runtime})
    found = of_target(FINE, profile.model_copy(update={"engines": {"openvino": engine}}))
    assert found.ready
    assert "pins `none` are unknown" in found.problems[0].what


@pytest.mark.parametrize("name", sorted(profile_files()))
def test_every_profile_can_be_judged(name: str) -> None:
    found = readiness(name)
    assert found.ready == (not found.unmeasured)
    assert bool(found.problems) == bool(found.unmeasured)


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({"memory.max": "max\n"}, None),
        ({"memory.max": "1073741824\n"}, 2**30),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ({"memory/memory.limit_in_bytes": "1000\n"}, 1000),
    ],
)
def test_memory_limit(files: dict[str, str], limit: int | None, tmp_path: Path) -> None:
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "ascii")
    assert memory_limit(tmp_path) == limit


def test_libraries() -> None:
    listing = (
        "3 libs found in cache `/etc/ld.so.cache'\n"
        "\tlibcudnn.so.9 (libc6,x86-64) => /usr/lib/libcudnn.so.9\n"
        "\tlibcudnn_ops.so.9 (libc6,x86-64) => /usr/lib/libcudnn_ops.so.9\n"
        "\tlibz.so.1 (libc6,x86-64) => /usr/lib/libz.so.1\n"
        "\tlibnvinfer.so.10 (libc6,x86-64) => /usr/lib/libnvinfer.so.10\n"
    )
    assert libraries(listing) == ("libcudnn.so.9", "libnvinfer.so.10")
    assert libraries("") == ()


def test_packages() -> None:
    found = {package.name: package for package in packages()}
    assert found["numpy"].fits
    assert "pytest" not in found
    assert packages("no-such-package-anywhere") == ()


def test_the_hub_is_not_asked_when_that_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub().detail == "HF_HUB_OFFLINE is set"
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "file:///etc")
    assert not hub().reachable
