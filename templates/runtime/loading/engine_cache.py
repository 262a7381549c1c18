"""Where TensorRT's engines of a bundle are kept between starts, for the loader beside this file.

An engine is built when a session is opened, which takes minutes, and fits one kind of GPU and one release of TensorRT:
a bundle cannot hold it. The first start on a machine builds it in a directory of its own, and that directory gets the
name of what it is for once the golden answers were right: a start that was killed leaves nothing that another would
take, and of several at once the first wins. ORTC_ENGINE_CACHE says where, instead of session.json. Engines that are of
no use give way to others only once these have given right answers: what took minutes is not lost to a passing error.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

VARIABLE = "ORTC_ENGINE_CACHE"
SWITCHES = ("trt_engine_cache_enable", "trt_timing_cache_enable")
PATHS = {"trt_engine_cache_enable": "trt_engine_cache_path", "trt_timing_cache_enable": "trt_timing_cache_path"}
UNFINISHED = ".unfinished-"
ABANDONED_SECONDS = 24 * 3600.0
"""No build of an engine takes as long: what is older was left by a process that was killed."""


class Engines:
    """A directory of engines: one that is kept, or a new one that will be.

    Attributes:
        directory: What TensorRT's options name.
        kept: Whether it has its name, from an earlier start or from `keep`.
        obstacle: Why `keep` did not keep it, where that lasts; empty where another process was first.
    """

    def __init__(self, base: Path, name: str | None, *, anew: bool = False) -> None:
        """Take `base`/`name` where an earlier start left it and it can be trusted and read, else make a new directory.

        Args:
            base: Where engines of all bundles are kept; made where it is not there.
            name: What engines of this bundle are called on this machine; None: they are not kept.
            anew: Take none that are kept; `keep` puts the new ones in their place.

        Raises:
            OSError: Nothing can be written to `base`, or it is another user's.
        """
        self._place, self._anew, self.obstacle = None if name is None else base / name, anew, ""
        base.mkdir(parents=True, exist_ok=True, mode=0o700)
        _check_owner(base)
        self.kept = not anew and self._place is not None and _is_usable(self._place)
        if self.kept and self._place is not None:
            self.directory = self._place
            return
        _tidy(base)
        self.directory = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=base))
        # Whatever becomes of the start: a directory that got no name serves nobody.
        self._unfinished = weakref.finalize(self, shutil.rmtree, self.directory, ignore_errors=True)

    def keep(self) -> bool:
        """Give a new directory its name, because what is in it gives right answers; False where it is not kept.

        TensorRT has read what it needs by then: engines are built for all sizes that the axes allow.
        """
        if self.kept or not self.directory.is_dir():
            return False
        if self._place is None:
            self.obstacle = "the GPU, its driver or TensorRT cannot be told"
            return False
        try:
            if self._anew:
                _remove(self._place)
            self.directory.rename(self._place)
        except OSError as error:
            taken = error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
            if not taken:
                self.obstacle = f"{self._place} cannot be written: {error.strerror or error}"
            elif not _is_usable(self._place):
                self.obstacle = f"{self._place} is there, and cannot be read, or others may write it; remove it"
            # Else another process was first, whose engines are as good.
            return False
        self._unfinished.detach()
        self.directory, self.kept = self._place, True
        return True

    def close(self) -> None:
        """Remove what is not kept."""
        if not self.kept:
            self._unfinished()


def wanted(options: Mapping[str, Any]) -> bool:
    """Whether TensorRT's options ask for engines or timings to be kept."""
    return any(str(options.get(switch)).lower() in ("1", "true") for switch in SWITCHES)


