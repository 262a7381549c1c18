"""The bundle's own files as typed models: manifest.json and session.json. docs/bundle.md is their reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    Field,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from ortc.common.errors import StageError
from ortc.common.plain_files import read_plain
from ortc.common.texts import Cleaned, Inner, Label, Line
from ortc.common.values import Count, Frozen, Sparse
from ortc.inspection.repository import ADAPTER_PLACE
from ortc.plan.plan import AxisPlan, PositiveSize
from ortc.spec.budgets import Budgets
from ortc.spec.relations import Relation
from ortc.spec.vocabulary import MAX_SIZE, Name, Sha256, Version

FORMAT_VERSION = 1
KIND = "ortc-bundle"
STAMP = 315532800
"""Modification time of every published file unless SOURCE_DATE_EPOCH says otherwise: 1980-01-01, the zip epoch."""

LAST_STAMP = 253402300799
"""The last second that dates have words for, at the end of the year 9999."""

MAX_DETAILS = 10
MEASUREMENTS = "measurements"
ATTESTATIONS = "attestations"
COMPANIONS = (MEASUREMENTS, ATTESTATIONS)
"""Directories of a bundle whose files may join it after it was published; SHA256SUMS does not list them."""

PROVENANCE = "attestations/provenance.intoto.json"


_Document = TypeVar("_Document", bound=Frozen)
Stamp = Annotated[int, Field(ge=0, le=LAST_STAMP)]
PlatformName = Annotated[str, Field(pattern=r"^[a-z0-9]{1,32}/[a-z0-9_]{1,32}(/[a-z0-9]{1,32})?$")]
"""An operating system and an architecture, as container images spell them: `linux/amd64`."""
Size = Annotated[int, Field(ge=0, le=MAX_SIZE)]


class ModelInfo(Frozen):
    """The graph that is served."""

    file: Label
    bytes: Count
    opset: Size
    ir_version: Size
    domains: dict[Cleaned, Size]
    operators: dict[Cleaned, Count] = Field(
        default_factory=dict, description="Operators of the graph, with their domain where it is not ONNX's, to nodes."
    )
    exporter: Label
    exporter_reason: Cleaned | None


class InputInfo(Sparse):
    """An input with its bounds; `end` is a token that every row of token ids has once, before its padding."""

    optional: ClassVar[frozenset[str]] = frozenset(("end",))
    name: Line
    dtype: Label
    shape: tuple[Label | Size, ...]
    range: tuple[int | float, int | float] | None
    end: Count | None = None


class OutputInfo(Sparse):
    """An output; None where only a run tells the size.

    `labels` are the names of classes: of the last dimension of scores, or of the numbers in a tensor of whole numbers.
    """

    optional: ClassVar[frozenset[str]] = frozenset(("labels",))
    name: Line
    dtype: Label
    shape: tuple[Label | Size | None, ...]
    labels: tuple[Cleaned, ...] | None = None


class AxisInfo(Sparse):
    """A dynamic axis; sizes are multiples of `multiple_of`, and always the sum that `equals` says, if it says one."""

    optional: ClassVar[frozenset[str]] = frozenset(("equals",))
    name: Label
    min: PositiveSize
    typical: PositiveSize
    max: PositiveSize
    multiple_of: PositiveSize = 1
    equals: Relation | None = None

    @classmethod
    def of(cls, axis: AxisPlan) -> AxisInfo:
        """The same axis as the plan has it."""
        return cls.model_validate(axis.model_dump())


class RuntimeInfo(Frozen):
    """What must be installed."""

    package: Label
    version: Label
    minimum_version: Label
    python: tuple[Label, ...]
    loader_bytes: dict[Label, Count] = Field(
        default_factory=dict, description="Of the wheels that the loader needs, as they are downloaded, by platform."
    )


class VariantInfo(Frozen):
    """The variant that was chosen."""

    name: Label
    precision: Label
    graph_level: Label
    tuning: Cleaned | None
    batch_invariant: bool | None


class PlacementInfo(Frozen):
    """What may run on the CPU where another provider leads, and what may be copied between host and device.

    `shape_nodes` are names by operator: nodes of the graph that compute nothing but shapes, which no budget counts.
    """

    max_cpu_nodes: Count | None
    max_memcpy_nodes: Count | None = None
    shape_nodes: dict[Cleaned, tuple[str, ...]] = Field(default_factory=dict)


class OutputTolerance(Frozen):
    """How far one golden output may be off at reduced precision: greatest difference, or least share of equal labels.

    From what the build measured of this output and its spread: of rows with one value a cosine tells only the sign.
    Where the output `is_constant`, no cosine and no relative error is judged.
    """

    max_abs: float | None = None
    top1_agreement: float | None = None
    is_constant: bool = False


class Tolerance(Frozen):
    """How far golden outputs may be off; `relative_error` is of outputs with more than 8 values a sample."""

    max_abs: float | None
    cosine: float | None
    relative_error: float | None = None
    outputs: dict[str, OutputTolerance] = Field(
        default_factory=dict, description="Outputs that are also judged by a limit of their own, by name."
    )


class GoldenInfo(Frozen):
    """One golden case; `mask` excludes positions of `masked_outputs`, in old bundles of all that have its shape.

    The mask is not 0 where positions are read, or where they are padding if `mask_is_padding` says so.
    """

    name: Line
    inputs: Inner
    outputs: Inner
    tolerance: Tolerance
    mask: Line | None
    masked_outputs: tuple[Line, ...] | None = None
    mask_is_padding: bool = False


class AnswerTolerance(Frozen):
    """How far golden answers may be off."""

    cosine: float
    f1: float | None = Field(default=None, description="Least F1 of entities or spans; null for other answers.")
    top1: float | None = Field(default=None, description="Least share of equal words or labels; null for others.")
    token_errors: float | None = Field(
        default=None, description="Greatest token error rate of transcripts; null for other answers."
    )
    pixels: float | None = Field(default=None, description="Greatest difference of a pixel; null for other requests.")
    features: float | None = Field(
        default=None, description="Greatest difference of a feature of a sound; null for other requests."
    )


class GoldenAnswers(Frozen):
    """Texts with their token ids, or images and sounds with what they become, and answers."""

    file: Inner
    tolerance: AnswerTolerance


class ProcessingInfo(Frozen):
    """What turns texts, images or sounds into the model's inputs and its outputs into answers.

    docs/answers.md describes the document.
    """

    document: Inner
    takes: Literal["text", "image", "audio"] = "text"
    tokenizer: Inner | None = Field(description="The tokenizer's file; null for a bundle that takes no texts.")
    kind: Label
    golden: GoldenAnswers


class DecisionInfo(Frozen):
    """What became of a variant; without timings, which are in measurements/."""

    variant: Label
    outcome: Label
    reason: Cleaned


class SourceFileInfo(Frozen):
    """A file of the model by its digest."""

    name: Inner
    sha256: Sha256


class Provenance(Frozen):
    """What the bundle was made from, and with.

    `licenses` are those that the spec states, of the `model` and of the `adapter` that was merged into it.
    """

    plan_sha256: Sha256
    source: Cleaned
    revision: Label | None
    files: tuple[SourceFileInfo, ...]
    licenses: dict[Literal["model", "adapter"], Line] = Field(default_factory=dict)
    tools: dict[Label, Cleaned]

    def license_of(self, name: str) -> str | None:
        """The licence of a source file as the spec states it; None where it states none."""
        return self.licenses.get("adapter" if name.startswith(f"{ADAPTER_PLACE}/") else "model")


class FileInfo(Frozen):
    """A file of the bundle."""

    path: Inner
    sha256: Sha256
    bytes: Count


PLACEMENT_KEYS = tuple(key for key in Budgets.model_fields if key in PlacementInfo.model_fields)
"""Budgets that the loader enforces itself, from `placement`."""
PROMISE_KEYS = tuple(key for key in Budgets.model_fields if key not in PLACEMENT_KEYS)


def promise_of(key: str) -> str:
    """Name a budget of a spec as manifests do: `size` for `size_budget`."""
    return key.removesuffix("_budget")


class Promises(Frozen):
    """The budgets of the spec, so that any host can judge the bundle again: seconds, bytes, null for no promise.

    In JSON every limit is a key beside `at` and `latency`.
    """

    at: dict[Label, PositiveSize]
    latency: dict[Label, float]
    limits: dict[Label, int | float]

    @model_validator(mode="before")
    @classmethod
    def _from_keys(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "limits" in data:
            return data
        known = {promise_of(key) for key in PROMISE_KEYS}
        limits = {key: value for key, value in data.items() if key in known and value is not None}
        return {**{key: value for key, value in data.items() if key not in known}, "limits": limits}

    @model_serializer
    def _as_keys(self) -> dict[str, Any]:
        limits = {name: self.limits.get(name) for name in map(promise_of, PROMISE_KEYS)}
        return {"at": self.at, "latency": self.latency, **limits}


class Manifest(Frozen):
    """manifest.json."""

    format_version: int = FORMAT_VERSION
    kind: str = KIND
    name: Name
    version: Version
    target: Name
    platforms: Annotated[tuple[PlatformName, ...], Field(min_length=1)]
    fit_to_serve: bool
    unfit_reason: Cleaned | None
    provisional: bool
    stamp: Stamp
    model: ModelInfo
    inputs: tuple[InputInfo, ...]
    outputs: tuple[OutputInfo, ...]
    axes: tuple[AxisInfo, ...]
    runtime: RuntimeInfo
    variant: VariantInfo
    placement: PlacementInfo
    promises: Promises
    golden: tuple[GoldenInfo, ...]
    warmup: tuple[dict[str, int], ...]
    decisions: tuple[DecisionInfo, ...]
    provenance: Provenance
    interface: Literal["tensors"] | None = Field(
        default=None, description="`tensors` where the spec says that the model's tensors alone are wanted."
    )
    processing: ProcessingInfo | None = Field(
        default=None,
        description="What is around the tensors of a bundle that takes texts or images; null for one of tensors.",
    )
    parts_left_out: tuple[str, ...] = Field(
        default=(), description="Parts of the model's repository that the bundle is without, by the spec's leave."
    )
    inputs_left_out: tuple[str, ...] = Field(
        default=(), description="Optional tensors of the model's forward() that the bundle takes no values for."
    )
    files: tuple[FileInfo, ...]

    @field_validator("axes")
    @classmethod
    def _once(cls, axes: tuple[AxisInfo, ...]) -> tuple[AxisInfo, ...]:
        if len({axis.name for axis in axes}) < len(axes):
            raise ValueError("expected every axis once")
        return axes


def to_json(value: Frozen) -> str:
    """The text of a bundle's JSON file."""
    return json.dumps(value.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"


def read_bundle(bundle: Path) -> Manifest:
    """The manifest of a bundle.

    Raises:
        StageError: the directory is no bundle of this format.
    """
    try:
        content = read_plain(bundle / "manifest.json")
    except FileNotFoundError as error:
        raise StageError(f"{bundle} is no bundle: it has no manifest.json") from error
    except OSError as error:
        raise StageError(f"{bundle} is no bundle that can be read: manifest.json: {error.strerror}") from error
    return parse_manifest(content, f"{bundle}/manifest.json")


def parse_manifest(content: bytes, name: str) -> Manifest:
    """The manifest in the bytes of a file.

    Args:
        content: the file.
        name: of the file, for messages.

    Raises:
        StageError: the bytes are no manifest of this format.
    """
    return parsed(Manifest, content, name)


def parsed(kind: type[_Document], content: bytes, name: str) -> _Document:
    """A document of a bundle from its bytes.

    Args:
        kind: what it is to be.
        content: the file.
        name: of the file, for messages.

    Raises:
        StageError: the bytes are none of this format; the message names the fields.
    """
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        wrong = [
            f"`{'.'.join(map(str, item['loc'])) or 'the document'}`: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        raise StageError(
            f"{name} is not of a format that this ortc reads: {wrong[0]}",
            details=tuple(wrong[1:MAX_DETAILS]),
            help="get the bundle again, or take the ortc that made it",
        ) from error
