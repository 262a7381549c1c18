"""Run a bundle's loader for a platform that this machine is not: Debian's Python under QEMU's user-mode emulation."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ortc.bundle.debian_rootfs import PACKAGES, SUITES, make_root
from ortc.bundle.manifest import Manifest
from ortc.common.errors import StageError
from ortc.common.values import digest
from ortc.execution.processes import emulated_python, standard_module
from ortc.execution.runtime_environment import kept, run_tool

MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
"""Platforms by the name that QEMU and wheels give their machine."""

PROCESSORS = {"linux/amd64": "Nehalem", "linux/arm64": "cortex-a72"}
"""Processors to emulate unless QEMU_CPU says otherwise: the least of those that are served. What runs on a
Raspberry Pi 4 (a Cortex-A72, without dot products) runs on all later boards."""

GLIBC = range(17, 42)
"""Minor versions of glibc 2 that wheels name and that both releases of Debian can run."""


@dataclass(frozen=True)
class Emulation:
    """How to start a Python of another platform."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    description: str


def emulation(
    platform: str, manifest: Manifest, requirements: str, root: Path, on_make: Callable[[str], None] | None = None
) -> Emulation:
    """An emulated interpreter that holds a bundle's requirements and nothing else, made once and kept.

    Args:
        platform: `linux/arm64`.
        manifest: of the bundle.
        requirements: text of its requirements.txt.
        root: directory that holds the runtime environments.
        on_make: called with what has to be made first.

    Raises:
        StageError: the platform cannot be emulated here, with what to install; or nothing can be unpacked for it.
    """
    if platform not in MACHINES:
        raise StageError(f"{platform} cannot be emulated", help=f"what can be: {', '.join(MACHINES)}")
    python = next((version for version in SUITES if version in manifest.runtime.python), None)
    if python is None:
        raise StageError(
            f"the bundle runs on Python {', '.join(manifest.runtime.python)}, Debian's are {', '.join(SUITES)}",
            help=f"run `ortc verify` on {platform} hardware",
        )
    emulator = _emulator(platform)
    tell = on_make or (lambda what: None)
    system = root / f"root-{digest([platform, SUITES[python], PACKAGES])[:16]}"
    architecture = platform.partition("/")[2]
    kept(system, lambda place: _system(place, architecture, SUITES[python]), lambda: tell(f"Debian for {platform}"))
    packages = root / f"packages-{digest([platform, python, requirements])[:16]}"
    kept(packages, lambda place: _packages(place, requirements, platform, python), lambda: tell("runtime packages"))
    processor = os.environ.get("QEMU_CPU") or PROCESSORS[platform]
    interpreter = system / "rootfs" / "usr" / "bin" / f"python{python}"
    return Emulation(
        command=emulated_python(emulator, root=system / "rootfs", interpreter=interpreter, isolated=False),
        environment={"QEMU_CPU": processor, "PYTHONPATH": str(packages / "packages"), "PYTHONNOUSERSITE": "1"},
        description=f"{processor} emulated by {emulator.name} {version(emulator)}",
    )


def _emulator(platform: str) -> Path:
    name = f"qemu-{MACHINES[platform]}"
    found = shutil.which(f"{name}-static") or shutil.which(name)
    if found is None:
        raise StageError(
            f"this machine is not {platform} and cannot emulate it: {name} is not installed",
            help=f"Debian and Ubuntu: apt-get install qemu-user-static mmdebstrap; or run `ortc verify` on {platform}",
        )
    return Path(found)


def version(emulator: Path) -> str:
    """The release of QEMU, like `7.2.22`."""
    told = subprocess.run([str(emulator), "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"version (\d[\d.]*)", told)
    return found[1] if found else "of unknown version"


def _system(place: Path, architecture: str, suite: str) -> None:
    place.mkdir()
    make_root(place / "rootfs", architecture, suite)


def _packages(place: Path, requirements: str, platform: str, python: str) -> None:
    place.mkdir()
    listing = place / "requirements.txt"
    listing.write_text(requirements, "utf-8")
    machine = MACHINES[platform]
    tags = [f"manylinux2014_{machine}", *(f"manylinux_2_{minor}_{machine}" for minor in GLIBC)]
    pip = standard_module("pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile")
    pip += ["--require-hashes", "--only-binary=:all:", "--python-version", python, "-r", str(listing)]
    pip += [argument for tag in tags for argument in ("--platform", tag)]
    run_tool([*pip, "--target", str(place / "packages")], f"unpack the bundle's pinned requirements for {platform}")
