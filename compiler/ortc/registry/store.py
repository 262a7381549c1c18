"""Register bundles and remove versions; for any number of writers, each of which may die."""

from __future__ import annotations

import uuid
from datetime import timedelta
from pathlib import Path

from ortc.bundle.integrity import MANIFEST, own_files, verified
from ortc.bundle.manifest import FileInfo
from ortc.bundle.performance import Performance, performance_in
from ortc.bundle.supply_chain.companions import companions as usable_companions
from ortc.bundle.supply_chain.signing import is_measurement
from ortc.common.errors import StageError
from ortc.common.plain_files import read_plain
from ortc.common.values import Frozen
from ortc.execution.action_record import KeptFile
from ortc.registry.catalogue import LATEST, Catalogue, companions_path, identity, record_path
from ortc.registry.contents import MARKER, blob
from ortc.registry.documents import BundleRecord, CompanionRecord, Marker, now

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
                # A file that an unreadable document may need is written anew, which harms nobody.
                needed.update(kept.sha256 for kept in self.needed(name, []))
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
    return performance_in(read_plain(bundle / file.path), file.path) if is_measurement(file.path) else None
