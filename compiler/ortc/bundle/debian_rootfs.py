"""Root file systems of Debian for another architecture: a Python and its libraries, unpacked and not configured."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from ortc.common.errors import StageError
from ortc.execution.runtime_environment import run_tool

SUITES = {"3.13": "trixie", "3.11": "bookworm"}
"""Releases of Debian by their Python."""

PACKAGES = ("base-files", "libstdc++6", "python3")
"""What a bundle's wheels need of a system."""


def make_root(place: Path, architecture: str, suite: str, packages: tuple[str, ...] = PACKAGES) -> None:
    """Unpack packages and what they depend on into a new directory; nothing of that architecture is run.

    Args:
        place: the directory, which does not exist.
        architecture: as Debian and container tools name it, `arm64`.
        suite: a release of Debian, `trixie`.
        packages: what to unpack.

    Raises:
        StageError: mmdebstrap is missing, or fails.
    """
    tool = shutil.which("mmdebstrap")
    if tool is None:
        raise StageError(
            f"cannot get a root file system for {architecture}: mmdebstrap is not installed",
            help="Debian and Ubuntu: apt-get install mmdebstrap; elsewhere run this command in a debian container",
        )
    arguments = [tool, "--quiet", "--variant=extract", f"--architectures={architecture}"]
    arguments += [
        f"--include={','.join(packages)}",
        "--aptopt=Acquire::Retries=3",
        "--aptopt=Acquire::http::Timeout=30",
    ]
    run_tool(
        [*arguments, suite, str(place), *_mirrors()],
        f"unpack Debian {suite} for {architecture}",
        "a Debian mirror must be reachable the first time; ORTC_DEBIAN_MIRROR names another one",
    )
    for name in ("possible", "present"):
        # Of the machine that emulates; what reads it crashes when it finds processors of another architecture.
        # Empty, it asks the kernel for features instead. ONNX Runtime does both when it is imported.
        path = place / "sys/devices/system/cpu" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def _mirrors() -> list[str]:
    """The mirror to use: as configured, else this machine's, else none: mmdebstrap has a default."""
    configured = os.environ.get("ORTC_DEBIAN_MIRROR")
    if configured:
        return [configured]
    tool = shutil.which("apt-get")
    if tool is None:
        return []
    command = [tool, "indextargets", "--format", "$(ORIGIN)|$(COMPONENT)|$(REPO_URI)", "Created-By: Packages"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    found = [
        uri
        for origin, component, uri in (line.split("|", 2) for line in listed)
        if (origin, component) == ("Debian", "main")
    ]
    # Security updates have a mirror of their own, which holds no release.
    return [uri for uri in found if "security" not in uri][:1]
