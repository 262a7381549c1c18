"""Sign bundles with a key and verify them, offline, in the format of OpenSSF Model Signing.

A bundle's signature covers every file that the bundle is, the manifest, SHA256SUMS and the provenance. Measurements
come later and from other machines: each hardware fingerprint has a signature of its own, which covers the manifest too,
so that it is worth nothing beside another bundle.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ortc.bundle.identity import Expected
from ortc.bundle.integrity import MANIFEST, companion_files, own_files, verified
from ortc.bundle.manifest import ATTESTATIONS, MEASUREMENTS, PROVENANCE, Manifest
from ortc.bundle.performance import performance_in
from ortc.bundle.supply_chain.signature_file import expect_key, is_canonical, rewritten
from ortc.common.atomic_files import replace_file
from ortc.common.digests import sha256_file
from ortc.common.errors import OrtcError, StageError, UsageError
from ortc.common.plain_files import read_plain
from ortc.common.values import Frozen
from ortc.spec.vocabulary import Name, Version

BUNDLE_SIGNATURE = f"{ATTESTATIONS}/bundle.sig"
SIGNATURES = f"{ATTESTATIONS}/{MEASUREMENTS}"
PASSWORD = "ORTC_KEY_PASSWORD"  # noqa: S105 - the variable's name


class SignatureError(OrtcError):
    """A bundle is not what was signed, or not signed with this key."""

    exit_code = 5


MAKE_KEY = f"make one with `openssl ecparam -genkey -name prime256v1 -noout`; a password goes into ${PASSWORD}"


class Signed(Frozen):
    """What `sign` or `verify` found: the bundle, the files covered, and measurements by their state."""

    format_version: int = 1
    bundle: str
    name: Name
    version: Version
    target: Name
    manifest_sha256: str
    files: tuple[str, ...]
    measurements: tuple[str, ...]
    unsigned_measurements: tuple[str, ...]


def sign(bundle: Path, key: Path) -> Signed:
    """Sign a bundle and its measurements, after every file was compared with its digest.

    Args:
        bundle: the directory; signatures are written below its attestations/.
        key: an elliptic-curve private key (P-256, P-384, P-521) as PEM; its password is in $ORTC_KEY_PASSWORD.

    Raises:
        UsageError: the key is none, or ortc's extra `sign` is not installed.
        StageError: the bundle is damaged, a file among its measurements is none, or a signature cannot be written.
        SignatureError: it holds what no signature covers, and `verify` would refuse.
    """
    signing, _, hashing = _library()
    manifest = verified(bundle)
    if not (bundle / PROVENANCE).is_file():
        raise UsageError(
            f"{bundle} has no {PROVENANCE}: an older ortc built it, and its loader takes no signatures",
            help="build it again, and sign that",
        )
    password = os.environ.get(PASSWORD)
    expect_key(key)
    try:
        config = signing.Config().use_elliptic_key_signer(
            private_key=key, password=None if password is None else password.encode()
        )
    except AttributeError as error:
        # Of a key that has no curve.
        raise UsageError(
            f"{key} is no private key that can sign: it is of another kind than elliptic curves", help=MAKE_KEY
        ) from error
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"{key} is no private key that can sign: {str(error).splitlines()[0] if str(error) else error!r}",
            help=MAKE_KEY,
        ) from error
    groups = _groups(bundle)
    _expect_plain(bundle, groups)
    for fingerprint, files in groups.items():
        if not fingerprint or "/" in fingerprint or not any(map(is_measurement, files)):
            raise StageError(
                f"{files[-1]} belongs to no measurement: {MEASUREMENTS}/FINGERPRINT.json is one", help="remove it"
            )
    for path in filter(is_measurement, (file.path for file in companion_files(bundle))):
        # A signature says that somebody measured: there is to be a measurement.
        performance_in(read_plain(bundle / path), path)
    wanted = {BUNDLE_SIGNATURE: _covered(bundle), **{signature_of(name): files for name, files in groups.items()}}
    for name, files in wanted.items():
        chosen = [bundle / file for file in files]
        config.set_hashing_config(_Listed(hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False), chosen))
        place = bundle / name
        with tempfile.TemporaryDirectory(prefix="ortc-sign-") as scratch:
            written = Path(scratch) / "signature"
            config.sign(bundle, written)
            text = rewritten(written)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            replace_file(place, text.encode(), stamp=manifest.stamp)
        except OSError as error:
            raise StageError(f"cannot write {place}: {error.strerror or error}", help="check permissions") from error
    return _found(bundle, manifest, tuple(wanted[BUNDLE_SIGNATURE]), groups, frozenset(groups))


def verify(bundle: Path, key: Path, expected: Expected | None = None) -> Signed:
    """Verify a signed bundle and its signed measurements; nothing of the bundle is run.

    Args:
        bundle: the directory.
        key: the public key as PEM.
        expected: the bundle that was asked for.

    Raises:
        UsageError: the key is none, or ortc's extra `sign` is not installed.
        StageError, SignatureError: a file is changed, missing, one too many, or not signed with this key; or the bundle
            is another one than was asked for.
    """
    _library()
    # Digests first: they name a file that was changed even where its signature is gone.
    manifest = verified(bundle)
    if expected is not None:
        expected.check(manifest, bundle)
    groups = _groups(bundle)
    _expect_plain(bundle, groups)
    _verify_one(bundle, BUNDLE_SIGNATURE, _covered(bundle), key)
    signed = set()
    for path in sorted((bundle / SIGNATURES).glob("*.sig")):
        name = path.name.removesuffix(".sig")
        _verify_one(bundle, signature_of(name), groups[name], key)
        signed.add(name)
    return _found(bundle, manifest, tuple(_covered(bundle)), groups, frozenset(signed))


class _Listed:
    """A hashing configuration that hashes the files of a list, as both sides of a signature need it."""

    def __init__(self, config: Any, files: list[Path]) -> None:
        self._config = config
        self._files = files

    def hash(self, place: Path, files_to_hash: object = None) -> Any:
        """The manifest of the list's files; what the signature says to hash is not asked."""
        return self._config.hash(place, files_to_hash=self._files)

    def add_ignored_paths(self, *, model_path: object, paths: object) -> None:
        """A signature does not decide what is ignored."""


