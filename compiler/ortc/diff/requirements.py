"""Packages of a bundle's hash-pinned requirements.txt."""

from __future__ import annotations

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name


def versions(text: str) -> dict[str, str]:
    """Package to pinned version, with its marker where it has one; hashes follow from both."""
    found: dict[str, str] = {}
    for line in text.replace("\\\n", " ").splitlines():
        wanted = line.partition("#")[0].partition(" --hash")[0].strip()
        if not wanted:
            continue
        try:
            requirement = Requirement(wanted)
        except InvalidRequirement:
            # Not a package, such as an option of pip; it is compared as it stands.
            found[wanted] = ""
            continue
        marker = f" ; {requirement.marker}" if requirement.marker else ""
        name = canonicalize_name(requirement.name)
        # The same package may be pinned for several platforms.
        known = f"{found[name]}, " if name in found else ""
        found[name] = f"{known}{str(requirement.specifier).removeprefix('==')}{marker}"
    return found
