"""Bundles on disk: what is known of them before they are loaded."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loading.files import read_plain
from loading.providers import CUDA, TENSORRT

from serving import logs

MOST_MEASUREMENT_BYTES = 2**20
MOST_FOLDERS = 100_000  # that are looked into
DEPTH = 4  # a directory of DIRECTORY/NAME/VERSION/TARGET
MOST_BYTES = 2**63 - 1  # of a graph
MOST_TOLD = 1000  # entries that are passed over and were named in the log
# As manifests are written; docs/bundle.md has both forms.
_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}")
NO_LIMIT = 2**64 - 1  # gpu_mem_limit as ONNX Runtime has it by default
# What reading JSON that anybody may have written ends with: it is not what was expected, of a size that no number has
# (1e999), nested without end, or links lead in a circle.
UNEXPECTED = (OSError, ValueError, KeyError, TypeError, OverflowError, RuntimeError)
Key = tuple[str, str]  # name, version
_told = set[tuple[bytes, str]]()


@dataclass(frozen=True)
class Known:
    """A bundle on disk. `bytes` is the size of its graph, which loading it takes at the least.

    `device_bytes` is what it takes of a device: as it was measured, or else at the least; or, where `ceiling`, the most
    that its session lets it take. `stamp` differs where the files of the bundle were replaced.
    """

    name: str
    version: str
    path: Path
    bytes: int
    device_bytes: int = 0
    ceiling: bool = False
    stamp: tuple[int, ...] = ()


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Orders versions: numbers by value, words before the end of a version, numbers after (1.0-rc.1 < 1.0 < 1.0.1)."""
    parts = re.split(r"[.+_-]", version)
    return (*((2, int(p), "") if p.isdecimal() and p.isascii() else (0, 0, p) for p in parts), (1, 0, ""))


def known_bundle(path: Path, manifest: Mapping[str, Any]) -> Known:
    """What is known of a bundle before it is loaded; one of UNEXPECTED where it says too little, or what none says.

    Whoever writes to the repository writes the manifest, and requests for other models read what this gives.
    """
    name, version, weights = manifest["name"], manifest["version"], manifest["model"]["bytes"]
    for key, form, text in (("name", _NAME, name), ("version", _VERSION, version)):
        if not isinstance(text, str) or not form.fullmatch(text):
            raise ValueError(f"`{key}` is not one of the form {form.pattern}")
    if type(weights) is not int or not 0 <= weights <= MOST_BYTES:
        raise ValueError(f"`model.bytes` is no number from 0 to {MOST_BYTES}")
    return Known(name, version, path, weights, *device_need(path, weights), stamp_of(path))


def stamp_of(path: Path) -> tuple[int, ...]:
    """Inodes, sizes and times of change of the files that say what a bundle is: these differ once it was replaced."""
    found = list[int]()
    for name in ("manifest.json", "SHA256SUMS", "session.json"):
        try:
            status = (path / name).stat()
        except OSError:
            found += (0, 0, 0)
        else:
            found += (status.st_ino, status.st_size, status.st_ctime_ns)
    return tuple(found)


def device_need(path: Path, weights: int) -> tuple[int, bool]:
    """Bytes of device memory that a bundle takes, and whether that is only the most that it may.

    The most that an attached measurement saw in use, on whatever GPU. Without one, for a GPU, `gpu_mem_limit` where its
    session says it, and else its weights, which it takes at the least.
    """
    measured = []
    for content in measurements(path):
        try:
            peak = json.loads(content)["numbers"]["peak_device_bytes"]
            if math.isfinite(peak) and 0 < peak <= MOST_BYTES:
                measured.append(int(peak))
        except UNEXPECTED:
            continue  # nothing was timed there, or there was no GPU
    if measured:
        return max(measured), False
    on_gpu = _on_gpu(path)
    if not on_gpu:
        return 0, False
    limits = [int(options.get("gpu_mem_limit", 0)) for options in on_gpu]
    limit = max((limit for limit in limits if limit < NO_LIMIT), default=0)
    return max(limit, weights), limit > weights


