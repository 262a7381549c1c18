"""Bundles for JavaScript as others hand them out: a folder for hosts of static files, and an archive of npm."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from ortc.bundle.delivery.archive import label, write_tar
from ortc.bundle.manifest import Manifest
from ortc.bundle.node_package import FILE, semantic
from ortc.common.errors import UsageError
from ortc.common.plain_files import open_plain
from ortc.spec.vocabulary import WEB

MOST_BYTES = 25 * 2**20
"""Bytes of the largest file that usual hosts of static files take; `PART` of templates/web/runtime/source.mjs."""
_INSIDE = "package"
"""The directory that everything in an archive of npm lies in."""


def write_static(place: Path, bundle: Path, manifest: Manifest, files: Sequence[str]) -> None:
    """Copy the files of a bundle for browsers, those of more than 25 MiB in parts that its loader puts together.

    Args:
        place: a directory that is not there.
        bundle: whose files were compared with their digests.
        manifest: of the bundle.
        files: of the bundle.

    Raises:
        UsageError: the bundle is not for browsers.
    """
    if WEB not in manifest.platforms:
        raise UsageError(
            f"{bundle} is not for browsers, and no static host serves it", help="build the target `web` of the spec"
        )
    for path in files:
        target = place / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if (bundle / path).stat().st_size <= MOST_BYTES:
            shutil.copyfile(bundle / path, target)
            continue
        with open_plain(bundle / path) as content:
            part = 0
            while piece := content.read(MOST_BYTES):
                target.with_name(f"{target.name}.part{part}").write_bytes(piece)
                part += 1


def write_npm(scratch: Path, bundle: Path, manifest: Manifest, files: Sequence[str]) -> Path:
    """Write NAME-VERSION-TARGET.tgz, which `npm install` takes; returns where it is.

    It is stored, and not compressed, so that the same bundle gives the same bytes.

    Args:
        scratch: an empty directory for it.
        bundle: whose files were compared with their digests.
        manifest: of the bundle.
        files: of the bundle.

    Raises:
        UsageError: the bundle is not for JavaScript.
    """
    places = {path: bundle / path for path in files}
    if WEB in manifest.platforms:
        places[FILE] = scratch / FILE
        places[FILE].write_text(_web_package(manifest), "utf-8")
    elif FILE not in files:
        raise UsageError(
            f"{bundle} is not for JavaScript, and no npm package", help="build the target `web` or `node` of the spec"
        )
    made = scratch / f"{label(manifest)}.tgz"
    with made.open("wb") as stream, gzip.GzipFile("", "wb", 0, stream, mtime=manifest.stamp) as stored:
        write_tar(stored, places, prefix=_INSIDE, stamp=manifest.stamp)
    return made


def _web_package(manifest: Manifest) -> str:
    """package.json of a bundle for browsers, whose modules bundlers and pages import by name."""
    document = {
        "name": f"{manifest.name}-web",
        "version": semantic(manifest.version),
        "description": f"{manifest.name} {manifest.version} for browsers",
        "type": "module",
        "exports": {
            ".": {"types": "./runtime/client.d.mts", "default": "./runtime/client.mjs"},
            "./loader": {"types": "./runtime/loader.d.mts", "default": "./runtime/loader.mjs"},
            "./*": "./*",
        },
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
