"""The documents of a registry. Each is written once, never changed, and carries the digest of itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import ClassVar, Literal, Self

from ortc.bundle.manifest import AxisInfo, Manifest, ModelInfo, Promises, Provenance, RuntimeInfo, VariantInfo
from ortc.bundle.performance import Performance
from ortc.common.values import Frozen, digest
from ortc.execution.action_record import KeptFile
from ortc.spec.vocabulary import Name, Sha256, Version


class Document(Frozen):
    """A JSON file of a registry."""

    kind: str
    format_version: Literal[1] = 1

    _what: ClassVar[str]

    def content(self) -> bytes:
        """The bytes that are kept."""
        document = self.model_dump(mode="json")
        return (json.dumps({**document, "sha256": digest(document)}, indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def read(cls, content: bytes) -> Self:
        """The document in a file.

        Raises:
            ValueError: it is damaged, of another kind, or of another format.
        """
        try:
            document = json.loads(content)
            if not isinstance(document, dict) or "sha256" not in document:
                raise ValueError("it carries no digest of itself")
            stated = document.pop("sha256")
            if digest(document) != stated:
                raise ValueError("its own digest does not match")
            return cls.model_validate_json(json.dumps(document))
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error


class Marker(Document):
    """registry.json: says that a place is a registry."""

    kind: Literal["ortc-registry"] = "ortc-registry"


class BundleRecord(Document):
    """A bundle: what it is, how it was made, and its files as blobs."""

    kind: Literal["ortc-registry-bundle"] = "ortc-registry-bundle"
    name: Name
    version: Version
    target: Name
    registered: datetime
    manifest_sha256: Sha256
    stamp: int
    platforms: tuple[str, ...]
    fit_to_serve: bool
    provisional: bool
    model: ModelInfo
    axes: tuple[AxisInfo, ...]
    runtime: RuntimeInfo
    variant: VariantInfo
    promises: Promises
    provenance: Provenance
    files: tuple[KeptFile, ...]

    @classmethod
    def of(cls, manifest: Manifest, manifest_sha256: str, files: Sequence[KeptFile]) -> BundleRecord:
        """The record of a bundle that is being registered now."""
        return cls(
            name=manifest.name,
            version=manifest.version,
            target=manifest.target,
            registered=now(),
            manifest_sha256=manifest_sha256,
            stamp=manifest.stamp,
            platforms=manifest.platforms,
            fit_to_serve=manifest.fit_to_serve,
            provisional=manifest.provisional,
            model=manifest.model,
            axes=manifest.axes,
            runtime=manifest.runtime,
            variant=manifest.variant,
            promises=manifest.promises,
            provenance=manifest.provenance,
            files=tuple(files),
        )


class CompanionRecord(Document):
    """A file that joined a bundle beside its digests: a measurement, a signature."""

    kind: Literal["ortc-registry-companion"] = "ortc-registry-companion"
    name: Name
    version: Version
    target: Name
    registered: datetime
    manifest_sha256: Sha256
    file: KeptFile
    performance: Performance | None


class AliasEvent(Document):
    """A change of an alias. `rollback` takes the newest promotion back; `version` is what the alias names then."""

    kind: Literal["ortc-registry-alias"] = "ortc-registry-alias"
    name: Name
    alias: Name
    action: Literal["promote", "rollback"]
    version: Version
    at: datetime


class Marks(Document):
    """gc.json: blobs that no document needs, and since when; what was marked for long enough is deleted."""

    kind: Literal["ortc-registry-marks"] = "ortc-registry-marks"
    blobs: dict[Sha256, datetime]


def now() -> datetime:
    """The current time in UTC."""
    return datetime.now(UTC)
