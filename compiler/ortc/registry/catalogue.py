"""Read a registry: models, versions, targets, aliases, and what was measured.

Nothing that a reader can see is ever changed: a bundle's files are there before its record, and the state of an alias
is the sum of events that have names of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from packaging.version import InvalidVersion
from packaging.version import Version as Ordered

from ortc.bundle.identity import Expected
from ortc.bundle.integrity import MANIFEST
from ortc.bundle.manifest import ATTESTATIONS, COMPANIONS, MEASUREMENTS, Manifest, parse_manifest
from ortc.common.errors import StageError, UsageError
from ortc.execution.action_record import KeptFile
from ortc.registry.contents import Contents
from ortc.registry.documents import AliasEvent, BundleRecord, CompanionRecord
from ortc.registry.signatures import covered
from ortc.spec.vocabulary import NAME_PATTERN

LATEST = "latest"
"""The highest version; nobody sets it."""


class Catalogue(Contents):
    """What a registry holds, by its URL."""

    def models(self) -> list[str]:
        """The names of the models."""
        self.check()
        return [name for name in self.storage.names("models") if self.versions(name)]

    def bundles(self, name: str) -> list[tuple[str, str]]:
        """Version and target of every bundle of a model."""
        found = (_stem(entry).partition("@") for entry in self.storage.names(f"models/{name}/bundles"))
        return [(version, target) for version, _, target in found]

    def versions(self, name: str) -> list[str]:
        """The versions of a model, the lowest first; those of other forms than PEP 440's before all others."""
        return sorted({version for version, _ in self.bundles(name)}, key=_order)

    def targets(self, name: str, version: str) -> list[str]:
        """The targets that a version was registered for."""
        return [target for found, target in self.bundles(name) if found == version]

    def aliases(self, name: str) -> dict[str, str]:
        """What each alias of a model names; `latest` among them where there is a version."""
        found = {alias: stack[-1] for alias in self.alias_names(name) if (stack := self.stack(name, alias))}
        versions = self.versions(name)
        return {LATEST: versions[-1], **found} if versions else found

    def stack(self, name: str, alias: str) -> list[str]:
        """The promotions of an alias that were not taken back, the newest last."""
        stack: list[str] = []
        for event in self.events(name, alias):
            if event.action == "promote":
                stack.append(event.version)
            elif len(stack) > 1:
                stack.pop()
        return stack

    def events(self, name: str, alias: str) -> list[AliasEvent]:
        """Every change of an alias, in the order that all readers agree on."""
        directory = f"models/{name}/aliases/{alias}"
        events = [(self.demand(AliasEvent, f"{directory}/{found}"), found) for found in self.storage.names(directory)]
        for event, found in events:
            if (event.name, event.alias) != (name, alias):
                raise StageError(
                    f"{directory}/{found} of the registry {self.storage.name} is of {event.name}@{event.alias}: "
                    "somebody put it there",
                    help="remove the file",
                )
        return [event for event, _ in events]

    def record(self, name: str, version: str, target: str) -> BundleRecord | None:
        """The record of a bundle, if it is registered."""
        path = record_path(name, version, target)
        found = self.find(BundleRecord, path)
        if found is not None and identity(found) != (name, version, target):
            raise self._another(path, *identity(found))
        return found

    def manifest(self, record: BundleRecord) -> Manifest:
        """The manifest of a registered bundle, from its own file: a record only repeats it.

        Raises:
            StageError: the file is missing or damaged, or states another bundle than the record.
        """
        content = self.content(MANIFEST, record.manifest_sha256)
        manifest = parse_manifest(content, f"manifest.json of {record.name} {record.version} for {record.target}")
        expected = Expected(name=record.name, version=record.version, target=record.target)
        expected.check(manifest, f"what the registry {self.storage.name} has")
        return manifest

    def companions(self, record: BundleRecord) -> list[CompanionRecord]:
        """What joined a bundle and may be used: beside a signed bundle no measurement that no signature covers.

        Raises:
            StageError: a signature, or a measurement beside a signed bundle, is missing or damaged.
        """
        return covered(self.current(record), record.manifest_sha256, self.content)

    def current(self, record: BundleRecord) -> list[CompanionRecord]:
        """What joined a bundle: of every path the newest, by path; no signature of a measurement that was replaced."""
        found: dict[str, CompanionRecord] = {}
        for companion in self.joined(record):
            path = companion.file.path
            before = found.get(path)
            if path.startswith(f"{MEASUREMENTS}/") and (before is None or before.file.sha256 != companion.file.sha256):
                # It would not match, and `ortc verify --key` refuse the bundle. One for this comes after it.
                found.pop(f"{ATTESTATIONS}/{path.partition('.')[0]}.sig", None)
            found[path] = companion
        return [found[path] for path in sorted(found)]

    def joined(self, record: BundleRecord) -> list[CompanionRecord]:
        """All that ever joined a bundle, the oldest first."""
        directory = companions_path(*identity(record))
        # By time, and by name where clocks agree.
        entries = [(self.demand(CompanionRecord, f"{directory}/{n}"), n) for n in self.storage.names(directory)]
        for entry, path in entries:
            if (entry.name, entry.version, entry.target) != identity(record):
                raise self._another(f"{directory}/{path}", entry.name, entry.version, entry.target)
            if entry.file.path.partition("/")[0] not in COMPANIONS:
                raise StageError(
                    f"{directory}/{path} of the registry {self.storage.name} is for `{entry.file.path}`, which is no "
                    "place for what joins a bundle",
                    help="it was put there by hand or by another program: remove it",
                )
        ordered = sorted(entries, key=lambda entry: (entry[0].registered, entry[1]))
        return [entry for entry, _ in ordered if entry.manifest_sha256 == record.manifest_sha256]

    def resolve(self, reference: str) -> tuple[str, str]:
        """Model and version of `NAME`, `NAME@ALIAS` or `NAME@VERSION`; without either, the latest.

        Raises:
            UsageError: there is no such model, alias or version.
        """
        self.check()
        name, _, wanted = reference.partition("@")
        if not is_plain(name) or not (versions := self.versions(name)):
            raise UsageError(
                f"the registry {self.storage.name} has no model `{name}`",
                help=f"it has: {', '.join(self.models()) or 'none'}",
            )
        aliases = self.aliases(name)
        version = aliases.get(wanted or LATEST, wanted)
        if version not in versions:
            known = [*(f"{alias} ({found})" for alias, found in sorted(aliases.items())), *reversed(versions)]
            gone = f", which names version {version}, and that was removed" if version != wanted else ""
            raise UsageError(f"`{name}` has no version or alias `{wanted}`{gone}", help=f"it has: {', '.join(known)}")
        return name, version

    def needed(self, name: str, without: frozenset[str] = frozenset()) -> Iterator[KeptFile]:
        """Every file that a record of a model needs, but for some versions."""
        for version, target in self.bundles(name):
            if version not in without and (record := self.record(name, version, target)):
                yield from record.files
        for bundle in self.storage.names(f"models/{name}/companions"):
            if bundle.partition("@")[0] in without:
                continue
            directory = f"models/{name}/companions/{bundle}"
            for found in self.storage.names(directory):
                if companion := self.find(CompanionRecord, f"{directory}/{found}"):
                    yield companion.file

    def _another(self, path: str, name: str, version: str, target: str) -> StageError:
        return StageError(
            f"{path} of the registry {self.storage.name} is of {name} {version} for {target}: somebody put it there",
            help="do not use what the registry has under that name; remove the file, and register the bundle again",
        )

    def alias_names(self, name: str) -> list[str]:
        """The aliases of a model that were ever set."""
        return self.storage.names(f"models/{name}/aliases")


def identity(record: BundleRecord) -> tuple[str, str, str]:
    """Name, version and target."""
    return record.name, record.version, record.target


def record_path(name: str, version: str, target: str) -> str:
    """Where the record of a bundle lies."""
    return f"models/{name}/bundles/{version}@{target}.json"


def companions_path(name: str, version: str, target: str) -> str:
    """Where the records of what joined a bundle lie."""
    return f"models/{name}/companions/{version}@{target}"


def _stem(name: str) -> str:
    return name.removesuffix(".json")


def is_plain(name: str) -> bool:
    """Whether a text is written like a name of the spec's language."""
    return re.fullmatch(NAME_PATTERN, name) is not None


def _order(version: str) -> tuple[bool, Ordered | None, str]:
    try:
        return True, Ordered(version), version
    except InvalidVersion:
        # Compared by their text alone: None equals None.
        return False, None, version
