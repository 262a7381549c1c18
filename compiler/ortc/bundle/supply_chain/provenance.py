"""attestations/provenance.intoto.json: how a bundle was made, as an in-toto statement with SLSA's provenance."""

from __future__ import annotations

import json
from typing import Any

from ortc import __version__
from ortc.bundle.manifest import FileInfo, Manifest

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:ortc:build:v1alpha1"
"""What the parameters of the predicate mean: docs/supply-chain.md says it."""


def provenance(manifest: Manifest, files: tuple[FileInfo, ...]) -> str:
    """The statement about a sealed bundle. It has no times and no machine: equal inputs give equal bytes.

    Args:
        manifest: of the bundle.
        files: every file of it, the manifest and SHA256SUMS included.
    """
    made = manifest.provenance
    statement: dict[str, Any] = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": file.path, "digest": {"sha256": file.sha256}} for file in files],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "name": manifest.name,
                    "version": manifest.version,
                    "target": manifest.target,
                    "source": made.source,
                    "revision": made.revision,
                },
                "internalParameters": {
                    "plan_sha256": made.plan_sha256,
                    "variant": manifest.variant.model_dump(mode="json"),
                    "tools": made.tools,
                },
                "resolvedDependencies": [{"name": file.name, "digest": {"sha256": file.sha256}} for file in made.files],
            },
            "runDetails": {"builder": {"id": "urn:ortc:compiler", "version": {"ortc": __version__}}},
        },
    }
    return json.dumps(statement, indent=1, ensure_ascii=False) + "\n"
