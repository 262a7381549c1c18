"""package.json of bundles for Node, which are npm packages."""

from __future__ import annotations

import json
import re

from ortc.bundle.manifest import Manifest
from ortc.execution.node.program import LEAST_NODE

FILE = "package.json"
ENTRY, TYPES = "./runtime/loader.mjs", "./runtime/loader.d.mts"
_SEMANTIC = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-(?!0\d)[0-9A-Za-z-]+(\.(?!0\d)[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z.-]*[0-9A-Za-z-])?"
)
_ARCHITECTURES = {"linux/amd64": "x64", "linux/arm64": "arm64"}


def package_json(manifest: Manifest, description: str) -> str:
    """The file: name, version and entry points, for the platforms of the bundle; it runs no scripts and needs nothing.

    Args:
        manifest: of the bundle.
        description: of the target.
    """
    document = {
        "name": manifest.name,
        "version": semantic(manifest.version),
        "description": description,
        "type": "module",
        "exports": {
            ".": {"types": TYPES, "default": ENTRY},
            "./package.json": f"./{FILE}",
            "./manifest.json": "./manifest.json",
        },
        "types": TYPES,
        "engines": {"node": f">={LEAST_NODE}"},
        "os": ["linux"],
        "cpu": [_ARCHITECTURES[platform] for platform in manifest.platforms],
        "libc": ["glibc"],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def semantic(version: str) -> str:
    """The version itself where npm reads it; else a prerelease of 0.0.0 that names it."""
    if _SEMANTIC.fullmatch(version):
        return version
    return f"0.0.0-v{re.sub(r'[^0-9A-Za-z-]', '-', version)}"
