"""Key pairs as files, as `ortc sign --key` and `ortc verify --key` take them."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

Keys = tuple[Path, Path]


def write_keys(place: Path, curve: ec.EllipticCurve | None = None, password: bytes | None = None) -> Keys:
    """A private and a public key as PEM files."""
    place.mkdir(parents=True, exist_ok=True)
    private = ec.generate_private_key(curve or ec.SECP256R1())
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    (place / "key.pem").write_bytes(private.private_bytes(pem, serialization.PrivateFormat.PKCS8, encryption))
    public = private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (place / "key.pub").write_bytes(public)
    return place / "key.pem", place / "key.pub"
