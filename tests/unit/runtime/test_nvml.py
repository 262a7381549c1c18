"""Memory of GPUs as the driver tells it; what stands in for its libraries answers as NVIDIA's reference says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support import bundles

nvml = bundles.runtime_module("nvml")
GIB = 2**30


class Driver:
    """Two GPUs, the second of which is CUDA's first; `wrong` is the call that fails, `part` what MIG leaves of one."""

    places = (b"00000000:41:00.0", b"00000000:C1:00.0")
    used = (3 * GIB, 20 * GIB)
    total = 24 * GIB

    def __init__(self, wrong: str = "", part: int | None = None) -> None:
        self._wrong, self._part, self.open = wrong, part, 0

    def __getattr__(self, name: str) -> Callable[..., int]:
        if name.startswith("_"):
            raise AttributeError(name)

        def call(*arguments: Any) -> int:
            if name == self._wrong:
                return 999
            getattr(self, f"_{name}", lambda *_: None)(*arguments)
            return 0

        return call

    def _nvmlInit_v2(self) -> None:  # noqa: N802 - the libraries' own names
        self.open += 1

    def _nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def _nvmlDeviceGetCount_v2(self, count: Any) -> None:  # noqa: N802
        count._obj.value = len(self.places)

    def _nvmlDeviceGetHandleByIndex_v2(self, index: int, device: Any) -> None:  # noqa: N802
        device._obj.value = index + 1

    def _nvmlDeviceGetHandleByPciBusId_v2(self, place: Any, device: Any) -> None:  # noqa: N802
        device._obj.value = self.places.index(place.value) + 1

    def _nvmlDeviceGetMemoryInfo(self, device: Any, memory: Any) -> None:  # noqa: N802
        found = memory._obj
        found.total, found.used = self.total, self.used[device.value - 1]
        found.free = found.total - found.used

    def _cuDeviceGetPCIBusId(self, place: Any, _: int, ordinal: int) -> None:  # noqa: N802
        place.value = self.places[::-1][ordinal]

    def _cuDeviceTotalMem_v2(self, size: Any, _: int) -> None:  # noqa: N802
        size._obj.value = self._part or self.total


def missing(name: str) -> Any:
    raise OSError(name)


def test_all_gpus_count_for_what_is_used() -> None:
    driver = Driver()
    assert nvml.used_bytes(lambda _: driver) == 23 * GIB
    assert driver.open == 0


@pytest.mark.parametrize(("ordinal", "part", "free"), [(0, None, 4), (1, None, 21), (1, 10 * GIB, 10)])
def test_a_gpu_is_the_one_that_cuda_means(ordinal: int, part: int | None, free: int) -> None:
    driver = Driver(part=part)
    assert nvml.free_bytes(ordinal, lambda _: driver) == free * GIB
    assert driver.open == 0


CALLS = ("nvmlInit_v2", "nvmlDeviceGetMemoryInfo")
OF_ALL = (*CALLS, "nvmlDeviceGetCount_v2", "nvmlDeviceGetHandleByIndex_v2")
OF_ONE = (*CALLS, "cuInit", "cuDeviceGetPCIBusId", "cuDeviceTotalMem_v2", "nvmlDeviceGetHandleByPciBusId_v2")


@pytest.mark.parametrize("wrong", OF_ALL)
def test_what_the_driver_does_not_tell_of_all_is_unknown(wrong: str) -> None:
    driver = Driver(wrong)
    assert nvml.used_bytes(lambda _: driver) is None
    assert driver.open == 0


@pytest.mark.parametrize("wrong", OF_ONE)
def test_what_the_driver_does_not_tell_of_one_is_unknown(wrong: str) -> None:
    driver = Driver(wrong)
    assert nvml.free_bytes(0, lambda _: driver) is None
    assert driver.open == 0


def test_without_libraries_nothing_is_known() -> None:
    assert (nvml.used_bytes(missing), nvml.free_bytes(0, missing)) == (None, None)


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this host has what the test wants missing")
def test_without_a_driver_nothing_is_known() -> None:
    assert (nvml.used_bytes(), nvml.free_bytes()) == (None, None)
