"""Which files beside a bundle's digests may be used: beside a signed bundle those that a signature covers.

Without a key a signature is only read: its statement names the digests of a measurement, and proves nothing. With a key
it is verified.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ortc.bundle.integrity import MANIFEST, companion_files
from ortc.bundle.manifest import FileInfo
from ortc.bundle.supply_chain.signature_file import stated_digests
from ortc.bundle.supply_chain.signing import BUNDLE_SIGNATURE, groups_of, is_measurement, signature_of, verify
from ortc.common.digests import sha256_file
from ortc.common.plain_files import read_plain
from ortc.common.values import Frozen

SIGN_AGAIN = "`ortc sign` covers them once somebody has checked them"


class Companions(Frozen):
    """Files of measurements/ and attestations/ that may be used, and paths of measurements that may not."""

    files: tuple[FileInfo, ...]
    unsigned: tuple[str, ...]

    @property
    def measurements(self) -> tuple[str, ...]:
        """Paths of the measurements themselves, without model cards and plots."""
        return tuple(file.path for file in self.files if is_measurement(file.path))

    def note(self, what: str) -> str | None:
        """Say which measurements are left out, for a user; None where all are used."""
        return left_out(what, self.unsigned)


def left_out(what: str, unsigned: tuple[str, ...]) -> str | None:
    """A sentence about measurements beside a signed bundle that no signature covers; None where there are none."""
    if not unsigned:
        return None
    names = ", ".join(path for path in unsigned if is_measurement(path)) or ", ".join(unsigned)
    return f"{what} is signed, and no signature covers {names}: not used; {SIGN_AGAIN}"


def companions(bundle: Path, key: Path | None = None) -> Companions:
    """The companions of a bundle that may be used.

    Args:
        bundle: the directory; it was compared with its digests.
        key: a public key as PEM, with which every signature is verified; without one, signatures are only read.

    Raises:
        StageError: a companion is no plain file.
        SignatureError: with a key, the bundle or one of its signatures is not what was signed.
    """
    found = companion_files(bundle)
    if key is not None:
        unsigned = frozenset(verify(bundle, key).unsigned_measurements)
    else:
        digests = {file.path: file.sha256 for file in found} | {MANIFEST: sha256_file(bundle / MANIFEST)}
        unsigned = unsigned_measurements(digests, lambda path: read_plain(bundle / path))
    return Companions(
        files=tuple(file for file in found if file.path not in unsigned), unsigned=tuple(sorted(unsigned))
    )


def unsigned_measurements(digests: Mapping[str, str], read: Callable[[str], bytes]) -> frozenset[str]:
    """Files of measurements/ beside a signed bundle whose digests no signature states, with signatures of others.

    Beside a bundle without a signature there are none.

    Args:
        digests: SHA-256 of the manifest and of every companion, by path.
        read: the content of a companion.
    """
    if BUNDLE_SIGNATURE not in digests:
        return frozenset()
    unsigned = set[str]()
    for fingerprint, paths in groups_of(digests).items():
        place = signature_of(fingerprint)
        stated = stated_digests(read(place)) if place in digests else {}
        if stated != {path: digests[path] for path in paths}:
            unsigned.update(path for path in (*paths, place) if path != MANIFEST and path in digests)
    return frozenset(unsigned)
