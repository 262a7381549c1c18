"""Memory of NVIDIA GPUs, as the driver's own libraries tell it: bytes, by whomever they are used.

NVML asks no context of CUDA's, which would take memory itself, and needs no package.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Load = Callable[[str], Any]


class Memory(ctypes.Structure):
    """nvmlMemory_t of NVML's API reference, bytes."""

    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


def used_bytes(load: Load = ctypes.CDLL) -> int | None:
    """Memory in use on all GPUs together; None without a driver.

    Args:
        load: Opens a shared library by its name, OSError where it is not there.
    """
    used = 0
    with _nvml(load) as nvml:
        count = ctypes.c_uint()
        if nvml is None or nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
            return None
        for index in range(count.value):
            device, memory = ctypes.c_void_p(), Memory()
            if nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)) != 0:
                return None
            if nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)) != 0:
                return None
            used += memory.used
    return used


def free_bytes(ordinal: int = 0, load: Load = ctypes.CDLL) -> int | None:
    """What is free on a GPU, and no more than this process may have of it; None where the driver does not tell.

    Args:
        ordinal: Which of the GPUs that this process may use, as CUDA counts them.
        load: Opens a shared library by its name, OSError where it is not there.
    """
    try:
        cuda = load("libcuda.so.1")
    except OSError:
        return None
    # CUDA counts what CUDA_VISIBLE_DEVICES leaves, in an order of its own: both know a GPU by its place on the bus.
    place, whole = ctypes.create_string_buffer(64), ctypes.c_size_t()
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGetPCIBusId(place, len(place), ordinal) != 0:
        return None
    # A part of a GPU (MIG) has less than the whole.
    if cuda.cuDeviceTotalMem_v2(ctypes.byref(whole), ordinal) != 0:
        return None
    with _nvml(load) as nvml:
        device, memory = ctypes.c_void_p(), Memory()
        if nvml is None or nvml.nvmlDeviceGetHandleByPciBusId_v2(place, ctypes.byref(device)) != 0:
            return None
        if nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)) != 0:
            return None
    return min(int(memory.free), int(whole.value))


@contextmanager
def _nvml(load: Load) -> Iterator[Any]:
    try:
        nvml = load("libnvidia-ml.so.1")
    except OSError:
        yield None
        return
    if nvml.nvmlInit_v2() != 0:
        yield None
        return
    try:
        yield nvml
    finally:
        nvml.nvmlShutdown()
