"""Bring registered bundles back: every file compared with its digest, and no half bundle in its place."""

from __future__ import annotations

import os
from pathlib import Path

from ortc.bundle.identity import Expected
from ortc.bundle.integrity import verified
from ortc.bundle.publish import Staging
from ortc.bundle.supply_chain.signing import verify
from ortc.common.digests import sha256_file
from ortc.common.disk import room
from ortc.common.errors import StageError, UsageError
from ortc.execution.action_record import KeptFile
from ortc.execution.ownership import within_umask
from ortc.registry.catalogue import Catalogue
from ortc.registry.contents import blob


def retrieve(registry: Catalogue, name: str, version: str, target: str, output: Path, key: Path | None = None) -> Path:
    """Bring a bundle back to OUTPUT/NAME/VERSION/TARGET, compared with its digests; nothing half is ever there.

    Args:
        registry: the registry.
        name: of the model.
        version: of the model.
        target: of the bundle.
        output: the directory for bundles.
        key: a public key as PEM: the bundle and its measurements must be signed with it.

    Raises:
        UsageError: it is not registered for that target.
        StageError: the registry's files are damaged or missing.
        SignatureError: with a key, the bundle is not as it was signed with it.
    """
    record = registry.record(name, version, target)
    if record is None:
        known = ", ".join(registry.targets(name, version))
        raise UsageError(f"{name} {version} is not registered for `{target}`", help=f"it is for: {known}")
    registry.manifest(record)
    files = [*record.files, *(companion.file for companion in registry.companions(record))]
    place = output / name / version / target
    size = sum(file.bytes for file in files)
    with Staging(place) as staging, room(("bundles", place), needed=size):
        for file in files:
            _bring(registry, file, staging.directory / file.path, record.stamp)
        found = verified(staging.directory, "fast")
        Expected(name=name, version=version, target=target).check(
            found, f"what the registry {registry.storage.name} has"
        )
        if key is not None:
            verify(staging.directory, key)
        staging.commit()
    return place


def _bring(registry: Catalogue, file: KeptFile, place: Path, stamp: int) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    there = registry.storage.fetch(blob(file.sha256), place, file.bytes)
    if not there or place.stat().st_size != file.bytes or sha256_file(place) != file.sha256:
        what = "is damaged in" if there else "is missing from"
        raise StageError(
            f"`{file.path}` {what} the registry {registry.storage.name} ({blob(file.sha256)})",
            help="`ortc registry add --repair` of the same bundle puts it there again",
        )
    place.chmod(within_umask(file.mode))
    os.utime(place, (stamp, stamp))
