"""OCI image layouts of bundles: a model artifact as CNCF ModelPack describes it, and a modelcar, an image of files.

Both share their layers. skopeo copies either to a registry, by its reference in index.json.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ortc.bundle.delivery.archive import write_tar
from ortc.bundle.delivery.base_image import BaseImage
from ortc.bundle.manifest import Manifest
from ortc.common.values import Frozen
from ortc.execution.worker import is_script

MODELS = "models"
"""Where a modelcar has its files: KServe looks below /models."""
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_ARTIFACT = "application/vnd.cncf.model.manifest.v1+json"
_MODEL_CONFIG = "application/vnd.cncf.model.config.v1+json"
_WEIGHTS = "application/vnd.cncf.model.weight.v1.tar"
_CODE = "application/vnd.cncf.model.code.v1.tar"
_TITLE = "org.opencontainers.image.title"


class Image(Frozen):
    """A manifest of a layout: its reference there, and its digest."""

    reference: str
    kind: str
    digest: str


def write_layout(
    place: Path, bundle: Path, manifest: Manifest, files: Iterable[str], *, base: BaseImage | None = None
) -> tuple[Image, ...]:
    """Write a layout into an empty directory.

    Args:
        place: where to.
        bundle: the bundle's directory.
        manifest: of the bundle.
        files: paths of the bundle's files.
        base: an image that the modelcar's layers are put upon: one with a shell, for KServe's sidecar.

    Raises:
        UsageError: the base is for another platform, or one of its layers is not as stated.
    """
    blobs = _Blobs(place)
    weights = [path for path in files if path.startswith("model/")]
    others = [path for path in files if not path.startswith("model/")]
    # The weights apart and last: what changes above them does not push them again.
    layers = [blobs.tar(bundle, paths, manifest.stamp) for paths in (others, weights)]
    created = datetime.fromtimestamp(manifest.stamp, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    tag = f"{manifest.version}-{manifest.target}".replace("+", "_")
    annotations = {
        "org.opencontainers.image.created": created,
        _TITLE: f"{manifest.name} {manifest.version} for {manifest.target}",
        "org.opencontainers.image.version": manifest.version,
        "ortc.target": manifest.target,
    }
    model_config = _model_config(manifest, created, [layer["digest"] for layer in layers])
    entries = [(tag, "model artifact", _artifact(blobs, layers, model_config, annotations))]
    # No server in a container reads what is for browsers or Node: the artifact has its files.
    for platform in () if is_script(bundle) else manifest.platforms:
        suffix = f"-{platform.rpartition('/')[2]}" if len(manifest.platforms) > 1 else ""
        entries.append(
            (
                f"{tag}-modelcar{suffix}",
                f"modelcar for {platform}",
                _modelcar(blobs, platform, layers, created, annotations, base),
            )
        )
    index = {
        "schemaVersion": 2,
        "mediaType": _INDEX,
        "manifests": [
            {**entry, "annotations": {"org.opencontainers.image.ref.name": reference}}
            for reference, _, entry in entries
        ],
    }
    (place / "index.json").write_bytes(_canonical(index))
    (place / "oci-layout").write_bytes(_canonical({"imageLayoutVersion": "1.0.0"}))
    return tuple(Image(reference=name, kind=kind, digest=str(entry["digest"])) for name, kind, entry in entries)


def _artifact(
    blobs: _Blobs, layers: list[dict[str, Any]], model_config: dict[str, Any], annotations: dict[str, str]
) -> dict[str, Any]:
    """The descriptor of the model artifact, whose manifest was written: code and weights as layers of their own."""
    document = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "artifactType": _ARTIFACT,
        "config": blobs.json(model_config, _MODEL_CONFIG),
        "layers": [
            {**layer, "mediaType": kind, "annotations": {"org.cncf.model.filepath": path}}
            for layer, kind, path in zip(layers, (_CODE, _WEIGHTS), (MODELS, f"{MODELS}/model"), strict=True)
        ],
        "annotations": annotations,
    }
    return {**blobs.json(document, _MANIFEST), "artifactType": _ARTIFACT}


class _Blobs:
    """The blobs of a layout."""

    def __init__(self, place: Path) -> None:
        self.directory = place / "blobs" / "sha256"
        self.directory.mkdir(parents=True)

    def tar(self, bundle: Path, paths: list[str], stamp: int) -> dict[str, Any]:
        """A layer; uncompressed, so that its digest is its diff ID, too."""
        fresh = self.directory / ".layer"
        with fresh.open("wb") as stream:
            sha256, size = write_tar(stream, {path: bundle / path for path in paths}, prefix=MODELS, stamp=stamp)
        fresh.replace(self.directory / sha256)
        return {"mediaType": _LAYER, "digest": f"sha256:{sha256}", "size": size}

    def json(self, document: dict[str, Any], media_type: str) -> dict[str, Any]:
        """The descriptor of a JSON document that was written."""
        content = _canonical(document)
        sha256 = hashlib.sha256(content).hexdigest()
        (self.directory / sha256).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{sha256}", "size": len(content)}


def _model_config(manifest: Manifest, created: str, layers: list[str]) -> dict[str, Any]:
    revision = {"revision": manifest.provenance.revision} if manifest.provenance.revision else {}
    return {
        "descriptor": {
            "createdAt": created,
            "name": manifest.name,
            "version": manifest.version,
            "title": f"{manifest.name} for {manifest.target}",
            **revision,
        },
        "config": {"format": "onnx", "precision": manifest.variant.precision},
        "modelfs": {"type": "layers", "diffIds": layers},
    }


def _modelcar(
    blobs: _Blobs,
    platform: str,
    layers: list[dict[str, Any]],
    created: str,
    annotations: dict[str, str],
    base: BaseImage | None,
) -> dict[str, Any]:
    system, _, architecture = platform.partition("/")
    config: dict[str, Any] = {"created": created, "architecture": architecture, "os": system, "config": {}}
    below: list[dict[str, Any]] = []
    diff_ids: list[str] = []
    if base is not None:
        base.expect(platform)
        for layer in base.layers:
            base.copy_layer(layer, blobs.directory)
        below = [layer.model_dump(by_alias=True) for layer in base.layers]
        config["config"] = base.config
        diff_ids = list(base.diff_ids)
    config["rootfs"] = {"type": "layers", "diff_ids": [*diff_ids, *(layer["digest"] for layer in layers)]}
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": blobs.json(config, _CONFIG),
        "layers": [*below, *layers],
        "annotations": annotations,
    }
    return {**blobs.json(manifest, _MANIFEST), "platform": {"os": system, "architecture": architecture}}


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
