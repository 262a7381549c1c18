"""What `ortc registry ls` and `show` tell, as values."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal

from ortc.bundle.performance import Performance
from ortc.bundle.supply_chain.signing import BUNDLE_SIGNATURE, is_measurement
from ortc.common.values import Frozen
from ortc.registry.catalogue import Catalogue
from ortc.registry.documents import BundleRecord
from ortc.registry.signatures import check_signatures


class VersionLine(Frozen):
    """A version with the targets that it has."""

    version: str
    targets: tuple[str, ...]


class ModelListing(Frozen):
    """A model with all its versions, the lowest first."""

    name: str
    versions: tuple[VersionLine, ...]
    aliases: dict[str, str]


class BundleView(Frozen):
    """A bundle as it is registered, and its performance on every machine that measured it.

    `signed` says that there is a signature, `verified` that a key has verified it, and that the record but for the time
    of registration repeats the signed manifest. `unsigned` are measurements beside a signed bundle that no signature
    covers: their numbers are not used.
    """

    record: BundleRecord
    performance: tuple[Performance, ...]
    signed: bool
    verified: bool = False
    unsigned: tuple[str, ...] = ()


class HistoryLine(Frozen):
    """Something that happened to a model: a bundle was registered, or an alias changed."""

    at: datetime
    event: Literal["registered", "promote", "rollback"]
    version: str
    subject: str


class VersionView(Frozen):
    """A version of a model, and the history of the model."""

    name: str
    version: str
    aliases: tuple[str, ...]
    bundles: tuple[BundleView, ...]
    history: tuple[HistoryLine, ...]


def listing(catalogue: Catalogue, name: str | None = None) -> list[ModelListing]:
    """Every model, or one.

    Raises:
        UsageError: there is no such model.
    """
    names = catalogue.models() if name is None else [catalogue.resolve(name)[0]]
    found = []
    for model in names:
        bundles = catalogue.bundles(model)
        found.append(
            ModelListing(
                name=model,
                versions=tuple(
                    VersionLine(version=version, targets=tuple(sorted(t for v, t in bundles if v == version)))
                    for version in catalogue.versions(model)
                ),
                aliases=catalogue.aliases(model),
            )
        )
    return found


def view(catalogue: Catalogue, reference: str, key: Path | None = None) -> VersionView:
    """A version with everything that is known of it.

    Args:
        catalogue: the registry.
        reference: the version.
        key: a public key as PEM: every bundle and measurement must be signed with it.

    Raises:
        UsageError: there is no such version.
        StageError: the registry is damaged.
        SignatureError: with a key, a bundle is not as it was signed with it.
    """
    name, version = catalogue.resolve(reference)
    bundles = []
    for target in catalogue.targets(name, version):
        record = catalogue.registered(name, version, target)
        companions = catalogue.companions(record)
        if key is not None:
            check_signatures(record, companions, catalogue.content, key)
            # The record is not signed: it has to repeat what is.
            catalogue.manifest(record)
        used = {entry.file.path for entry in companions}
        left = tuple(entry.file.path for entry in catalogue.current(record) if entry.file.path not in used)
        bundles.append(
            BundleView(
                record=record,
                performance=tuple(entry.performance for entry in companions if entry.performance is not None),
                signed=BUNDLE_SIGNATURE in used,
                verified=key is not None,
                unsigned=tuple(path for path in left if is_measurement(path)),
            )
        )
    aliases = catalogue.aliases(name)
    return VersionView(
        name=name,
        version=version,
        aliases=tuple(sorted(alias for alias, named in aliases.items() if named == version)),
        bundles=tuple(bundles),
        history=tuple(_history(catalogue, name)),
    )


def _history(catalogue: Catalogue, name: str) -> list[HistoryLine]:
    records = [record for bundle in catalogue.bundles(name) if (record := catalogue.record(name, *bundle))]
    lines = [
        HistoryLine(at=record.registered, event="registered", version=record.version, subject=record.target)
        for record in records
    ]
    for alias in catalogue.alias_names(name):
        lines += [
            HistoryLine(at=event.at, event=event.action, version=event.version, subject=alias)
            for event in catalogue.events(name, alias)
        ]
    return sorted(lines, key=lambda line: line.at)
