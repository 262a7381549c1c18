"""The image that a modelcar's layers are put upon: an OCI layout from somebody else, of which nothing is believed.

Every document is typed, every digest is one, and every blob is a plain file of the layout with the digest and the
size that its descriptor states.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from ortc.common.errors import UsageError
from ortc.common.plain_files import open_plain, read_plain
from ortc.common.texts import Label, shown
from ortc.common.units import format_bytes

_CHUNK = 1 << 20
_MOST = 2**63 - 1
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
D = TypeVar("D", bound="_Document")


class _Document(BaseModel):
    """Base of what a layout states; its other fields are not used."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False, populate_by_name=True)


class Descriptor(_Document):
    """A blob of the layout."""

    media_type: Annotated[str, Field(alias="mediaType")]
    digest: Digest
    size: Annotated[int, Field(ge=0, le=_MOST)]

    @property
    def sha256(self) -> str:
        """The digest in hex."""
        return self.digest.partition(":")[2]


class Layer(Descriptor):
    """A layer of the image: a tar, as it is or compressed."""

    media_type: Literal[
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
    ] = Field(alias="mediaType")

    @property
    def compressed(self) -> bool:
        """Whether its digest is not its diff ID."""
        return not self.media_type.endswith("tar")


class _Index(_Document):
    manifests: Annotated[tuple[Descriptor, ...], Field(min_length=1, max_length=1)]


class _Manifest(_Document):
    config: Descriptor
    layers: tuple[Layer, ...]


class _Rootfs(_Document):
    type: Literal["layers"]
    diff_ids: tuple[Digest, ...]


def _is_json(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    # The type lets NaN and the infinities pass, which JSON lacks.
    json.dumps(value, allow_nan=False)
    return value


class _Config(_Document):
    os: Label
    architecture: Label
    config: Annotated[dict[str, JsonValue], AfterValidator(_is_json)] | None = None
    rootfs: _Rootfs


class BaseImage(BaseModel):
    """The only image of a layout, whose documents were read; its layers are compared when they are copied."""

    model_config = ConfigDict(frozen=True)

    layout: Path
    platform: str
    config: dict[str, JsonValue]
    diff_ids: tuple[Digest, ...]
    layers: tuple[Layer, ...]

    @model_validator(mode="after")
    def _one_diff_id_per_layer(self) -> BaseImage:
        if len(self.diff_ids) != len(self.layers):
            raise ValueError(f"it has {len(self.layers)} layers and {len(self.diff_ids)} diff IDs")
        for layer, diff_id in zip(self.layers, self.diff_ids, strict=True):
            if not layer.compressed and layer.digest != diff_id:
                raise ValueError(f"the layer {layer.digest} is not compressed, and its diff ID is {diff_id}")
        return self

    @property
    def bytes(self) -> int:
        """The bytes of its layers."""
        return sum(layer.size for layer in self.layers)

    def expect(self, platform: str) -> None:
        """Check that the image is for a platform.

        Raises:
            UsageError: it is for another one.
        """
        if self.platform != platform:
            raise UsageError(f"the image in {self.layout} is for {self.platform}, the bundle for {platform}")

    def copy_layer(self, layer: Layer, directory: Path) -> None:
        """Copy a layer into a directory of blobs, and compare it with its descriptor on the way.

        Raises:
            UsageError: its blob is missing, is not a plain file, or has another size or digest.
        """
        hashed, left = hashlib.sha256(), layer.size + 1
        try:
            with open_plain(_place(self.layout, layer)) as source, (directory / layer.sha256).open("wb") as target:
                while left > 0 and (chunk := source.read(min(_CHUNK, left))):
                    hashed.update(chunk)
                    target.write(chunk)
                    left -= len(chunk)
        except _LayoutError as error:
            raise _refusal(self.layout, str(error)) from error
        if left != 1 or hashed.hexdigest() != layer.sha256:
            raise _refusal(self.layout, _differs(layer))


class _LayoutError(ValueError):
    """Something in a layout is not as its format asks for."""


def read_base(layout: Path) -> BaseImage:
    """Read the documents of a layout of one image, and look for its layers.

    Args:
        layout: the directory.

    Raises:
        UsageError: it is not a layout of one image, or a blob is missing, a link, or of another size or digest.
    """
    try:
        _expect_no_link(layout, "index.json")
        index = _parse(_Index, read_plain(layout / "index.json"), "index.json")
        manifest = _document(_Manifest, layout, index.manifests[0])
        config = _document(_Config, layout, manifest.config)
        for layer in manifest.layers:
            if _place(layout, layer).stat().st_size != layer.size:
                raise _LayoutError(_differs(layer))
        return BaseImage(
            layout=layout,
            platform=f"{config.os}/{config.architecture}",
            config=config.config or {},
            diff_ids=config.rootfs.diff_ids,
            layers=manifest.layers,
        )
    except ValidationError as error:
        raise _refusal(layout, _first(error)) from error
    except OSError as error:
        name = "" if error.filename is None else f"{Path(error.filename).name}: "
        raise _refusal(layout, f"{name}{error.strerror or error}") from error
    except _LayoutError as error:
        raise _refusal(layout, str(error)) from error


def _document(kind: type[D], layout: Path, descriptor: Descriptor) -> D:
    content = read_plain(_place(layout, descriptor))
    if len(content) != descriptor.size or hashlib.sha256(content).hexdigest() != descriptor.sha256:
        raise _LayoutError(_differs(descriptor))
    return _parse(kind, content, descriptor.digest)


def _parse(kind: type[D], content: bytes, name: str) -> D:
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise _LayoutError(f"{name}: {_first(error)}") from error


def _place(layout: Path, descriptor: Descriptor) -> Path:
    """Where a blob is, after no step to it was found to be a link."""
    return _expect_no_link(layout, "blobs", "sha256", descriptor.sha256)


def _expect_no_link(layout: Path, *steps: str) -> Path:
    place = layout
    for step in steps:
        place /= step
        if place.is_symlink():
            raise _LayoutError(f"{place.relative_to(layout)} is a link, which may lead out of the layout")
    return place


def _differs(descriptor: Descriptor) -> str:
    return f"the blob {descriptor.digest} does not have this digest and {format_bytes(descriptor.size)}"


def _first(error: ValidationError) -> str:
    (item, *_) = error.errors(include_url=False, include_context=False, include_input=False)
    place = ".".join(map(str, item["loc"]))
    message = item["msg"].removeprefix("Value error, ")
    return shown(f"`{place}`: {message}" if place else message, 200)


def _refusal(layout: Path, reason: str) -> UsageError:
    return UsageError(
        f"{layout} is no OCI layout of one image: {reason}",
        help="make one with `skopeo copy docker://IMAGE oci:DIRECTORY`",
    )
