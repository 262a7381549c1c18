"""Read a registry: models, versions, targets, aliases, and what was measured.

Nothing that a reader can see is ever changed: a bundle's files are there before its record, and the state of an alias
is the sum of events that have names of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from packaging.version import InvalidVersion
from packaging.version import Version as Ordered

from ortc.bundle.identity import Expected
from ortc.bundle.integrity import MANIFEST, SUMS
from ortc.bundle.manifest import ATTESTATIONS, COMPANIONS, MEASUREMENTS, Manifest, parse_manifest
from ortc.common.errors import StageError, UsageError
from ortc.execution.action_record import KeptFile
from ortc.registry.contents import Contents
from ortc.registry.documents import AliasEvent, BundleRecord, CompanionRecord
from ortc.registry.signatures import covered
from ortc.spec.vocabulary import NAME_PATTERN, VERSION_PATTERN

LATEST = "latest"
"""The highest version; nobody sets it."""
EVENT = re.compile(r"(?P<number>[0-9]{8})-[0-9a-z]{1,64}\.json", re.ASCII)
"""Name of a change of an alias: its place in the order, and what tells writers at once apart."""
_RECORD = re.compile(r"(?P<version>[^@]+)@(?P<target>[^@]+)\.json")


class Catalogue(Contents):
    """What a registry holds, by its URL."""

    def models(self) -> list[str]:
        """The names of the models."""
        self.check()
        return [name for name in self.storage.names("models") if is_plain(name) and self.versions(name)]

    def bundles(self, name: str) -> list[tuple[str, str]]:
        """Version and target of every bundle of a model; files of other names are not records."""
        found = [_RECORD.fullmatch(entry) for entry in self.storage.names(f"models/{name}/bundles")]
        pairs = [(match["version"], match["target"]) for match in found if match is not None]
        return [
            (version, target)
            for version, target in pairs
            if is_plain(target) and re.fullmatch(VERSION_PATTERN, version) and version != LATEST
        ]

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
        return {**found, LATEST: versions[-1]} if versions else found

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
        names = self.storage.names(directory)
        if foreign := [found for found in names if not EVENT.fullmatch(found)]:
            raise StageError(
                f"{directory}/{foreign[0]} of the registry {self.storage.name} is not named like a change of an alias",
                help="it was put there by hand or by another program: remove it",
            )
        events = [(self.demand(AliasEvent, f"{directory}/{found}"), found) for found in names]
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
            raise _another(self.storage.name, path, *identity(found))
        return found

    def registered(self, name: str, version: str, target: str) -> BundleRecord:
        """The record of a bundle that was there when its directory was listed.

        Raises:
            StageError: it is not there any more, or damaged.
        """
        found = self.record(name, version, target)
        if found is None:
            raise StageError(
                f"{name} {version} for {target} was removed from the registry while it was read; try again"
            )
        return found

    def manifest(self, record: BundleRecord) -> Manifest:
        """The manifest of a registered bundle, from its own file: a record only repeats it.

        Raises:
            StageError: the file is missing or damaged, or the record states anything else than it.
        """
        content = self.content(MANIFEST, record.manifest_sha256)
        manifest = parse_manifest(content, f"manifest.json of {record.name} {record.version} for {record.target}")
        expected = Expected(name=record.name, version=record.version, target=record.target)
        expected.check(manifest, f"what the registry {self.storage.name} has")
        sizes = {MANIFEST: len(content)}
        if (sums := next((file for file in record.files if file.path == SUMS), None)) is not None:
            sizes[SUMS] = len(self.content(SUMS, sums.sha256))
        if differing := record.differing(manifest, sizes):
            path = record_path(*identity(record))
            raise StageError(
                f"{path} of the registry {self.storage.name} does not repeat its manifest: {', '.join(differing)}",
                help="somebody changed it: remove the file, and register the bundle again",
            )
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
                raise _another(self.storage.name, f"{directory}/{path}", entry.name, entry.version, entry.target)
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
        # No alias stands for a version that is there.
        version = wanted if wanted in versions else aliases.get(wanted or LATEST, wanted)
        if version not in versions:
            known = [*(f"{alias} ({found})" for alias, found in sorted(aliases.items())), *reversed(versions)]
            gone = f", which names version {version}, and that was removed" if version != wanted else ""
            raise UsageError(f"`{name}` has no version or alias `{wanted}`{gone}", help=f"it has: {', '.join(known)}")
        return name, version

    def needed(self, name: str, unread: list[str], without: frozenset[str] = frozenset()) -> Iterator[KeptFile]:
        """Every file that a document of a model needs, whatever the document is called.

        Args:
            name: of the model's directory.
            unread: takes a message about each document that cannot be read: nobody knows what it needs.
            without: versions whose documents do not count.
        """
        places: list[tuple[type[BundleRecord] | type[CompanionRecord], str]] = []
        base = f"models/{name}"
        places.append((BundleRecord, f"{base}/bundles"))
        places += [(CompanionRecord, f"{base}/companions/{n}") for n in self.storage.names(f"{base}/companions")]
        for kind, directory in places:
            if kind is CompanionRecord and PurePosixPath(directory).name.partition("@")[0] in without:
                continue
            for entry in self.storage.names(directory):
                if kind is BundleRecord and entry.partition("@")[0] in without:
                    continue
                try:
                    found = self.find(kind, f"{directory}/{entry}")
                except StageError as error:
                    unread.append(error.message)
                    continue
                if isinstance(found, BundleRecord):
                    yield from found.files
                elif found is not None:
                    yield found.file
                elif entry in self.storage.names(directory):
                    unread.append(f"{directory}/{entry} of the registry {self.storage.name} leads nowhere")

    def alias_names(self, name: str) -> list[str]:
        """The aliases of a model that were ever set."""
        return [found for found in self.storage.names(f"models/{name}/aliases") if is_plain(found) and found != LATEST]


def identity(record: BundleRecord) -> tuple[str, str, str]:
    """Name, version and target."""
    return record.name, record.version, record.target


def record_path(name: str, version: str, target: str) -> str:
    """Where the record of a bundle lies."""
    return f"models/{name}/bundles/{version}@{target}.json"


def companions_path(name: str, version: str, target: str) -> str:
    """Where the records of what joined a bundle lie."""
    return f"models/{name}/companions/{version}@{target}"


def is_plain(name: str) -> bool:
    """Whether a text is written like a name of the spec's language."""
    return re.fullmatch(NAME_PATTERN, name) is not None


def _order(version: str) -> tuple[bool, Ordered | None, str]:
    try:
        return True, Ordered(version), version
    except InvalidVersion:
        # Compared by their text alone: None equals None.
        return False, None, version


def _another(registry: str, path: str, name: str, version: str, target: str) -> StageError:
    return StageError(
        f"{path} of the registry {registry} is of {name} {version} for {target}: somebody put it there",
        help="do not use what the registry has under that name; remove the file, and register the bundle again",
    )
