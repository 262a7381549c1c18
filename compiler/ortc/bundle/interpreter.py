"""What runs a finished bundle on this host: Python with its packages, or what drives a browser or Node."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ortc.bundle.manifest import Manifest
from ortc.common.plain_files import read_plain_text
from ortc.execution.browser.chromium import find_chromium
from ortc.execution.host import Host
from ortc.execution.node.program import find_node
from ortc.execution.processes import own_interpreter
from ortc.execution.runtime_environment import environment
from ortc.execution.worker import is_for_node, is_script
from ortc.spec.vocabulary import WEB


def interpreter_of(bundle: Path, root: Path, on_make: Callable[[], None] | None = None) -> Path:
    """The interpreter of a bundle's environment; for browsers and Node that of ortc, which drives them.

    Args:
        bundle: the directory.
        root: directory that holds the environments.
        on_make: called when an environment has to be made.

    Raises:
        StageError: the bundle's packages cannot be installed.
    """
    if is_script(bundle):
        return own_interpreter()
    return environment(read_plain_text(bundle / "requirements.txt"), root, on_make=on_make)


def platform_here(manifest: Manifest, host: Host) -> str:
    """The platform that a bundle runs on here: that of browsers, or that of the host."""
    return WEB if WEB in manifest.platforms else host.platform


def why_not_here(bundle: Path, manifest: Manifest, host: Host, *, is_for_gpu: bool) -> str | None:
    """Why a bundle cannot run on this host, in words; None where it can."""
    if WEB in manifest.platforms:
        return None if find_chromium() is not None else "no Chromium on this host"
    if is_for_node(bundle) and find_node() is None:
        return "no Node.js on this host"
    if is_for_gpu and not host.gpus:
        return "no GPU on this host"
    return None if host.platform in manifest.platforms else f"this host is {host.platform}"