class _Stated:
    """A hashing configuration that takes digests as they were found before."""

    def __init__(self, digests: Mapping[str, str]) -> None:
        self._digests = digests

    def hash(self, place: Path, files_to_hash: object = None) -> Any:
        """The manifest of files with these digests."""
        from model_signing import manifest
        from model_signing._hashing.hashing import Digest  # the manifests of its public part hold nothing else

        kind = manifest.SerializationType.from_args({"method": "files", "hash_type": "sha256", "allow_symlinks": False})
        items = [kind.new_item(path, Digest("sha256", bytes.fromhex(value))) for path, value in self._digests.items()]
        return manifest.Manifest(place.name, items, kind)

    def add_ignored_paths(self, *, model_path: object, paths: object) -> None:
        """A signature does not decide what is ignored."""


def verify_stated(place: Path, name: str, digests: Mapping[str, str], key: Path) -> None:
    """Verify that a signature is of exactly these files.

    Args:
        place: the signature's file.
        name: of the signature in its bundle, for messages.
        digests: SHA-256 by path; whoever calls has compared the files with them, or will.
        key: the public key as PEM.

    Raises:
        UsageError: the key is none, or ortc's extra `sign` is not installed.
        SignatureError: the signature is missing, damaged, of other files, or made with another key.
    """
    _library()
    _verify_with(place.parent, place, name, _Stated(digests), key)


def _verify_one(bundle: Path, name: str, files: list[str], key: Path) -> None:
    _, _, hashing = _library()
    chosen = [bundle / file for file in files]
    listed = _Listed(hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False), chosen)
    _verify_with(bundle, bundle / name, name, listed, key)


