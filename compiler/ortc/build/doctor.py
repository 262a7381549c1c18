"""What `ortc doctor` looks at: Python, packages, the runtime, hardware, disk, container tools, the hub."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement

from ortc.build.instruction_sets import emulator
from ortc.common.resources import cache_root
from ortc.common.values import Frozen
from ortc.execution import host
from ortc.execution.browser.chromium import find_chromium
from ortc.execution.host import Host
from ortc.execution.node.program import find_node
from ortc.execution.worker import Worker
from ortc.execution.worker_process import WorkerError

TOOLS = ("docker", "podman", "buildah", "qemu-aarch64-static", "npm")
LIBRARIES = ("libcudart", "libcublas", "libcudnn", "libnvinfer")
_HUB_SECONDS = 2.0
_TOOL_SECONDS = 10


class Package(Frozen):
    """A package that ortc needs: the versions it takes, and the one that is installed."""

    name: str
    wanted: str
    installed: str | None
    fits: bool


class RuntimeFacts(Frozen):
    """The ONNX Runtime beside the compiler; bundles are measured in environments of their own."""

    version: str | None
    providers: tuple[str, ...] = ()
    cuda: str | None = None
    error: str | None = None


class Cpus(Frozen):
    """Processors: of the machine, those that this process may run on, and how much of them it may use."""

    logical: int
    allowed: int
    physical_within_quota: int
    quota: float | None


class Gpu(Frozen):
    """NVIDIA devices as the driver shows them, and shared libraries that the linker finds.

    `capability` is the compute capability of the first device.
    """

    names: tuple[str, ...]
    driver: str | None
    libraries: tuple[str, ...]
    capability: str | None = None


class Disk(Frozen):
    """Free bytes where ortc writes."""

    purpose: str
    path: str
    free: int


class Tool(Frozen):
    """A program outside of Python."""

    name: str
    version: str | None


class Hub(Frozen):
    """Whether models can be downloaded."""

    endpoint: str
    reachable: bool
    detail: str


class Facts(Frozen):
    """Everything that was found out about this machine. Sizes in bytes."""

    ortc: str
    python: str
    packages: tuple[Package, ...]
    runtime: RuntimeFacts
    host: Host
    cpus: Cpus
    memory_limit: int | None
    gpu: Gpu
    disks: tuple[Disk, ...]
    tools: tuple[Tool, ...]
    arm64_emulation: bool
    avx2_emulation: str | None = None
    """The emulator on which INT8 for linux/amd64 is judged without VNNI."""
    chromium: str | None = None
    """The version of the browser in which bundles for browsers are measured."""
    node: str | None = None
    """The version of the Node that runs bundles for Node."""
    hub: Hub


def collect() -> Facts:
    """Look at this machine; takes a few seconds and fails of nothing."""
    from ortc import __version__

    return Facts(
        ortc=__version__,
        python=platform.python_version(),
        packages=packages(),
        runtime=_runtime(),
        host=host.describe(),
        cpus=_cpus(),
        memory_limit=memory_limit(),
        gpu=_gpu(),
        disks=tuple(_disk(purpose, path) for purpose, path in (("cache", cache_root()), ("here", Path.cwd()))),
        tools=tuple(Tool(name=name, version=_version(name)) for name in TOOLS),
        arm64_emulation=Path("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists(),
        chromium=None if (browser := find_chromium()) is None else browser.version,
        node=None if (program := find_node()) is None else program.version,
        avx2_emulation=None if (found := emulator()) is None else found.description,
        hub=hub(),
    )


def packages(name: str = "ortc") -> tuple[Package, ...]:
    """What a package requires on this machine, extras left out."""
    try:
        listed = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return ()
    found = []
    for text in listed:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found.append(_package(requirement))
    return tuple(sorted(found, key=lambda package: package.name))


def _package(requirement: Requirement) -> Package:
    try:
        installed = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        installed = None
    fits = installed is not None and requirement.specifier.contains(installed, prereleases=True)
    return Package(name=requirement.name, wanted=str(requirement.specifier), installed=installed, fits=fits)


def _runtime() -> RuntimeFacts:
    # In a process of its own: the compiler itself never opens a session.
    try:
        with Worker.for_runtime_facts() as worker:
            found = worker.call("facts")
    except WorkerError as error:
        return RuntimeFacts(version=None, error=error.message)
    return RuntimeFacts(version=found["version"], providers=tuple(found["providers"]), cuda=found["cuda"])


def _cpus() -> Cpus:
    affinity = getattr(os, "sched_getaffinity", None)
    logical = os.cpu_count() or 1
    return Cpus(
        logical=logical,
        allowed=len(affinity(0)) if affinity else logical,
        physical_within_quota=host.cores(),
        quota=host.cpu_quota(),
    )


def memory_limit(root: Path = Path("/")) -> int | None:
    """The least memory limit of the cgroups that this process sees, None without one."""
    limits = []
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (root / "sys/fs/cgroup" / name).read_text("ascii").strip()
        except (OSError, ValueError):
            continue
        # Version 1 says "no limit" with a number near 2**63.
        if text.isdigit() and int(text) < 2**60:
            limits.append(int(text))
    return min(limits, default=None)


def _gpu() -> Gpu:
    driver = _output(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])
    return Gpu(
        names=host.gpus(),
        driver=_first_line(driver),
        capability=_first_line(_output(["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"])),
        libraries=libraries(_output(["ldconfig", "-p"]) or ""),
    )


def _first_line(text: str | None) -> str | None:
    return text.splitlines()[0].strip() if text and text.strip() else None


def libraries(listing: str) -> tuple[str, ...]:
    """Of the output of `ldconfig -p`, the libraries that GPU providers need, by their sonames."""
    names = re.findall(r"(?m)^\s*(\S+\.so[\d.]*)\s", listing)
    return tuple(sorted({name for name in names if name.partition(".so")[0] in LIBRARIES}))


def _disk(purpose: str, path: Path) -> Disk:
    place = next(parent for parent in (path, *path.parents, Path("/")) if parent.is_dir())
    return Disk(purpose=purpose, path=str(path), free=shutil.disk_usage(place).free)


def _version(tool: str) -> str | None:
    if shutil.which(tool) is None:
        return None
    text = _output([tool, "--version"])
    return text.splitlines()[0].strip() if text and text.strip() else "does not say its version"


def _output(command: list[str]) -> str | None:
    """What a program prints, None when it is not there or fails."""
    path = shutil.which(command[0]) or shutil.which(command[0], path="/usr/sbin:/sbin")
    if path is None:
        return None
    try:
        done = subprocess.run([path, *command[1:]], capture_output=True, text=True, timeout=_TOOL_SECONDS, check=True)
    except (subprocess.SubprocessError, OSError, UnicodeDecodeError):
        return None
    return done.stdout


def hub(endpoint: str | None = None) -> Hub:
    """Whether the hub answers; asked in a way that a machine without a network finds out at once."""
    import urllib.error
    import urllib.request

    endpoint = (endpoint or os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return Hub(endpoint=endpoint, reachable=False, detail="HF_HUB_OFFLINE is set")
    if urlsplit(endpoint).scheme not in {"http", "https"}:
        return Hub(endpoint=endpoint, reachable=False, detail="HF_ENDPOINT is no http or https address")
    request = urllib.request.Request(endpoint, method="HEAD")  # noqa: S310 - the scheme is checked above
    try:
        with urllib.request.urlopen(request, timeout=_HUB_SECONDS):  # noqa: S310
            return Hub(endpoint=endpoint, reachable=True, detail="answers")
    except urllib.error.HTTPError as error:
        return Hub(endpoint=endpoint, reachable=error.code < 500, detail=f"answers with status {error.code}")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Hub(endpoint=endpoint, reachable=False, detail=str(reason) or type(error).__name__)
