"""What this machine is: platform, CPU, memory, accelerators. The key of every measurement."""

from __future__ import annotations

import math
import os
from typing import Annotated

from pydantic import Field

from ortc.common.bundle_runtime import runtime_module
from ortc.common.texts import Cleaned, Label
from ortc.common.values import Count, Frozen, digest

NUMERIC: tuple[str, ...] = (
    *("OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_", "BLIS_", "DNNL_", "ONEDNN_", "ATEN_", "TORCH_", "PYTORCH_"),
    *("ORT_", "OV_", "TRT_", "CUDA_", "CUBLAS_", "CUDNN_", "NVIDIA_TF32", "MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD"),
)
"""Prefixes of variables that numeric libraries read: threads, kernels, precisions, placement, memory."""
_HARMLESS = (
    *("ORT_DISABLE_TELEMETRY", "TORCH_LOGS", "TORCH_SHOW_CPP_STACKTRACES"),
    *("CUDA_HOME", "CUDA_PATH", "CUDA_VERSION"),
)
"""Prefixes of variables among them that change neither answers nor times."""


class Host(Frozen):
    """The hardware that a measurement belongs to; memory in bytes."""

    platform: Label
    cpu: Cleaned
    isa: tuple[Label, ...]
    cores: Annotated[int, Field(ge=1, le=2**20)]
    memory: Count
    gpus: tuple[Cleaned, ...]

    def fingerprint(self) -> str:
        """Sixteen hex digits that differ between machines that would measure differently."""
        return digest(self)[:16]


def host_platform() -> str:
    """This host in the spelling of container platforms: `linux/amd64`."""
    return str(runtime_module("loading.host").platform_name())


def describe() -> Host:
    """Look at this machine, as the code of a bundle does."""
    return Host.model_validate(runtime_module("loading.host").describe())


def gpus() -> tuple[str, ...]:
    """Names of the NVIDIA GPUs that the driver shows; empty without a driver."""
    return tuple(runtime_module("loading.host").gpus())


def numeric_variables() -> dict[str, str]:
    """The variables of this process that change what its workers compute, or how fast; they inherit all of them."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(NUMERIC) and not name.startswith(_HARMLESS)
    }


def cores() -> int:
    """Physical cores this process may use, as the bundle's loader counts them."""
    return int(runtime_module("loading.machine").physical_cores())


def processor() -> str:
    """The kind of processor of this host, as the loader tells it: what packed weights are for; empty when unknown."""
    return str(runtime_module("loading.machine").processor())


def cpu_quota() -> float | None:
    """CPUs that the cgroups of this process may use together, as the loader counts them; None without a limit."""
    quota = float(runtime_module("loading.machine").cpu_quota())
    return None if math.isinf(quota) else quota