def _verify_with(base: Path, place: Path, name: str, hashed: _Listed | _Stated, key: Path) -> None:
    _, verifying, _ = _library()
    if not place.is_file():
        raise SignatureError(
            f"{name} is missing: the bundle is not signed", help="`ortc sign BUNDLE --key KEY` signs it"
        )
    expect_key(key)
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=key)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{key} is no public key of an elliptic curve: {error}") from error
    if not is_canonical(place, key):
        raise SignatureError(f"{name} was changed, or made with another key than {key}")
    config.set_hashing_config(hashed)
    try:
        # The library tells of old formats on stdout, which is for results.
        with contextlib.redirect_stdout(None):
            config.verify(base, place)
    except ValueError as error:
        detail = str(error).splitlines()[0]
        raise SignatureError(f"{name} does not match the bundle: {detail}") from error
    except Exception as error:
        from cryptography.exceptions import InvalidSignature

        if not isinstance(error, InvalidSignature | LookupError | TypeError | AttributeError | RecursionError):
            raise
        raise SignatureError(f"{name} was changed, or made with another key than {key}") from error


def _covered(bundle: Path) -> list[str]:
    return sorted([*(file.path for file in own_files(bundle, verified(bundle, "fast"))), PROVENANCE])


def _groups(bundle: Path) -> dict[str, list[str]]:
    return groups_of(file.path for file in companion_files(bundle))


def is_measurement(path: str) -> bool:
    """Whether a companion is a measurement, and no model card, plot or signature."""
    directory, _, name = path.partition("/")
    return directory == MEASUREMENTS and name.endswith(".json") and name.count(".") == 1 and "/" not in name


def groups_of(paths: Iterable[str]) -> dict[str, list[str]]:
    """The files of measurements/ by hardware fingerprint, each with the manifest that they are about."""
    groups: dict[str, list[str]] = {}
    for path in sorted(paths):
        directory, _, name = path.partition("/")
        if directory == MEASUREMENTS:
            groups.setdefault(name.partition(".")[0], [MANIFEST]).append(path)
    return groups


def _expect_plain(bundle: Path, groups: Mapping[str, list[str]]) -> None:
    """Check that there is nothing in a bundle but what signatures cover; what is signed must verify."""
    # The loader lets bytecode come and go. Python runs it in place of the source, if it only claims the source's time.
    if compiled := sorted(path for path in bundle.rglob("__pycache__") if path.is_symlink() or any(path.rglob("*"))):
        raise SignatureError(
            f"{compiled[0].relative_to(bundle)} is not signed, and Python would run what is in it", help="remove it"
        )
    for file in companion_files(bundle):
        known = file.path in (PROVENANCE, BUNDLE_SIGNATURE) or (
            file.path.startswith(f"{SIGNATURES}/") and file.path.endswith(".sig") and file.path.count("/") == 2
        )
        if file.path.startswith(f"{ATTESTATIONS}/") and not known:
            raise SignatureError(f"{file.path} is neither signed nor a signature", help="remove it")
    for path in sorted((bundle / SIGNATURES).glob("*.sig")):
        if path.name.removesuffix(".sig") not in groups:
            raise SignatureError(
                f"{SIGNATURES}/{path.name} signs a measurement that is missing from {MEASUREMENTS}/",
                help="remove it, or get the measurement again",
            )


def signature_of(fingerprint: str) -> str:
    """Where the signature of a measurement belongs, below the bundle."""
    return f"{SIGNATURES}/{fingerprint}.sig"


def _found(
    bundle: Path, manifest: Manifest, files: tuple[str, ...], groups: dict[str, list[str]], signed: frozenset[str]
) -> Signed:
    def names(fingerprints: Iterator[str]) -> tuple[str, ...]:
        return tuple(path for name in fingerprints for path in groups[name] if path != MANIFEST)

    return Signed(
        bundle=str(bundle),
        name=manifest.name,
        version=manifest.version,
        target=manifest.target,
        manifest_sha256=sha256_file(bundle / MANIFEST),
        files=files,
        measurements=names(name for name in sorted(groups) if name in signed),
        unsigned_measurements=names(name for name in sorted(groups) if name not in signed),
    )


def _library() -> tuple[Any, Any, Any]:
    """model_signing's modules for signing, verifying and hashing."""
    try:
        from model_signing import hashing, signing, verifying
    except ImportError as error:
        raise UsageError(
            f"signatures need the package `{error.name}`", help="install ortc's extra: pip install 'ortc[sign]'"
        ) from error
    return signing, verifying, hashing
