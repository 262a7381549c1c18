"""This machine in the words of a measurement, which are the compiler's: equal hardware has one fingerprint."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .machine import cpu_fields, physical_cores

ISA_FLAGS = (
    *("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),
    *("asimddp", "i8mm", "bf16"),
)
MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def describe(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, Any]:
    """This machine's platform, processor, cores, memory (bytes) and GPUs."""
    info = cpu_fields(cpuinfo)
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return {
        "platform": platform_name(),
        "cpu": _cpu_name(info) or platform.processor() or platform.machine(),
        "isa": [flag for flag in ISA_FLAGS if flag in flags],
        "cores": physical_cores(),
        # Rounded to GiB: the kernel's own share differs from boot to boot.
        "memory": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30) * 2**30,
        "gpus": gpus(),
    }


def platform_name() -> str:
    """This machine in the spelling of container platforms: `linux/amd64`."""
    machine = platform.machine().lower()
    return f"{platform.system().lower()}/{MACHINES.get(machine, machine)}"


def _cpu_name(info: Mapping[str, str]) -> str | None:
    if name := info.get("model name"):
        return name
    # Linux names no ARM processor: the codes of designer and part do.
    codes = [info[key] for key in ("CPU implementer", "CPU part") if key in info]
    return f"ARM {' '.join(codes)}" if codes else None


def gpus() -> list[str]:
    """Names of the NVIDIA GPUs that the driver shows; empty without a driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, "--query-gpu=name", "--format=csv,noheader"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (subprocess.SubprocessError, OSError):
        return []
    return [line.strip() for line in listing.stdout.splitlines() if line.strip()]
