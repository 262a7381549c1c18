"""Target profiles: what a platform is, which variants to try on it and what it promises by default."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ortc.common import texts
from ortc.spec.budgets import Budgets
from ortc.spec.quantization import Quantization
from ortc.spec.vocabulary import MAX_THREADS, WEB, Model, Name, Objective, Platform, Precision, Version

Text = texts.Line | Literal[""]
GraphLevel = Literal["off", "basic", "extended", "layout", "all"]
Fallback = Literal["int8-weights", "fp32"]
Rewrite = Literal["merge-projections", "fuse", "embeddings", "half", "bfloat16"]
SHORT: dict[str, str] = {"half": "fp16", "bfloat16": "bf16"}
"""Precisions of 16 bits, by the rewrite that brings them in."""
Concurrency = Literal["one", "physical"]
RuntimePackage = Literal[
    "onnxruntime", "onnxruntime-gpu", "onnxruntime-node", "onnxruntime-openvino", "onnxruntime-web"
]
NODE: RuntimePackage = "onnxruntime-node"
"""The runtime of bundles that are packages for Node."""


class ExecutionProvider(Model):
    """One execution provider of the chain, with its options as ONNX Runtime takes them: strings."""

    name: texts.Label = Field(description="As ONNX Runtime spells it.", examples=["CUDAExecutionProvider"])
    options: dict[texts.Label, Text] = Field(default_factory=dict, description="Its options; every value is a string.")


class Runtime(Model):
    """The runtime that ships: which package at which version, and the pinned set that installs it."""

    package: RuntimePackage = Field(description="Package that brings ONNX Runtime.")
    version: Version = Field(description="Its exact version.", examples=["1.31.1"])
    pins: texts.Label = Field(description="Name of the pinned set of packages in targets/data/pins.")
    minimum_version: Version = Field(description="Oldest ONNX Runtime the loader accepts.")


class Threads(Model):
    """Thread policy; counts are found on the machine that serves, never on the one that builds."""

    intra_op: Literal["physical"] | Annotated[int, Field(ge=1, le=MAX_THREADS)] = Field(
        default="physical", description="Threads of one operator; `physical` cores, within the container's CPU quota."
    )
    inter_op: int = Field(default=1, ge=1, le=MAX_THREADS, description="Operators that run at once.")


class Session(Model):
    """Session settings of the target; every name is checked against the pinned runtime."""

    options: dict[texts.Label, bool | texts.Label] = Field(
        default_factory=dict,
        description="Attributes of onnxruntime.SessionOptions.",
        examples=[{"enable_mem_pattern": True}],
    )
    config_entries: dict[texts.Label, Text] = Field(
        default_factory=dict,
        description="Session configuration keys; every value is a string.",
        examples=[{"session.intra_op.allow_spinning": "1"}],
    )
    threads: Threads = Field(default_factory=Threads, description="Thread policy.")
    environment: dict[texts.Label, Text] = Field(
        default_factory=dict, description="Environment variables of the image."
    )


class Engine(Model):
    """Another runtime that variants may ship with: the package, its execution providers and its session settings."""

    platforms: tuple[Platform, ...] = Field(min_length=1, description="Platforms that it serves.")
    runtime: Runtime = Field(description="The runtime that ships.")
    execution_providers: tuple[ExecutionProvider, ...] = Field(
        min_length=1, description="Execution providers in order of priority."
    )
    session: Session = Field(default_factory=Session, description="Session settings.")


class Tuning(Model):
    """Session settings that are raced for the variant that won, over the ones that it has."""

    name: Name = Field(description="Name of the settings in reports.")
    objectives: tuple[Objective, ...] = Field(
        default=("latency", "throughput", "size"), min_length=1, description="Objectives that it is tried for."
    )
    concurrency: Concurrency = Field(
        default="one", description="Requests that the server runs at once: one, or as many as there are threads."
    )
    intra_op: Literal["physical"] | Annotated[int, Field(ge=1, le=MAX_THREADS)] | None = Field(
        default=None, description="Threads of one operator."
    )
    options: dict[str, bool | str] = Field(default_factory=dict, description="Attributes of SessionOptions.")
    config_entries: dict[str, str] = Field(default_factory=dict, description="Session configuration keys.")
    quick: bool = Field(default=True, description="Whether a quick search tries them, too.")


class Variant(Model):
    """One way to make the model smaller or faster, tried when the spec's precision allows it."""

    name: Name = Field(description="Name of the variant in reports.")
    precision: Literal["fp32", "fp16", "bf16", "int8"] = Field(description="What it computes in.")
    quantization: Quantization | None = Field(
        default=None, description="How its weights and activations become integers; not at all when not given."
    )
    fallback: tuple[Fallback, ...] = Field(
        default=(),
        description="What nodes are kept in that cost too much accuracy, tried in this order, where a gate of accuracy "
        "fails: of integers the weights alone, or floating point; of 16 bits float32. Left out, the variant loses as a "
        "whole.",
    )
    rewrites: tuple[Rewrite, ...] = Field(default=(), description="Rewrites of the graph, done first.")
    engine: Name | None = Field(default=None, description="One of `engines`; the profile's own runtime when not given.")
    provider_options: dict[str, str] = Field(
        default_factory=dict, description="Options of the first execution provider, over the engine's."
    )
    config_entries: dict[str, str] = Field(
        default_factory=dict, description="Session configuration keys, over the engine's."
    )
    offline: bool = Field(default=True, description="Optimize the graph at build time, and ship it so.")
    quick: bool = Field(default=True, description="Whether a quick search tries it, too.")
    stands_in_for: Name | None = Field(
        default=None, description="A quick search tries it only where this other variant cannot be made."
    )


