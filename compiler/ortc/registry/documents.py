"""The documents of a registry. Each is written once, never changed, and carries the digest of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, AwareDatetime, TypeAdapter, model_validator

from ortc.bundle.integrity import MANIFEST
from ortc.bundle.manifest import AxisInfo, Manifest, ModelInfo, Promises, Provenance, RuntimeInfo, Stamp, VariantInfo
from ortc.bundle.performance import Performance
from ortc.common.texts import Inner
from ortc.common.values import Frozen, digest
from ortc.execution.action_record import KeptFile
from ortc.spec.vocabulary import Name, Sha256, Version

_MOST_BYTES = 2**63 - 1
_INNER: TypeAdapter[str] = TypeAdapter(Inner)


def _in_utc(moment: datetime) -> datetime:
    # Others have no neighbour in every time zone.
    if not 1 < moment.year < 9999:
        raise ValueError("expected a time between the years 2 and 9998")
    return moment.astimezone(UTC)


def _of_a_bundle(file: KeptFile) -> KeptFile:
    _INNER.validate_python(file.path)
    if file.bytes > _MOST_BYTES:
        raise ValueError("no file has so many bytes")
    return file


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A time with its zone, in UTC."""
BundleFile = Annotated[KeptFile, AfterValidator(_of_a_bundle)]
"""A file of a bundle, or beside it, that a file system can hold."""


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
    registered: Moment
    manifest_sha256: Sha256
    stamp: Stamp
    platforms: tuple[str, ...]
    fit_to_serve: bool
    provisional: bool
    model: ModelInfo
    axes: tuple[AxisInfo, ...]
    runtime: RuntimeInfo
    variant: VariantInfo
    promises: Promises
    provenance: Provenance
    files: tuple[BundleFile, ...]

    @model_validator(mode="after")
    def _holds_its_manifest(self) -> Self:
        digests = {file.path: file.sha256 for file in self.files}
        if len(digests) != len(self.files):
            raise ValueError("two of its files have the same path")
        if digests.get(MANIFEST) != self.manifest_sha256:
            raise ValueError(f"`manifest_sha256` is not the digest of {MANIFEST} among its files")
        return self

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

    def differing(self, manifest: Manifest, sizes: Mapping[str, int]) -> list[str]:
        """The fields that state anything else than the manifest, which a signature may cover.

        Args:
            manifest: of the bundle.
            sizes: the bytes of the files that the manifest does not list: of itself, and of SHA256SUMS.
        """
        same = BundleRecord.of(manifest, self.manifest_sha256, self.files)
        names = [name for name in type(self).model_fields if name != "registered"]
        wrong = [f"`{name}`" for name in names if getattr(self, name) != getattr(same, name)]
        stated = {file.path: (file.sha256, file.bytes) for file in self.files}
        listed = {file.path: (file.sha256, file.bytes) for file in manifest.files}
        others = {path: (stated[path][0], size) for path, size in sizes.items() if path in stated}
        return wrong if stated == listed | others else [*wrong, "`files`"]


class CompanionRecord(Document):
    """A file that joined a bundle beside its digests: a measurement, a signature."""

    kind: Literal["ortc-registry-companion"] = "ortc-registry-companion"
    name: Name
    version: Version
    target: Name
    registered: Moment
    manifest_sha256: Sha256
    file: BundleFile
    performance: Performance | None


class AliasEvent(Document):
    """A change of an alias. `rollback` takes the newest promotion back; `version` is what the alias names then."""

    kind: Literal["ortc-registry-alias"] = "ortc-registry-alias"
    name: Name
    alias: Name
    action: Literal["promote", "rollback"]
    version: Version
    at: Moment


class Marks(Document):
    """gc.json: blobs that no document needs, and since when; what was marked for long enough is deleted."""

    kind: Literal["ortc-registry-marks"] = "ortc-registry-marks"
    blobs: dict[Sha256, Moment]


def now() -> datetime:
    """The current time in UTC."""
    return datetime.now(UTC)
