"""The files of a bundle: every one compared with manifest.json and SHA256SUMS before anything is made of it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from .errors import DigestError, FilesError, FormatError, UsageError

FORMAT_VERSION = 1
MOST_DOCUMENT_BYTES = 64 * 2**20  # of manifest.json, session.json and SHA256SUMS
_COMPANIONS = ("measurements", "attestations")  # may join a bundle after it was published; outside its digests
State = tuple[int, int, int, int, int]  # of a file: device, inode, bytes, times of modification and of change


def read_manifest(root: Path, verify: str, seen: dict[str, State] | None = None) -> dict[str, Any]:
    """The manifest of the bundle at `root`, after the files were verified as `verify` (full, fast or none) says.

    `seen` takes the state of the files as they were verified, for `check_unchanged`.
    """
    if verify not in ("full", "fast", "none"):
        raise UsageError(f"verify is {verify!r}. Expected full, fast or none.")
    path = root / "manifest.json"
    sums, content = None, None
    if verify != "none" and path.is_file():
        sums = _sums(root)
        try:
            content = read_plain(path)
        except OSError as error:
            raise FilesError(f"{path} cannot be read: {error.strerror}.") from error
        found = hashlib.sha256(content).hexdigest()
        _same_digest("manifest.json", found, sums.get("manifest.json", "nothing"), "SHA256SUMS")
    manifest = read_json(path, content)
    if manifest.get("kind") != "ortc-bundle":
        raise FormatError(f"{path}: kind is {manifest.get('kind')!r}, expected 'ortc-bundle'.")
    if sums is not None:
        with parsing(path):
            verify_files(root, manifest, sums, fast=verify == "fast", seen=seen)
    return manifest


def verify_files(
    root: Path,
    manifest: Mapping[str, Any],
    sums: Mapping[str, str],
    *,
    fast: bool,
    seen: dict[str, State] | None = None,
) -> None:
    """Compare the files of the bundle with its manifest and with SHA256SUMS.

    Both ways the set of files must be exact and every size right. `fast` then trusts a file whose modification time is
    the manifest's stamp and hashes the others; otherwise every file is hashed. `seen` takes the state of every file and
    directory as it was verified, but for those that Python keeps bytecode in.

    Raises:
        DigestError: A file, or one of the two lists, was changed; the message names it.
        FilesError: A file is missing, unexpected, or outside the bundle; the message names it.
    """
    listed = {str(entry["path"]): (str(entry["sha256"]), int(entry["bytes"])) for entry in manifest["files"]}
    stamp = int(manifest["stamp"])
    seen = {} if seen is None else seen
    for path in sorted(listed.keys() ^ (sums.keys() - {"manifest.json"})):
        has, lacks = ("manifest.json", "SHA256SUMS") if path in listed else ("SHA256SUMS", "manifest.json")
        raise DigestError(f"{has} lists {path!r}, {lacks} does not. Get the bundle again.")
    for path in sorted(set(_present(root)) - listed.keys() - {"manifest.json", "SHA256SUMS"}):
        raise FilesError(f"{path} is in the bundle and not in manifest.json. Remove it, or get the bundle again.")
    for path, (digest, size) in listed.items():
        file = inside(root, path)
        # Directories first: whoever swaps a file, or one of them, and swaps it back leaves a time of change.
        for folder in map(str, reversed(PurePosixPath(path).parents)):
            if folder not in seen and folder.partition("/")[0] != "runtime" and (root / folder).is_dir():
                seen[folder] = _state((root / folder).stat())
        if not file.is_file():
            raise FilesError(f"{path} is in manifest.json and missing from {root}. Get the bundle again.")
        if sums[path] != digest:
            raise DigestError(f"SHA256SUMS and manifest.json disagree about {path}. Get the bundle again.")
        status = file.stat()
        if status.st_size != size:
            raise DigestError(f"{path} has {status.st_size} bytes, manifest.json says {size}. Get the bundle again.")
        seen[path] = _state(status)
        if not fast or int(status.st_mtime) != stamp:
            found, seen[path] = _hashed(file)
            _same_digest(path, found, digest, "manifest.json")


def check_unchanged(root: Path, seen: Mapping[str, State]) -> None:
    """Check that files and directories are those that were verified.

    ONNX Runtime opens the model by its path, and maps it, after it was verified: this is called once it has.

    Raises:
        DigestError: One was written, replaced or moved in the meantime; the message names it.
    """
    for path, state in seen.items():
        try:
            same = _state((root / path).stat()) == state
        except OSError:
            same = False
        if not same:
            raise DigestError(
                f"{path} was changed or replaced while the bundle was loaded. Load it from a place that nobody writes "
                "to meanwhile."
            )


def inside(root: Path, path: str) -> Path:
    """The file that `path` names in the bundle at `root`; FilesError when it is, or leads, anywhere else."""
    pure = PurePosixPath(path)
    if not path or "\0" in path or str(pure) != path or pure.is_absolute() or ".." in pure.parts or path == ".":
        raise FilesError(f"manifest.json names the file {path!r}. Expected a plain relative path inside the bundle.")
    found = root / path
    if not found.resolve().is_relative_to(root.resolve()):
        raise FilesError(f"{path} is a link to {found.resolve()}, outside the bundle. Put the file itself there.")
    return found


def read_plain(path: Path, most: int = MOST_DOCUMENT_BYTES) -> bytes:
    """The bytes of a document, which is a plain file: no pipe that waits for a writer, no device without an end.

    Raises:
        OSError: It is no plain file, holds more than `most` bytes, or cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no plain file", str(path))
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it holds more than {most} bytes", str(path))
    return content