def measurements(path: Path) -> list[bytes]:
    """Return what was measured of a bundle; beside a signed one only what a signature states.

    The signature itself is not verified here: `ortc verify --key` does that. A measurement that somebody put beside a
    signed bundle later, or changed there, has none.
    """
    signed = (path / "attestations/bundle.sig").is_file()
    found = []
    try:
        for file in sorted((path / "measurements").glob("*.json")):
            content = read_plain(file, MOST_MEASUREMENT_BYTES)
            if not signed or _is_stated(path, file, content):
                found.append(content)
    except UNEXPECTED:
        return []  # it is not there, or not to be read
    return found


def _is_stated(path: Path, file: Path, content: bytes) -> bool:
    fingerprint = file.name.partition(".")[0]
    wanted = {
        "manifest.json": hashlib.sha256(read_plain(path / "manifest.json")).hexdigest(),
        f"measurements/{file.name}": hashlib.sha256(content).hexdigest(),
    }
    try:
        signature = json.loads(
            read_plain(path / f"attestations/measurements/{fingerprint}.sig", MOST_MEASUREMENT_BYTES)
        )
        statement = json.loads(base64.b64decode(signature["dsseEnvelope"]["payload"], validate=True))
        stated = {str(entry["name"]): str(entry["digest"]) for entry in statement["predicate"]["resources"]}
    except UNEXPECTED:
        return False  # no signature, or none that can be read
    return wanted.items() <= stated.items()


def gpu_of(path: Path) -> int | None:
    """Which GPU a bundle runs on, as CUDA counts those that a process may use; None for none."""
    return next((int(options.get("device_id", 0)) for options in _on_gpu(path)), None)


def _on_gpu(path: Path) -> list[dict[str, str]]:
    """The options of NVIDIA's providers in session.json."""
    try:
        providers = json.loads(read_plain(path / "session.json"))["providers"]
        found = [dict(provider["options"]) for provider in providers if provider["name"] in (CUDA, TENSORRT)]
        for options in found:
            for name in ("gpu_mem_limit", "device_id"):
                int(options.get(name, 0))
    except UNEXPECTED:
        return []  # loading it says what is wrong
    return found


def find_bundles(root: Path, target: str) -> dict[Key, Known]:
    """The bundles below `root` that were built for `target`; what is no bundle is passed over."""
    found: dict[Key, Known] = {}
    for folder in sorted(_folders(root), key=lambda path: (len(path.parts), path)):
        try:
            path = folder / "manifest.json"
            if not path.resolve().is_relative_to(root.resolve()):
                continue
            manifest = json.loads(read_plain(path))
            if manifest["kind"] != "ortc-bundle" or manifest["target"] != target:
                continue
        except UNEXPECTED:
            continue  # no bundle, another program's manifest.json, or one that is being written
        try:
            known = known_bundle(folder, manifest)
        except UNEXPECTED as error:
            _tell(folder, error)
        else:
            found[known.name, known.version] = known
    return found


def _tell(folder: Path, error: Exception) -> None:
    """Name an entry that is passed over, once: clients decide how often a repository is read."""
    told = hashlib.sha256(os.fsencode(folder)).digest(), repr(error)[:200]
    if told in _told or len(_told) >= MOST_TOLD:
        return
    _told.add(told)
    why = str(error) if isinstance(error, ValueError) else f"it says too little: {type(error).__name__}"
    logs.write("warning", "bundle-passed-over", path=ascii(str(folder))[1:-1], error=why)


def _folders(root: Path) -> Iterator[Path]:
    """The directory and those below it, to the depth at which bundles lie; none that a link outside of it leads to."""
    real, seen = root.resolve(), 0
    pending = [(root, 0)]
    while pending and seen < MOST_FOLDERS:
        folder, depth = pending.pop(0)
        seen += 1
        yield folder
        if depth < DEPTH:
            try:
                with os.scandir(folder) as entries:
                    inside = [
                        Path(e.path) for e in entries if e.is_dir() and (not e.is_symlink() or _leads(e.path, real))
                    ]
            except OSError:
                continue  # it is gone, or not to be read
            pending += [(path, depth + 1) for path in sorted(inside)]


def _leads(link: str, root: Path) -> bool:
    """Whether a link leads to a place below `root`."""
    try:
        return Path(link).resolve().is_relative_to(root)
    except (OSError, RuntimeError):
        return False  # it leads in a circle
