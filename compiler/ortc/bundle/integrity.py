"""Whether a bundle is whole: every file compared with its digest, as the bundle's own loader does it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ortc.bundle.manifest import COMPANIONS, FileInfo, Manifest, read_bundle
from ortc.common.bundle_runtime import runtime_module
from ortc.common.digests import sha256_file
from ortc.common.errors import StageError
from ortc.common.plain_files import read_plain_text

SUMS = "SHA256SUMS"
MANIFEST = "manifest.json"


def verified(bundle: Path, how: Literal["full", "fast"] = "full") -> Manifest:
    """The manifest of a bundle after its files were compared with it.

    Args:
        bundle: the directory.
        how: `full` hashes every file, `fast` trusts files of the right size and time.

    Raises:
        StageError: a file is changed, missing, or one too many; the message names it.
    """
    files, errors = runtime_module("loading.files"), runtime_module("loading.errors")
    refuse_links(bundle)
    manifest = read_bundle(bundle)
    try:
        files.read_manifest(bundle, how)
    except errors.BundleError as error:
        raise StageError(f"{bundle} is damaged: {error}", help="build the bundle again, or get it again") from error
    except OSError as error:
        raise StageError(f"{bundle} cannot be read: {error.strerror or error}") from error
    listed = {f"{file.sha256}  {file.path}" for file in own_files(bundle, manifest) if file.path != SUMS}
    # The loader reads lines as `sha256sum -c` does, who forgives what separates them.
    if sorted(read_plain_text(bundle / SUMS).split("\n")) != sorted({"", *listed}):
        raise StageError(
            f"{bundle} is damaged: {SUMS} is not as it was written", help="build the bundle again, or get it again"
        )
    return manifest


def refuse_links(bundle: Path) -> None:
    """Check that a bundle holds plain files alone: a link would publish what it leads to.

    Raises:
        StageError: it holds a link, a device, a socket or a pipe, or a name that is not one printable line.
    """
    for path in sorted(bundle.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise StageError(f"{path} is no plain file", help="replace it by one, or remove it")
        if not path.name.isprintable():
            raise StageError(f"{path} has a name that is not one line of printable characters", help="rename it")


def own_files(bundle: Path, manifest: Manifest) -> tuple[FileInfo, ...]:
    """Every file that a bundle is, SHA256SUMS and the manifest included, by path; `verified` has looked at them."""
    others = [
        FileInfo(path=name, sha256=sha256_file(bundle / name), bytes=(bundle / name).stat().st_size)
        for name in (MANIFEST, SUMS)
    ]
    return tuple(sorted((*manifest.files, *others), key=lambda file: file.path))


def companion_files(bundle: Path) -> tuple[FileInfo, ...]:
    """The files of measurements/ and attestations/, by path.

    Raises:
        StageError: one of them is no plain file.
    """
    found = []
    for directory in COMPANIONS:
        for path in sorted((bundle / directory).rglob("*")):
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise StageError(f"{path} is no plain file", help="replace it by one, or remove it")
            if path.is_file():
                name = path.relative_to(bundle).as_posix()
                found.append(FileInfo(path=name, sha256=sha256_file(path), bytes=path.stat().st_size))
    return tuple(found)


def refuse_unfit(bundle: Path, manifest: Manifest, what: str, way_out: str = "") -> None:
    """Refuse a bundle that is not fit to serve for what leads to users.

    Args:
        bundle: the directory, which the error names.
        manifest: of the bundle.
        what: what it is not to be, as in `deployed`.
        way_out: how to do it all the same.

    Raises:
        StageError: it is not fit to serve.
    """
    if not manifest.fit_to_serve:
        raise StageError(
            f"{bundle} is not to be {what}: it is not fit to serve, {manifest.unfit_reason}",
            help="build it with trained weights" + (f"; {way_out}" if way_out else ""),
        )
