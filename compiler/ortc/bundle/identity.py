"""Which bundle was asked for: a bundle that is whole and signed can still be another one, or an old version."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self

from ortc.bundle.manifest import Manifest
from ortc.common.errors import StageError, UsageError
from ortc.common.values import Frozen
from ortc.spec.vocabulary import NAME_PATTERN, VERSION_PATTERN, Name, Version

FORM = "NAME[@VERSION][/TARGET]"


class Expected(Frozen):
    """A bundle by its name, and by its version and target where those were asked for."""

    name: Name
    version: Version | None = None
    target: Name | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `NAME`, `NAME@VERSION`, `NAME/TARGET` or `NAME@VERSION/TARGET`.

        Raises:
            UsageError: the text has another form.
        """
        identity, slash, target = text.partition("/")
        name, at, version = identity.partition("@")
        parts = [(name, NAME_PATTERN, True), (version, VERSION_PATTERN, bool(at)), (target, NAME_PATTERN, bool(slash))]
        if any(given and re.fullmatch(pattern, part) is None for part, pattern, given in parts):
            raise UsageError(
                f"`{text}` does not name a bundle: expected {FORM}", help="for example bert@1.0.0/cpu, as built"
            )
        return cls(name=name, version=version if at else None, target=target if slash else None)

    def check(self, manifest: Manifest, bundle: Path | str) -> None:
        """Compare the identity that a manifest states with the one that was asked for.

        Args:
            manifest: of the bundle.
            bundle: where the bundle came from, for the message.

        Raises:
            StageError: name, version or target differ.
        """
        wanted = {"name": self.name, "version": self.version, "target": self.target}
        wrong = [
            f"its {key} is {found}, expected {value}"
            for key, value in wanted.items()
            if value is not None and (found := getattr(manifest, key)) != value
        ]
        if wrong:
            raise StageError(
                f"{bundle} is not the bundle that was asked for: {'; '.join(wrong)}",
                help="do not use it under that name; a signature that is right says only who signed this bundle",
            )