def read_json(path: Path, content: bytes | None = None) -> dict[str, Any]:
    try:
        document = json.loads(read_plain(path) if content is None else content)
    except FileNotFoundError:
        raise FormatError(f"{path.parent} is not a bundle: it has no {path.name}. Give a bundle's directory.") from None
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not JSON: {error}. Get the bundle again.") from error
    if not isinstance(document, dict) or document.get("format_version") != FORMAT_VERSION:
        found = document.get("format_version") if isinstance(document, dict) else type(document).__name__
        raise FormatError(
            f"{path}: format_version is {found!r}, this loader reads {FORMAT_VERSION}. "
            "Use the loader that lies in the bundle's own runtime/."
        )
    return document


@contextlib.contextmanager
def parsing(path: Path) -> Iterator[None]:
    """Whatever a malformed document trips over becomes a FormatError that names the file."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"has no {error}" if isinstance(error, KeyError) else f"is malformed: {error}"
        raise FormatError(f"{path} {problem}. Expected the format of docs/bundle.md; get the bundle again.") from error


def _hashed(path: Path) -> tuple[str, State]:
    """The digest of a file, and the state of the very file that was read."""
    try:
        with path.open("rb") as file:
            state = _state(os.fstat(file.fileno()))
            return hashlib.file_digest(file, "sha256").hexdigest(), state
    except OSError as error:
        raise FilesError(f"{path} cannot be read: {error.strerror}.") from error


def _state(status: os.stat_result) -> State:
    """What differs once a file is written, or another one is put in its place: no program sets the time of change."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _sums(root: Path) -> dict[str, str]:
    """What SHA256SUMS says: path -> digest, in the format of `sha256sum`."""
    path = root / "SHA256SUMS"
    sums: dict[str, str] = {}
    try:
        lines = read_plain(path).decode("utf-8").splitlines()
    except FileNotFoundError:
        raise FilesError(f"{path} is missing. Get the bundle again.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise FilesError(f"{path} cannot be read: {error}.") from error
    for number, line in enumerate(lines, 1):
        match = re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line)
        if match is None or match[2] in sums:
            raise DigestError(f"{path}, line {number}: expected `sha256  path`, each path once; found {line[:100]!r}.")
        sums[match[2]] = match[1]
    return sums


def _same_digest(path: str, found: str, expected: str, source: str) -> None:
    if found != expected:
        raise DigestError(
            f"{path} was changed or damaged: its sha256 is {found}, {source} says {expected}. Get the bundle again."
        )


def _present(root: Path) -> Iterator[str]:
    """Every file of the bundle, links to directories included, but for what may come and go."""

    def refuse(error: OSError) -> NoReturn:
        raise FilesError(f"{error.filename} cannot be read: {error.strerror}.") from error

    for folder, names, files in os.walk(root, onerror=refuse):
        here = Path(folder)
        names[:] = [n for n in names if n != "__pycache__" and not (here == root and n in _COMPANIONS)]
        for name in [*files, *(n for n in names if (here / n).is_symlink())]:
            yield (here / name).relative_to(root).as_posix()
