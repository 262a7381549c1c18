"""Register bundles, promote versions, and bring bundles back; for any number of writers, each of which may die."""

from __future__ import annotations

import os
import uuid
from datetime import timedelta
from pathlib import Path

from ortc.bundle.identity import Expected
from ortc.bundle.integrity import MANIFEST, own_files, verified
from ortc.bundle.manifest import FileInfo
from ortc.bundle.performance import Performance, performance_in
from ortc.bundle.publish import Staging
from ortc.bundle.supply_chain.companions import companions as usable_companions
from ortc.bundle.supply_chain.companions import is_measurement
from ortc.bundle.supply_chain.signing import verify
from ortc.common.digests import sha256_file
from ortc.common.disk import room
from ortc.common.errors import StageError, UsageError
from ortc.common.values import Frozen
from ortc.execution.action_record import KeptFile
from ortc.execution.ownership import within_umask
from ortc.registry.catalogue import LATEST, MARKER, Catalogue, blob, companions_path, identity, is_plain, record_path
from ortc.registry.documents import AliasEvent, BundleRecord, CompanionRecord, Marker, now
from ortc.registry.signatures import check_signatures

FRESH = timedelta(hours=12)
"""A blob that nothing needs yet is taken as it is when it is younger, and written anew else, so that none is collected
between two steps of its registration."""


class Added(Frozen):
    """What registering a bundle did: `new` when its version and target were not there, companions that joined.

    `unsigned` are measurements beside a signed bundle that no signature covers: they did not join.
    """

    name: str
    version: str
    target: str
    new: bool
    companions: tuple[str, ...]
    unsigned: tuple[str, ...] = ()


