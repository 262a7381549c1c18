"""Pack a bundle into files beside each other: all of one, or nothing of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ortc.bundle.delivery.archive import label, write_tar
from ortc.bundle.delivery.base_image import BaseImage, read_base
from ortc.bundle.delivery.oci import Image, write_layout
from ortc.bundle.delivery.script_packages import write_npm, write_static
from ortc.bundle.delivery.transformers_js import write_repository
from ortc.bundle.integrity import own_files, refuse_unfit, verified
from ortc.bundle.manifest import FileInfo, Manifest
from ortc.bundle.performance import performance_in
from ortc.bundle.supply_chain.companions import companions
from ortc.common.disk import room
from ortc.common.plain_files import read_plain
from ortc.common.values import Frozen


class Packed(Frozen):
    """What was written: paths, digests, and the manifests of the layout."""

    format_version: int = 1
    archive: str | None = None
    archive_sha256: str | None = None
    archive_bytes: int | None = None
    layout: str | None = None
    images: tuple[Image, ...] = ()
    repository: str | None = None
    static: str | None = None
    npm: str | None = None


def pack(
    bundle: Path,
    output: Path,
    formats: Sequence[str],
    base: Path | None = None,
    *,
    unfit: bool = False,
    key: Path | None = None,
    say: Callable[[str], object] = lambda _: None,
) -> Packed:
    """Write an archive with its checksum, an OCI layout, what users of JavaScript take, or several of them.

    Args:
        bundle: the directory; every file is compared with its digest first.
        output: the directory for what is written; what has the same name there is replaced.
        formats: `tar`, `oci`, `transformers.js`, `static`, `npm`.
        base: the OCI layout of an image that the modelcar's layers are put upon.
        unfit: even one that is not fit to serve.
        key: a public key as PEM, with which the bundle must be signed.
        say: told which measurements are not packed: beside a signed bundle those that no signature covers.

    Raises:
        StageError: the bundle is damaged or not fit to serve, a measurement beside it is not one, or the disk is full.
        SignatureError: with a key, the bundle is not as it was signed with it.
        UsageError: the base is no layout of one image, or for another platform; or the bundle is none for a
            format of JavaScript.
    """
    manifest = verified(bundle)
    if not unfit:
        refuse_unfit(bundle, manifest, "packed for a release", "`--allow-unfit` packs it all the same, to measure it")
    name = label(manifest)
    found = _files(bundle, manifest, key, say)
    files = sorted(file.path for file in found)
    image = None if base is None or "oci" not in formats else _base_image(base, manifest)
    done = Packed()
    output.mkdir(parents=True, exist_ok=True)
    needed = sum(file.bytes for file in found) * len(formats) + (0 if image is None else image.bytes)
    with (
        room(("bundles", output), needed=needed),
        tempfile.TemporaryDirectory(prefix=f".{name}.", dir=output) as scratch,
    ):
        layout, place = Path(scratch) / "layout", output / f"{name}.oci"
        # Both are written before either is at its place: a layer of the base may not be as stated.
        others = _for_javascript(Path(scratch), bundle, manifest, files, formats, say)
        images = write_layout(layout, bundle, manifest, files, base=image) if "oci" in formats else ()
        if "tar" in formats:
            done = done.model_copy(update=_archive(bundle, files, manifest, Path(scratch), output))
        if images:
            _replace(layout, place, Path(scratch) / "old-layout")
            done = done.model_copy(update={"layout": str(place), "images": images})
        for field, made in others.items():
            at = output / (made.name if made.is_file() else f"{name}.{made.name}")
            _replace(made, at, Path(scratch) / f"old-{field}")
            done = done.model_copy(update={field: str(at)})
    return done


def _for_javascript(
    scratch: Path,
    bundle: Path,
    manifest: Manifest,
    files: Sequence[str],
    formats: Sequence[str],
    say: Callable[[str], object],
) -> dict[str, Path]:
    """Write what users of JavaScript take, by the field of `Packed`; names of folders end those of the results."""
    found: dict[str, Path] = {}
    if "transformers.js" in formats:
        found["repository"] = scratch / "transformers.js"
        write_repository(found["repository"], bundle, manifest, say)
    if "static" in formats:
        found["static"] = scratch / "static"
        write_static(found["static"], bundle, manifest, files)
    if "npm" in formats:
        (scratch / "npm").mkdir()
        found["npm"] = write_npm(scratch / "npm", bundle, manifest, files)
    return found


def _files(bundle: Path, manifest: Manifest, key: Path | None, say: Callable[[str], object]) -> list[FileInfo]:
    """The files of a bundle and those beside it; StageError where a measurement is none."""
    usable = companions(bundle, key)
    if (told := usable.note(str(bundle))) is not None:
        say(told)
    for path in usable.measurements:
        # A registry and `ortc emit` would refuse what was packed.
        performance_in(read_plain(bundle / path), path)
    return [*own_files(bundle, manifest), *usable.files]


def _replace(fresh: Path, place: Path, aside: Path) -> None:
    """Put what was made at its place: there lies the old one, the new one, or none for a moment, never half of one."""
    if place.exists():
        place.rename(aside)
    fresh.rename(place)


def _base_image(place: Path, manifest: Manifest) -> BaseImage:
    """The image that a modelcar's layers are put upon; UsageError where it is not for a platform of the bundle."""
    image = read_base(place)
    for platform in manifest.platforms:
        image.expect(platform)
    return image


def _archive(bundle: Path, files: Sequence[str], manifest: Manifest, scratch: Path, output: Path) -> dict[str, Any]:
    """Write the archive and its checksum; returns the fields of `Packed` that tell of them."""
    name = label(manifest)
    fresh, sums = scratch / f"{name}.tar", scratch / f"{name}.tar.sha256"
    with fresh.open("wb") as stream:
        places = {path: bundle / path for path in files}
        sha256, size = write_tar(stream, places, prefix=name, stamp=manifest.stamp)
    # As `sha256sum -c` reads it.
    sums.write_text(f"{sha256}  {name}.tar\n", "utf-8")
    for file in (fresh, sums):
        file.replace(output / file.name)
    return {"archive": str(output / fresh.name), "archive_sha256": sha256, "archive_bytes": size}
