"""What signatures say of a registered bundle and of the measurements beside it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from ortc.bundle.integrity import MANIFEST
from ortc.bundle.manifest import PROVENANCE
from ortc.bundle.performance import performance_in
from ortc.bundle.supply_chain.companions import unsigned_measurements
from ortc.bundle.supply_chain.signing import (
    BUNDLE_SIGNATURE,
    groups_of,
    is_measurement,
    signature_of,
    verify_stated,
)
from ortc.registry.documents import BundleRecord, CompanionRecord

Content = Callable[[str, str], bytes]
"""Reads a file of a registry by its path in the bundle and its digest, and compares it."""


def covered(found: Sequence[CompanionRecord], manifest_sha256: str, content: Content) -> list[CompanionRecord]:
    """Leave out the measurements beside a signed bundle that no signature covers.

    The performance of the others is read from the measurement itself: the document beside it is not signed.

    Args:
        found: what joined the bundle.
        manifest_sha256: of the bundle.
        content: reads the registry's files.

    Raises:
        StageError: a signature or a measurement is missing or damaged.
    """
    digests = {entry.file.path: entry.file.sha256 for entry in found} | {MANIFEST: manifest_sha256}
    if BUNDLE_SIGNATURE not in digests:
        return list(found)
    unsigned = unsigned_measurements(digests, lambda path: content(path, digests[path]))
    return [_from_file(entry, content) for entry in found if entry.file.path not in unsigned]


def _from_file(entry: CompanionRecord, content: Content) -> CompanionRecord:
    path = entry.file.path
    told = performance_in(content(path, entry.file.sha256), path) if is_measurement(path) else None
    return entry.model_copy(update={"performance": told})


def check_signatures(record: BundleRecord, beside: Sequence[CompanionRecord], content: Content, key: Path) -> None:
    """Verify the signatures of a registered bundle and of its measurements, by the digests of their files.

    Args:
        record: of the bundle.
        beside: its measurements and signatures.
        content: reads the registry's files.
        key: a public key as PEM.

    Raises:
        SignatureError: a signature is missing, damaged, of other files, or made with another key.
        StageError: a signature is damaged in the registry.
    """
    joined = {entry.file.path: entry.file.sha256 for entry in beside}
    own = {file.path: file.sha256 for file in record.files}
    signed = {BUNDLE_SIGNATURE: own | {path: joined[path] for path in (PROVENANCE,) if path in joined}}
    for fingerprint, paths in groups_of(joined).items():
        signed[signature_of(fingerprint)] = {path: (own | joined)[path] for path in paths}
    with tempfile.TemporaryDirectory(prefix="ortc-registry-") as scratch:
        for name, digests in signed.items():
            place = Path(scratch) / PurePosixPath(name).name
            if name in joined:
                place.write_bytes(content(name, joined[name]))
            verify_stated(place, name, digests, key)