class Registry(Catalogue):
    """A registry, by its URL."""

    def add(self, bundle: Path, *, repair: bool = False, key: Path | None = None) -> Added:
        """Register a bundle, after all its files were compared with their digests.

        A bundle that is there already gains the measurements and signatures that are new. Beside a signed bundle, a
        measurement that no signature covers stays out.

        Args:
            bundle: the directory.
            repair: write the files that are there already, too.
            key: a public key as PEM: every signature is verified first.

        Raises:
            StageError: it is damaged, or another bundle has its name, version and target.
            SignatureError: with a key, the bundle is not as it was signed with it.
        """
        manifest = verified(bundle)
        if manifest.version == LATEST:
            raise StageError(f"`{LATEST}` is no version that can be registered: it names the highest one")
        files = own_files(bundle, manifest)
        usable = usable_companions(bundle, key)
        companions = usable.files
        manifest_sha256 = next(file.sha256 for file in files if file.path == MANIFEST)
        record = BundleRecord.of(manifest, manifest_sha256, [_kept(file) for file in files])
        performances = {file.path: _performance(bundle, file) for file in companions}
        self.prepare()
        _refuse_another(record, self.record(*identity(record)))
        needed: set[str] = set()
        for file in (*files, *companions):
            if repair:
                self.storage.put_file(blob(file.sha256), bundle / file.path)
            else:
                self._keep(bundle / file.path, file, manifest.name, needed)
        # What was there once is not new: another copy of the bundle may lack what replaced it.
        known = {(found.file.path, found.file.sha256) for found in self.joined(record)}
        joined = [file for file in companions if (file.path, file.sha256) not in known]
        for file in joined:
            companion = CompanionRecord(
                name=record.name,
                version=record.version,
                target=record.target,
                registered=now(),
                manifest_sha256=manifest_sha256,
                file=_kept(file),
                performance=performances[file.path],
            )
            self.storage.create(f"{companions_path(*identity(record))}/{uuid.uuid4().hex}.json", companion.content())
        # Last: a bundle that is there has its measurements.
        new = self.storage.create(record_path(*identity(record)), record.content())
        if not new:
            _refuse_another(record, self.record(*identity(record)))
        return Added(
            name=record.name,
            version=record.version,
            target=record.target,
            new=new,
            companions=tuple(file.path for file in joined),
            unsigned=usable.unsigned,
        )

    def promote(
        self,
        reference: str,
        alias: str,
        *,
        unfit: bool = False,
        fewer: bool = False,
        broken: bool = False,
        key: Path | None = None,
    ) -> str:
        """Let an alias name a version, and tell which.

        Args:
            reference: the version, as `resolve` takes it.
            alias: a name like `production`.
            unfit: even one that is not fit to serve.
            fewer: even one that lacks a target of the version that the alias names now.
            broken: even one that a measurement says breaks a promise.
            key: a public key as PEM: the bundles must be signed with it.

        Raises:
            UsageError: there is no such version, or the alias cannot have that name.
            StageError: the version should not be promoted, or the registry has another bundle under its name.
        """
        name, version = self.resolve(reference)
        if alias == LATEST or alias in self.versions(name) or not is_plain(alias):
            raise UsageError(
                f"`{alias}` cannot be set: an alias is neither `{LATEST}` nor a version, and is written like a name"
            )
        targets = self.targets(name, version)
        records = [found for target in targets if (found := self.record(name, version, target))]
        if key is not None:
            for record in records:
                check_signatures(record, self.companions(record), self.content, key)
        manifests = [self.manifest(record) for record in records]
        if not unfit and (bad := [manifest.target for manifest in manifests if not manifest.fit_to_serve]):
            raise StageError(
                f"{name} {version} is not fit to serve ({', '.join(bad)}): its weights are random",
                help="`--allow-unfit` promotes it all the same",
            )
        failures = [
            f"{record.target} on {found.performance.host.cpu} ({found.performance.fingerprint})"
            for record in records
            for found in self.companions(record)
            if found.performance is not None and found.performance.verdicts.get("fail")
        ]
        if not broken and failures:
            raise StageError(
                f"{name} {version} breaks a promise: {', '.join(failures)}",
                help="`ortc registry show` has the numbers; `--allow-broken-promises` promotes it all the same",
            )
        before = self.aliases(name).get(alias)
        lost = [] if before is None else sorted(set(self.targets(name, before)) - set(targets))
        if lost and not fewer:
            raise StageError(
                f"{name} {version} has no bundle for {', '.join(lost)}, which {before}, now `{alias}`, has",
                help="register the missing bundles first; `--allow-missing-targets` promotes it all the same",
            )
        self._say(name, alias, "promote", version)
        return version

    def rollback(self, name: str, alias: str) -> tuple[str, str]:
        """Let an alias name what it named before its newest promotion; tell the version before and after.

        Raises:
            UsageError: there is no such model or alias.
            StageError: there was nothing before, or it was removed.
        """
        name, _ = self.resolve(name)
        stack = self.stack(name, alias)
        if not stack:
            named = ", ".join(self.alias_names(name)) or "none"
            raise UsageError(f"`{name}` has no alias `{alias}`", help=f"it has: {named}")
        if len(stack) == 1:
            raise StageError(f"`{alias}` of {name} has always been {stack[0]}: there is nothing to go back to")
        if stack[-2] not in self.versions(name):
            raise StageError(
                f"`{alias}` of {name} was {stack[-2]} before, which was removed", help="promote another version"
            )
        self._say(name, alias, "rollback", stack[-2])
        return stack[-1], stack[-2]

    def get(self, name: str, version: str, target: str, output: Path, key: Path | None = None) -> Path:
        """Bring a bundle back to OUTPUT/NAME/VERSION/TARGET, compared with its digests; nothing half is ever there.

        Args:
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
        record = self.record(name, version, target)
        if record is None:
            known = ", ".join(self.targets(name, version))
            raise UsageError(f"{name} {version} is not registered for `{target}`", help=f"it is for: {known}")
        files = [*record.files, *(companion.file for companion in self.companions(record))]
        place = output / name / version / target
        size = sum(file.bytes for file in files)
        with Staging(place) as staging, room(("bundles", place), needed=size):
            for file in files:
                self._bring(file, staging.directory / file.path, record.stamp)
            found = verified(staging.directory, "fast")
            Expected(name=name, version=version, target=target).check(
                found, f"what the registry {self.storage.name} has"
            )
            if key is not None:
                verify(staging.directory, key)
            staging.commit()
        return place

    def _bring(self, file: KeptFile, place: Path, stamp: int) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        there = self.storage.fetch(blob(file.sha256), place)
        if not there or place.stat().st_size != file.bytes or sha256_file(place) != file.sha256:
            what = "is damaged in" if there else "is missing from"
            raise StageError(
                f"`{file.path}` {what} the registry {self.storage.name} ({blob(file.sha256)})",
                help="`ortc registry add --repair` of the same bundle puts it there again",
            )
        place.chmod(within_umask(file.mode))
        os.utime(place, (stamp, stamp))

    def prepare(self) -> None:
        """Make a registry of an empty place.

        Raises:
            StageError: it cannot be reached, or something else is there.
        """
        if self.find(Marker, MARKER) is None:
            if names := self.storage.names(""):
                # Another writer may have been first since.
                if self.find(Marker, MARKER) is None:
                    raise StageError(
                        f"{self.storage.name} is no registry, and not empty: it has {names[0]}",
                        help="give an empty or new place, or an existing registry",
                    )
                return
            self.storage.create(MARKER, Marker().content())

    def _keep(self, path: Path, file: FileInfo, name: str, needed: set[str]) -> None:
        """Have a file's content there as a blob; `needed` is what the model's records need, once that was asked."""
        place = blob(file.sha256)
        if self.storage.size(place) == file.bytes:
            written = self.storage.modified(place)
            if written is not None and now() - written < FRESH:
                return
            if not needed:
                needed.update(kept.sha256 for kept in self.needed(name))
            if file.sha256 in needed:
                return
        self.storage.put_file(place, path)

    def remove(self, name: str, version: str) -> None:
        """Forget a version: its bundles are not there for any reader after this; their files stay."""
        for target in self.targets(name, version):
            self.storage.remove(record_path(name, version, target))
            directory = companions_path(name, version, target)
            for found in self.storage.names(directory):
                self.storage.remove(f"{directory}/{found}")

    def _say(self, name: str, alias: str, action: str, version: str) -> None:
        """Add an event to an alias: after all that this process sees, in a file that no other process writes."""
        directory = f"models/{name}/aliases/{alias}"
        last = max((int(found.partition("-")[0]) for found in self.storage.names(directory)), default=0)
        event = AliasEvent.model_validate(
            {"name": name, "alias": alias, "action": action, "version": version, "at": now()}
        )
        self.storage.create(f"{directory}/{last + 1:08}-{uuid.uuid4().hex}.json", event.content())


def _refuse_another(record: BundleRecord, there: BundleRecord | None) -> None:
    if there is not None and there.manifest_sha256 != record.manifest_sha256:
        raise StageError(
            f"another bundle is registered as {record.name} {record.version} for {record.target}: "
            "a version never changes",
            help="give the spec a new `version`, build it, and register that",
        )


def _kept(file: FileInfo) -> KeptFile:
    return KeptFile(path=file.path, sha256=file.sha256, bytes=file.bytes, mode=0o644)


def _performance(bundle: Path, file: FileInfo) -> Performance | None:
    return performance_in((bundle / file.path).read_bytes(), file.path) if is_measurement(file.path) else None
