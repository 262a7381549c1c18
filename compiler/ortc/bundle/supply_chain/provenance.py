"""attestations/provenance.intoto.json: how a bundle was made, as an in-toto statement with SLSA's provenance."""

from __future__ import annotations

import json
from typing import Any

from pydantic import Field

from ortc import __version__
from ortc.bundle.manifest import FileInfo, Manifest
from ortc.common.values import Frozen

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:ortc:build:v1alpha1"
"""What the parameters of the predicate mean: docs/supply-chain.md says it."""


class Dependency(Frozen):
    """Something that went into a bundle: a name, a role in words, digests by algorithm, and a URI where there is one.

    A digest is missing only of what nobody pinned.
    """

    name: str
    role: str
    digest: dict[str, str]
    uri: str | None = None
    annotations: dict[str, str] = Field(default_factory=dict)

    def descriptor(self) -> dict[str, Any]:
        """The ResourceDescriptor of in-toto."""
        return {
            "name": self.name,
            **({"uri": self.uri} if self.uri is not None else {}),
            **({"digest": self.digest} if self.digest else {}),
            "annotations": {"role": self.role, **self.annotations},
        }


def provenance(
    manifest: Manifest, files: tuple[FileInfo, ...], dependencies: tuple[Dependency, ...] | None = None
) -> str:
    """The statement about a sealed bundle. It has no times and no machine: equal inputs give equal bytes.

    Args:
        manifest: of the bundle.
        files: every file of it, the manifest and SHA256SUMS included.
        dependencies: what went into it; by default the model's files, which the manifest names.
    """
    if dependencies is None:
        dependencies = tuple(
            Dependency(name=file.name, role="model", digest={"sha256": file.sha256})
            for file in manifest.provenance.files
        )
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
                "resolvedDependencies": [dependency.descriptor() for dependency in dependencies],
            },
            "runDetails": {"builder": {"id": "urn:ortc:compiler", "version": {"ortc": __version__}}},
        },
    }
    return json.dumps(statement, indent=1, ensure_ascii=False) + "\n"
