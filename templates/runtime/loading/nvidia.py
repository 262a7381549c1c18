"""What NVIDIA's execution providers lack on this machine, in a sentence that says what to install."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .providers import CUDA, TENSORRT

# Of each CUDA: the least driver of NVIDIA's release notes, the least compute capability that it compiles for, and the
# libraries that ONNX Runtime's provider for it loads.
CUDA_NEEDS = {
    "12": ("525.60.13", (5, 0), ("libcudart.so.12", "libcublasLt.so.12", "libcublas.so.12", "libcudnn.so.9")),
    "13": ("580", (7, 5), ("libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcudnn.so.9")),
}


def lacking(asked: Sequence[str], version: str, load: Callable[[str], Any] | None = None) -> str:
    """What NVIDIA's providers lack here and what to install, as a sentence after others; empty where nothing is known.

    Args:
        asked: The providers asked for.
        version: The CUDA that ONNX Runtime was built for.
        load: Opens a shared library by its name, OSError where it is not there; by default the linker does.
    """
    if not {CUDA, TENSORRT}.intersection(asked):
        return ""
    import ctypes

    load = load or ctypes.CDLL
    major = version.partition(".")[0]
    driver, capability, libraries = CUDA_NEEDS.get(major, ("", (0, 0), ()))
    try:
        cuda = load("libcuda.so.1")
    except OSError:
        newest = f"driver {driver} or newer" if driver else "one"
        return (
            f" There is no NVIDIA driver here (libcuda.so.1). Install {newest} on the machine, and give a container "
            "its GPU (docker run --gpus all; nvidia.com/gpu in Kubernetes)."
        )
    number, tenths = ctypes.c_int(), ctypes.c_int()
    if cuda.cuDriverGetVersion(ctypes.byref(number)) == 0 and major and number.value // 1000 < int(major):
        serves = f"{number.value // 1000}.{number.value % 1000 // 10}"
        return (
            f" The NVIDIA driver serves CUDA {serves}, this onnxruntime is for CUDA {version}. Update it to "
            f"{driver or 'one for that CUDA'} or newer."
        )
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(number)) != 0 or number.value == 0:
        return (
            " There is an NVIDIA driver, and no GPU that this process may use. See CUDA_VISIBLE_DEVICES and nvidia-smi."
        )
    # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of the first device.
    told = [cuda.cuDeviceGetAttribute(ctypes.byref(part), 75 + at, 0) for at, part in enumerate((number, tenths))]
    if told == [0, 0] and (number.value, tenths.value) < capability:
        return (
            f" The GPU has compute capability {number.value}.{tenths.value}, CUDA {version} needs "
            f"{capability[0]}.{capability[1]} or higher. Use a newer GPU, or a bundle for another target."
        )
    absent = []
    for name in (*libraries, *(("libnvinfer.so.10",) if TENSORRT in asked else ())):
        try:
            load(name)
        except OSError:
            absent.append(name)
    if not absent:
        return ""
    how = "pip install --no-deps --require-hashes -r requirements.txt of the bundle"
    if "libnvinfer.so.10" in absent:
        how = "TensorRT 10, or use the base image of the bundle's Dockerfile"
    return f" {', '.join(absent)} cannot be loaded. Install what holds them: {how}."