class Image(Model):
    """What the Dockerfile is rendered from."""

    base_image: texts.Image = Field(
        description="Default of `ARG BASE_IMAGE`: an image with Python, or with pip and Python."
    )
    python: texts.Label = Field(description="Python of the base image, `3.12`.")
    template: texts.Label = Field(default="Dockerfile.j2", description="Template of the Dockerfile.")


class TargetProfile(Model):
    """One YAML file in targets/."""

    api_version: Literal["ortc/v1alpha1"] = Field(alias="apiVersion", description="Version of the profile language.")
    kind: Literal["TargetProfile"] = Field(description="What the file is.")
    name: Name = Field(description="The profile's name, which is its file's, too.")
    description: texts.Line = Field(description="One line for `ortc targets`.")
    platforms: tuple[Platform, ...] = Field(min_length=1, description="Platforms that the profile can serve.")
    default_platforms: tuple[Platform, ...] | None = Field(
        default=None, description="What a spec promises for when it names none; all of `platforms` when not given."
    )
    requires_gpu: bool = Field(default=False, description="Whether it can be measured on a machine with a GPU only.")
    runtime: Runtime = Field(description="The runtime that ships.")
    execution_providers: tuple[ExecutionProvider, ...] = Field(
        min_length=1, description="Execution providers in order of priority."
    )
    session: Session = Field(default_factory=Session, description="Session settings.")
    precision: Precision = Field(description="Default precision of a spec's target.")
    engines: dict[Name, Engine] = Field(
        default_factory=dict, description="Other runtimes, by the name that variants give."
    )
    variants: tuple[Variant, ...] = Field(min_length=1, description="Variants to try.")
    tuning: tuple[Tuning, ...] = Field(default=(), description="Session settings to try on the variant that won.")
    graph_levels: tuple[GraphLevel, ...] = Field(
        min_length=1, description="Tried in this order; a level that breaks parity gives way to the next."
    )
    gates: Budgets = Field(default_factory=Budgets, description="Budgets that hold when the spec sets none.")
    image: Image | None = Field(
        default=None,
        description="What the Dockerfile is rendered from; none for browsers and Node, whose bundles have none.",
    )

    @property
    def is_web(self) -> bool:
        """Whether its bundles run in browsers."""
        return WEB in self.platforms

    @property
    def is_node(self) -> bool:
        """Whether its bundles run in Node."""
        return self.runtime.package == NODE

    @model_validator(mode="after")
    def _images_are_of_containers(self) -> Self:
        platforms = [*self.platforms, *(platform for engine in self.engines.values() for platform in engine.platforms)]
        others = sorted({platform for platform in platforms if platform != WEB})
        if self.is_web and others:
            raise ValueError(f"the profile serves {WEB} and {', '.join(others)}: browsers need a profile of their own")
        if not self.is_web and WEB in platforms:
            raise ValueError(f"an engine serves {WEB}: browsers need a profile of their own")
        if (NODE in {engine.runtime.package for engine in self.engines.values()}) or (self.is_node and self.engines):
            raise ValueError(f"an engine beside another runtime: {NODE} needs a profile of its own, without engines")
        if (self.is_web or self.is_node) and (self.image is not None or self.requires_gpu):
            key = "requires_gpu" if self.image is None else "image"
            raise ValueError(f"a profile for {NODE if self.is_node else WEB} has no `{key}`: remove it")
        if not (self.is_web or self.is_node) and self.image is None:
            raise ValueError("`image` is missing: bundles for containers need the base of their Dockerfile")
        return self

    @model_validator(mode="after")
    def _precisions_are_those_of_the_graphs(self) -> Self:
        for variant in self.variants:
            made = next((SHORT[name] for name in variant.rewrites if name in SHORT), None)
            if made is not None and made != variant.precision:
                raise ValueError(
                    f"`{variant.name}` has precision `{variant.precision}`, and its rewrites make it `{made}`: the one "
                    "for fp16 is `half`, that for bf16 `bfloat16`"
                )
            if variant.fallback and made is None and variant.quantization is None:
                raise ValueError(f"`{variant.name}` has a `fallback`, and neither integers nor a rewrite to 16 bits")
            if made is not None and "int8-weights" in variant.fallback:
                raise ValueError(f"`{variant.name}` has the `fallback` int8-weights, which is for int8; use fp32")
        return self

    @model_validator(mode="after")
    def _stand_ins_are_for_others(self) -> Self:
        for variant in self.variants:
            others = sorted(other.name for other in self.variants if other is not variant)
            if variant.stands_in_for is not None and variant.stands_in_for not in others:
                raise ValueError(
                    f"`{variant.name}` stands in for `{variant.stands_in_for}`, which is no other variant of the "
                    f"profile: {', '.join(others) or 'it has none'}"
                )
        return self
