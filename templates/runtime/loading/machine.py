"""What this machine and this process have: cores, CPU quotas, kinds of processor, memory and time."""

from __future__ import annotations

import math
import os
import platform
import re
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from .errors import ThreadsError

MOST_THREADS = 1024
# Of /proc/cpuinfo: what tells kinds of processors apart, and the features that decide which kernels run.
PROCESSOR_FIELDS = ("vendor_id", "cpu family", "model", "CPU implementer", "CPU architecture", "CPU part")
PROCESSOR_FLAGS = (
    *("sse4_1", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx_vnni_int8", "avx_ne_convert"),
    *("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "asimdhp", "fphp", "i8mm", "bf16", "sve", "svei8mm", "svebf16", "sme"),
)


def physical_cores(root: Path = Path("/"), cpus: Iterable[int] | None = None) -> int:
    """Physical cores that this process may use: those of its affinity (cpusets included), within the CPU quota.

    Hardware threads of one core count once; a CPU whose topology the kernel does not tell counts as a core. A quota of
    1.5 CPUs gives one core: a second thread would only be throttled.
    """
    if cpus is None:
        # Not on every platform; there every CPU is ours.
        affinity = getattr(os, "sched_getaffinity", None)
        cpus = affinity(0) if affinity else range(os.cpu_count() or 1)
    cores = set()
    for cpu in cpus:
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        cores.add(_text(topology / "core_cpus_list") or _text(topology / "thread_siblings_list") or str(cpu))
    quota = cpu_quota(root)
    return max(1, len(cores) if math.isinf(quota) else min(len(cores), math.floor(quota)))


def cpu_quota(root: Path = Path("/")) -> float:
    """CPUs that the cgroups of this process may use together: the least quota on the way up; infinite when none.

    Each cgroup path is looked for under the usual mount points. In a container the path may be the host's and absent
    here; walking up from it still ends at the mount point, which then is the container's own cgroup.
    """
    quota = math.inf
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
        for mount in (controllers, "cpu") if controllers else ("", "unified"):
            for depth in range(len(parts) + 1):
                here = (root / "sys/fs/cgroup" / mount).joinpath(*parts[:depth])
                if controllers:
                    values = [_text(here / "cpu.cfs_quota_us"), _text(here / "cpu.cfs_period_us")]
                else:
                    values = _text(here / "cpu.max").split()
                # `max` and -1 stand for no limit.
                if len(values) == 2 and all(v.isascii() and v.isdigit() for v in values) and int(values[1]):
                    quota = min(quota, int(values[0]) / int(values[1]))
    return quota


def thread_count(policy: object, threads: int | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Threads for one operator: `threads`, else ORT_INTRA_OP_NUM_THREADS, else the policy of session.json."""
    variable = environ.get("ORT_INTRA_OP_NUM_THREADS", "").strip()
    if threads is not None:
        source, value = "threads", threads
    elif variable:
        source, value = "ORT_INTRA_OP_NUM_THREADS", int(variable) if re.fullmatch("[0-9]{1,9}", variable) else -1
    elif policy == "physical":
        return physical_cores()
    else:
        source, value = "session.json: threads.intra_op", policy if isinstance(policy, int) else -1
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_THREADS:
        found = variable if source.startswith("ORT") else policy if source.startswith("session") else value
        raise ThreadsError(f"{source} is {found!r}. Expected a whole number from 1 to {MOST_THREADS}.")
    return value


def cpu_fields(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """What the kernel says of the first processor; nothing where it does not."""
    try:
        block = cpuinfo.read_text("utf-8", "replace").partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in block.splitlines())
    return {key.strip(): value.strip() for key, separator, value in pairs if separator}


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The kind of this machine's first processor, as far as kernels differ by it; empty where nothing tells."""
    fields = cpu_fields(cpuinfo)
    kind = [fields[key] for key in PROCESSOR_FIELDS if key in fields]
    known = _flags(fields)
    found = [flag for flag in PROCESSOR_FLAGS if flag in known]
    return " ".join([platform.machine(), *kind, *found]) if kind and found else ""


def adds_in_32_bits(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor adds products of 8-bit integers in 32 bits at once (VNNI); False where nothing tells."""
    return not _flags(cpu_fields(cpuinfo)).isdisjoint(("avx512_vnni", "avx_vnni"))


def peak_rss_bytes() -> int:
    """The most memory this process held resident.

    VmHWM and not ru_maxrss: Linux carries the peak of the process that forked and executed us into ru_maxrss, so that
    a small worker of a large compiler would report the compiler.
    """
    found = re.search(r"^VmHWM:\s+(\d+) kB$", _text(Path("/proc/self/status")), re.MULTILINE)
    if found:
        return int(found[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def rss_bytes() -> int:
    """The memory that this process holds resident now; the most that it held where Linux does not say."""
    found = re.search(r"^VmRSS:\s+(\d+) kB$", _text(Path("/proc/self/status")), re.MULTILINE)
    return int(found[1]) * 1024 if found else peak_rss_bytes()


def process_seconds(started: float | None = None) -> float | None:
    """Seconds since this process began, or since `started` (time.monotonic() of who started it; finer than 10 ms)."""
    if started is not None:
        return time.monotonic() - started
    fields = _text(Path("/proc/self/stat")).rpartition(")")[2].split()
    if len(fields) < 20 or not hasattr(time, "CLOCK_BOOTTIME"):
        return None
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _flags(fields: Mapping[str, str]) -> set[str]:
    return set((fields.get("flags") or fields.get("Features") or "").split())


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # not there in this kernel, container or board: the caller has an answer for that
        return ""
