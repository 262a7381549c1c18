"""What this machine is: platform, CPU, memory, accelerators. The key of every measurement."""

from __future__ import annotations

import functools
import math
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from ortc.common.texts import Cleaned, Label
from ortc.common.values import Frozen, digest

ISA_FLAGS = (
    "avx2",
    "avx512f",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "i8mm",
    "bf16",
)
"""CPU features that change which kernels run, as /proc/cpuinfo spells them."""

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

_MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


class Host(Frozen):
    """The hardware that a measurement belongs to; memory in bytes."""

    platform: Label
    cpu: Cleaned
    isa: tuple[Label, ...]
    cores: int
    memory: int
    gpus: tuple[Cleaned, ...]

    def fingerprint(self) -> str:
        """Sixteen hex digits that differ between machines that would measure differently."""
        return digest(self)[:16]


def host_platform() -> str:
    """This host in the spelling of container platforms: `linux/amd64`."""
    return f"{platform.system().lower()}/{_MACHINES.get(platform.machine().lower(), platform.machine().lower())}"


def describe() -> Host:
    """Look at this machine."""
    info = _cpuinfo(Path("/proc/cpuinfo"))
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return Host(
        platform=host_platform(),
        cpu=_cpu_name(info) or platform.processor() or platform.machine(),
        isa=tuple(flag for flag in ISA_FLAGS if flag in flags),
        cores=cores(),
        # Rounded to GiB: the kernel's own share differs from boot to boot.
        memory=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30) * 2**30,
        gpus=gpus(),
    )


def numeric_variables() -> dict[str, str]:
    """The variables of this process that change what its workers compute, or how fast; they inherit all of them."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(NUMERIC) and not name.startswith(_HARMLESS)
    }


def cores() -> int:
    """Physical cores this process may use, as the bundle's loader counts them."""
    return int(loader_module().physical_cores())


def processor() -> str:
    """The kind of processor of this host, as the loader tells it: what packed weights are for; empty when unknown."""
    return str(loader_module().processor())


def cpu_quota() -> float | None:
    """CPUs that the cgroups of this process may use together, as the loader counts them; None without a limit."""
    quota = float(loader_module().cpu_quota())
    return None if math.isinf(quota) else quota


@functools.cache
def loader_module() -> Any:
    """The loader that bundles get, as a module of this process."""
    import importlib.util

    from ortc.common.resources import templates_dir

    path = templates_dir() / "runtime" / "loader.py"
    spec = importlib.util.spec_from_file_location("ortc_bundle_loader", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def gpus() -> tuple[str, ...]:
    """Names of the NVIDIA GPUs that the driver shows; empty without a driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    try:
        listing = subprocess.run(
            [tool, "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, timeout=20, check=True
        )
    except (subprocess.SubprocessError, OSError):
        return ()
    return tuple(line.strip() for line in listing.stdout.splitlines() if line.strip())


def _cpu_name(info: dict[str, str]) -> str | None:
    """The model's name, or on ARM, where Linux gives none, the codes of designer and part."""
    if name := info.get("model name"):
        return name
    codes = [info[key] for key in ("CPU implementer", "CPU part") if key in info]
    return f"ARM {' '.join(codes)}" if codes else None


def _cpuinfo(path: Path) -> dict[str, str]:
    """Fields of the first processor, as the loader reads them."""
    return dict(loader_module().cpu_fields(path))
