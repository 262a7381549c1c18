"""What a machine is, read from files like those of the kernel."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.support.cpuinfo import ARM, X86

from ortc.common.bundle_runtime import runtime_module
from ortc.execution import host
from ortc.execution.host import Host

described, machine_module = runtime_module("loading.host"), runtime_module("loading.machine")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Describe a machine with this cpuinfo; without text, one that has none."""

    def describe(text: str | None, architecture: str = "x86_64") -> Host:
        read = machine_module.cpu_fields
        path = tmp_path / "cpuinfo"
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_text(text)
        monkeypatch.setattr(described, "cpu_fields", lambda _: read(path))
        monkeypatch.setattr(described, "physical_cores", lambda: 2)
        monkeypatch.setattr(described, "gpus", list)
        monkeypatch.setattr(described.platform, "machine", lambda: architecture)
        monkeypatch.setattr(described.platform, "processor", lambda: "")
        monkeypatch.setattr(described.platform, "system", lambda: "Linux")
        found = host.describe()
        monkeypatch.undo()
        return found

    return describe


def test_an_x86_server(machine: Any) -> None:
    found = machine(X86)
    assert (found.platform, found.cpu) == ("linux/amd64", "AMD EPYC 9R14")
    # The first processor's, in the order of the list of kernels that they change.
    assert found.isa == ("avx2", "avx512f", "avx512_vnni", "avx512_bf16")


def test_an_arm_board(machine: Any) -> None:
    found = machine(ARM, "aarch64")
    assert (found.platform, found.cpu, found.isa) == ("linux/arm64", "ARM 0x41 0xd0b", ("asimddp", "i8mm"))
    other = machine(ARM.replace("0xd0b", "0xd03"), "aarch64")
    # Boards that differ in nothing but the core measure differently.
    assert other.fingerprint() != found.fingerprint()


def test_a_machine_that_tells_nothing(machine: Any) -> None:
    for text in (None, "", "\n\n", "no colon here"):
        found = machine(text, "riscv64")
        assert (found.platform, found.cpu, found.isa) == ("linux/riscv64", "riscv64", ())


def test_fingerprints_differ_with_what_changes_measurements() -> None:
    base = Host(platform="linux/amd64", cpu="x", isa=("avx2",), cores=2, memory=2**34, gpus=())
    changes = [
        {},
        {"platform": "linux/arm64"},
        {"cpu": "y"},
        {"isa": ()},
        {"cores": 4},
        {"memory": 2**35},
        {"gpus": ("H200",)},
        {"gpus": ("H200", "H200")},
    ]
    found = [base.model_copy(update=change).fingerprint() for change in changes]
    assert len(set(found)) == len(changes)
    assert all(len(text) == 16 and int(text, 16) >= 0 for text in found)
    assert base.fingerprint() == Host.model_validate_json(base.model_dump_json()).fingerprint()


def test_memory_is_in_whole_gibibytes(machine: Any) -> None:
    found = machine(X86)
    assert found.memory > 0
    assert found.memory % 2**30 == 0


def test_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(described.shutil, "which", lambda _: None)
    assert host.gpus() == ()
    monkeypatch.setattr(described.shutil, "which", lambda name: f"/usr/bin/{name}")

    def answer(text: str) -> Any:
        return lambda arguments, **_: subprocess.CompletedProcess(arguments, 0, stdout=text)

    monkeypatch.setattr(described.subprocess, "run", answer("NVIDIA H200\nNVIDIA L4 \n\n"))
    assert host.gpus() == ("NVIDIA H200", "NVIDIA L4")
    monkeypatch.setattr(described.subprocess, "run", answer(""))
    assert host.gpus() == ()
    for error in (subprocess.CalledProcessError(9, "nvidia-smi"), subprocess.TimeoutExpired("x", 1), OSError("no")):

        def fail(*_: object, error: Exception = error, **__: object) -> Any:
            raise error

        monkeypatch.setattr(described.subprocess, "run", fail)
        assert host.gpus() == ()


def test_cores_are_counted() -> None:
    assert host.cores() >= 1
    quota = host.cpu_quota()
    assert quota is None or quota > 0
