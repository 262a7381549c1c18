"""Words of the spec language: forms of names and digests, kinds of values, and the base of its models."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from ortc.common.texts import Line

APIVERSION_PATTERN = "ortc/v1alpha1"

# fmt: off
DType = Literal[
    "float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool",
    "string",
]
# fmt: on
STRING: DType = "string"
"""The type of tensors of text, which bundles take and do not give."""
Precision = Literal["fp32", "fp16", "bf16", "int8", "auto"]
Objective = Literal["latency", "balanced", "throughput", "size"]
Exporter = Literal["auto", "dynamo", "torchscript"]
Allowance = Literal["fail", "allow"]
Platform = Literal["linux/amd64", "linux/arm64", "web/wasm"]
WEB = "web/wasm"
"""The platform of browsers, whatever machine they run on: WebAssembly with SIMD, and with threads where a page may."""

DEFAULT_OPSET = 20
"""Opset of models that ortc exports."""
LEAST_OPSET = 9
"""Least opset that a bundle ships: ONNX files with a lower one are converted."""
LEAST_INT8_OPSET = 13
"""From here on DequantizeLinear takes a scale for each channel."""
MAX_SIZE = 2**31 - 1
"""Greatest size of an axis: more than any tensor's dimension, and few enough to compute with."""
MAX_THREADS = 4096
"""Most threads of one operator, or operators at once: more than any machine has cores."""
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

ENVIRONMENT = "x-environment"
"""Mark of the fields whose text may hold `${env:NAME}`."""
FROM_ENVIRONMENT: JsonDict = {ENVIRONMENT: True}
"""JSON Schema that puts the mark on a field."""


def _as_utf8(text: str) -> str:
    if "\0" in text or any("\ud800" <= sign <= "\udfff" for sign in text):
        raise ValueError("expected Unicode without NUL characters and lone surrogates")
    return text


Name = Annotated[str, Field(pattern=NAME_PATTERN, examples=["bert"])]
Version = Annotated[str, Field(pattern=VERSION_PATTERN, examples=["1.0.0"])]
AxisName = Annotated[str, Field(pattern=_AXIS)]
Sha256 = Annotated[str, Field(pattern=_SHA256)]
Entrypoint = Annotated[str, Field(pattern=_ENTRYPOINT, examples=["package.module:function"])]
RelativePath = Line
Text = Annotated[str, Field(max_length=10_000), AfterValidator(_as_utf8)]
"""An example of a string input."""


def _inside(name: str) -> str:
    if not name.isprintable() or not name or name.startswith("/") or "\\" in name or ".." in name.split("/"):
        raise ValueError("expected the path of a file inside the model's directory, like `config.json`")
    return name


FileName = Annotated[str, AfterValidator(_inside)]


def required(key: str, kind: str = "string") -> JsonDict:
    """JSON Schema for: the key is there, and not null."""
    return {"required": [key], "properties": {key: {"type": kind}}}


class Model(BaseModel):
    """Base of every spec model: no unknown keys, no coercion, no change after parsing."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True, allow_inf_nan=False)