def base_of(options: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Path:
    """Where engines are kept: what ORTC_ENGINE_CACHE says, else session.json, else the user's cache.

    Raises:
        OSError: Nothing says it, and the user has no home directory.
    """
    said = environ.get(VARIABLE) or next((str(options[path]) for path in PATHS.values() if options.get(path)), "")
    if said:
        return Path(said)
    try:
        return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ortc-engines"
    except RuntimeError as error:  # a user id that no account has, as containers are given
        raise FileNotFoundError(errno.ENOENT, "this user has no home directory") from error


def directed(options: Mapping[str, Any], directory: Path | None) -> dict[str, Any]:
    """The options with every cache that they switch on in a directory; None switches all of them off."""
    changed = dict(options)
    for switch, path in PATHS.items():
        if directory is None:
            changed[switch] = "False"
            changed.pop(path, None)
        elif str(options.get(switch)).lower() in ("1", "true"):
            changed[path] = str(directory)
    return changed


def name_of(root: Path, manifest: Mapping[str, Any], machine: Iterable[str] | None) -> str | None:
    """What the engines of a bundle are called on a machine; None where the machine cannot be told.

    A digest of what engines are made from, the graph's files and session.json, and then the machine. ONNX Runtime calls
    the files in there by the names in the graph alone, so that another model of the same architecture would take them.
    """
    if machine is None:
        return None
    listed = {str(entry["path"]): str(entry["sha256"]) for entry in manifest.get("files", ())}
    files = [*sorted((root / "model").rglob("*")), root / "session.json"]
    digest = hashlib.sha256()
    for file in files:
        if file.is_file():
            path = file.relative_to(root).as_posix()
            digest.update(f"{path} {listed.get(path) or _sha256(file)}\n".encode())
    parts = [digest.hexdigest()[:16], *machine]
    return "_".join(re.sub(r"[^A-Za-z0-9.]+", "-", part).strip("-.") for part in parts)


def machine(runtime: str, device: int = 0, load: Callable[[str], Any] = ctypes.CDLL) -> list[str] | None:
    """What an engine depends on besides its bundle: GPU, driver, TensorRT, ONNX Runtime; None where one is not known.

    Args:
        runtime: The version of ONNX Runtime.
        device: Which of the GPUs that this process may use.
        load: Opens a shared library by its name, OSError where it is not there.
    """
    try:
        cuda, tensorrt, nvml = load("libcuda.so.1"), load("libnvinfer.so.10"), load("libnvidia-ml.so.1")
    except OSError:
        return None
    name, driver = ctypes.create_string_buffer(128), ctypes.create_string_buffer(96)
    major, minor = ctypes.c_int(), ctypes.c_int()
    # 75 and 76 are CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR.
    asked: list[Callable[[], Any]] = [
        lambda: cuda.cuInit(0),
        lambda: cuda.cuDeviceGetName(name, len(name), device),
        lambda: cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, device),
        lambda: cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, device),
        lambda: nvml.nvmlInit_v2(),
    ]
    if any(ask() != 0 for ask in asked):
        return None
    told = nvml.nvmlSystemGetDriverVersion(driver, len(driver)) == 0
    nvml.nvmlShutdown()
    if not told:
        return None
    version = tensorrt.getInferLibVersion()
    gpu = f"{name.value.decode(errors='replace')} sm{major.value}{minor.value}"
    return [gpu, f"driver{driver.value.decode(errors='replace')}", f"tensorrt{version}", f"onnxruntime{runtime}"]


def _check_owner(base: Path) -> None:
    """Raise OSError for a directory of another user, who could put engines there: engines are code.

    A group may write to it, because Kubernetes makes volumes writable so (fsGroup).
    """
    # Of a link, too: whoever owns it may turn it elsewhere.
    for owner in {base.stat().st_uid, base.lstat().st_uid}:
        if owner not in (os.geteuid(), 0):
            raise PermissionError(errno.EPERM, f"it belongs to user {owner}, not to this one ({os.geteuid()}) or root")


def _is_usable(place: Path) -> bool:
    """Whether a directory was written by this user or root, and by nobody else, and can be read."""
    try:
        status = place.lstat()
    except OSError:
        return False
    mine = status.st_uid in (os.geteuid(), 0) and not status.st_mode & stat.S_IWOTH
    effective = os.access in os.supports_effective_ids
    return stat.S_ISDIR(status.st_mode) and mine and os.access(place, os.R_OK | os.X_OK, effective_ids=effective)


def _remove(place: Path) -> None:
    """Remove a directory, in one step: whoever looks finds all of it or nothing."""
    unwanted = place.with_name(f"{UNFINISHED}{os.getpid()}-{place.name}")
    try:
        place.rename(unwanted)
    except FileNotFoundError:
        return
    shutil.rmtree(unwanted, ignore_errors=True)


def _tidy(base: Path) -> None:
    """Remove what processes that were killed have left."""
    for path in base.glob(f"{UNFINISHED}*"):
        try:
            if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue  # another process was faster


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
