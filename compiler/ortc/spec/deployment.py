"""The spec language, `ortc/v1alpha1`: what a user writes, as frozen models and nothing else.

Defaults that depend on the target profile stay `None` here; `ortc.plan.resolve` fills them in.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from ortc.common.units import Duration, Share
from ortc.spec.accuracy import Accuracy
from ortc.spec.budgets import Budgets
from ortc.spec.model_sources import ModelSource
from ortc.spec.relations import checked_relation
from ortc.spec.vocabulary import (
    DEFAULT_OPSET,
    FROM_ENVIRONMENT,
    LEAST_OPSET,
    MAX_AXES,
    MAX_SIZE,
    Allowance,
    AxisName,
    DType,
    Exporter,
    Model,
    Name,
    Objective,
    Platform,
    Precision,
    RelativePath,
    Text,
    Version,
    required,
)


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
    equals: Annotated[str, AfterValidator(checked_relation)] | None = Field(
        default=None,
        description="A sum of other axes and sizes that the size always is, for an ONNX file whose sizes belong "
        "together. The bounds are the sums of theirs.",
        examples=["past + sequence", "past + 1"],
    )


class InputSpec(Model):
    """One input tensor of the model."""

    dtype: DType = Field(description="Type of its elements.")
    shape: tuple[AxisName | Annotated[int, Field(ge=1, le=MAX_SIZE)], ...] = Field(
        description="Names of dynamic axes, or fixed sizes.", examples=[["batch", "sequence"], ["batch", 3, 224, 224]]
    )
    range: tuple[int | float, int | float] | None = Field(
        default=None, description="Least and greatest value, included.", examples=[[0, 30521]]
    )
    fill: int | float | None = Field(default=None, description="A constant for synthetic samples, e.g. 1 for a mask.")
    examples: tuple[Text | tuple[Text, ...], ...] | None = Field(
        default=None,
        min_length=1,
        max_length=1024,
        description="Strings that synthetic samples of a string input are drawn from; of several columns a list with "
        "one string per column. Other strings are answered, too.",
        examples=[["a good film", "a bad film"]],
    )


class MaskSpec(Model):
    """The input that says which positions of a row are padding."""

    input: str = Field(description="Its name in `export.inputs`.")
    padded: bool = Field(
        default=False, description="Whether 1 marks padding, as PyTorch's `key_padding_mask`; else 1 marks the others."
    )


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
    mask: MaskSpec | None = Field(
        default=None,
        description="The padding mask, where it has another name than `attention_mask` or the opposite meaning.",
        examples=[{"input": "pad", "padded": True}],
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


class LatencyBudget(Model):
    """Upper bounds of latency percentiles at one shape."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [required("p50"), required("p90"), required("p99")]})

    p50: Duration | None = Field(default=None, description="Most that half of the requests may take.")
    p90: Duration | None = Field(default=None, description="Most that 90 % of the requests may take.")
    p99: Duration | None = Field(default=None, description="Most that 99 % of the requests may take.")
    at: dict[AxisName, Annotated[int, Field(ge=1, le=MAX_SIZE)]] = Field(
        default_factory=dict,
        description="The shape to measure at; an axis left out is at its typical size.",
        examples=[{"batch": 1, "sequence": 128}],
    )

    @model_validator(mode="after")
    def _some_percentile(self) -> "LatencyBudget":
        if self.p50 is None and self.p90 is None and self.p99 is None:
            raise ValueError("give at least one of `p50`, `p90`, `p99`")
        return self


class Target(Budgets):
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
        json_schema_extra=FROM_ENVIRONMENT,
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
