"""Models that `transformers` knows."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ortc.common.errors import StageError
from ortc.frontend.reference import adapter
from ortc.frontend.reference.binding import IN_ORDER
from ortc.frontend.reference.checkpoint import (
    check_architectures,
    lost,
    other_head,
    raw_config,
    refuse_missing,
    refuse_needed,
)
from ortc.frontend.reference.derive import OPTIONAL_MASKS, Processing, candidates, left_out, processing
from ortc.frontend.reference.model import ForwardError, Reference, example_inputs, finish
from ortc.frontend.reference.tail import build_activation, build_tail, steps_of
from ortc.inspection.classes import activation_of
from ortc.inspection.model_files import answers_audio, answers_image, answers_text, refuse
from ortc.inspection.positions import position_limit
from ortc.inspection.recipe import read_recipe
from ortc.inspection.repository import ADAPTER_PLACE, Repository, of_directories
from ortc.plan.masks import ATTENTION_MASK as MASK
from ortc.plan.plan import ExportPlan, InputPlan
from ortc.plan.processing import BOXES, EMBEDDING, LOGITS, PROBABILITIES
from ortc.plan.texts import CLASSIFIERS, HIDDEN
from ortc.spec.model_sources import HuggingFaceSource
from ortc.spec.tasks import TASKS

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Tail:
    """A module that follows one output of a model and gives another; `keeps` are outputs that stay by default."""

    source: str
    output: str
    module: torch.nn.Module
    keeps: tuple[str, ...] = ()


def load(source: HuggingFaceSource, directory: Path, export: ExportPlan) -> Reference:
    """Load the model of a directory with its head, and derive the inputs that the spec leaves open.

    Raises:
        StageError: unknown task or architecture, missing weights, or an input that the model does not take.
    """
    import transformers

    if source.task not in TASKS:
        raise StageError(
            f"unknown task `{source.task}`", help=f"`model.task` can be any of: {', '.join(sorted(TASKS))}"
        )
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    repository = of_directories((directory,), source.files)
    refuse(source, repository, repository.names)
    written = raw_config(directory)
    model, missing, left = _loaded(source, directory, written)
    model.eval()
    if model._can_set_experts_implementation():
        # Experts one after the other depend on who is asked; grouped products have no form in ONNX; batched ones have.
        model.set_experts_implementation("batched_mm")
    # Half-precision checkpoints: the reference is fp32, as every promise of the spec is stated against it.
    model.float()
    if source.adapter is not None:
        model = adapter.merge(model, directory / ADAPTER_PLACE)
    for config in {id(config): config for config in (model.config, model.config.get_text_config())}.values():
        if hasattr(config, "use_cache"):
            config.use_cache = False
    _check_positions(model.config, export)
    tail = _tail(source, repository, directory)
    if export.inputs is None:
        reference = _derived(model, source.task, export, processing(repository), tail)
    else:
        _check_inputs(model, export.inputs)
        reference = _finish(model, export.inputs, export, tail)
    refuse_needed(reference, model, missing, export)
    return replace(
        reference,
        parts_left_out=(*other_head(written, model), *left),
        inputs_left_out=left_out(model, reference.inputs),
    )


def _tail(source: HuggingFaceSource, repository: Repository, directory: Path) -> Tail | None:
    """What follows the model's outputs by the repository's recipe and the spec; None for nothing.

    Raises:
        StageError: a part of it cannot be reproduced.
    """
    if not source.answers:
        return None
    if _is_classifier(source, repository):
        function = activation_of(source.task, repository.mapping("config.json"))
        return None if function == "none" else Tail(LOGITS, PROBABILITIES, build_activation(function), keeps=(LOGITS,))
    if source.task == "object-detection" and answers_image(source, repository):
        return Tail(LOGITS, PROBABILITIES, build_activation("softmax"), keeps=(LOGITS, BOXES))
    recipe = read_recipe(repository)
    steps = steps_of(recipe, source.interface)
    if not steps:
        return None
    if source.task != "feature-extraction":
        raise StageError(
            f"`modules.json` puts a pooling after the model, and `model.task` is `{source.task}`",
            help="write `task: feature-extraction` for the embeddings, or `interface: tensors` for the head alone",
        )
    return Tail(HIDDEN, EMBEDDING, build_tail(steps, directory, random=source.weights == "random"))


def _is_classifier(source: HuggingFaceSource, repository: Repository) -> bool:
    """Whether a bundle answers with the classes of its requests."""
    return (
        (source.task in CLASSIFIERS and answers_text(source, repository))
        or (source.task == "image-classification" and answers_image(source, repository))
        or (source.task == "audio-classification" and answers_audio(source, repository))
    )


def _loaded(
    source: HuggingFaceSource, directory: Path, written: Mapping[str, Any]
) -> tuple[Any, tuple[str, ...], tuple[str, ...]]:
    """The model, the weights that it lacks and may not need, and the trained ones that it does not load.

    Raises:
        StageError: transformers cannot load it, or would load something else than the repository's model.
    """
    import transformers

    auto = getattr(transformers, TASKS[source.task])
    try:
        config = transformers.AutoConfig.from_pretrained(directory, trust_remote_code=False)
        # What an adapter was trained with whole, a new head above all, comes from its file.
        given = {} if source.adapter is None else adapter.trained_names(directory / ADAPTER_PLACE)
        if source.adapter is not None and (count := adapter.class_count(directory / ADAPTER_PLACE)) is not None:
            config.num_labels = count
        check_architectures(written, type(config))
        if config.architectures is None:
            # transformers looks into the list where a task has more than one class for an architecture.
            config.architectures = []
        # Scaled-dot-product attention exports guards for fully masked rows in every layer; the eager form is the same
        # arithmetic, and faster in ONNX Runtime.
        if source.weights == "random":
            return (
                auto.from_config(config, attn_implementation=_attention(auto, config), trust_remote_code=False),
                (),
                (),
            )
        model, report = _pretrained(auto, config, directory)
        lacked = [*report["missing_keys"], *map(str, report.get("mismatched_keys", ()))]
        missing = refuse_missing([name for name in lacked if name not in given])
        return model, missing, lost(source, directory, written, model, report["unexpected_keys"])
    except StageError:
        raise
    except Exception as error:
        # The code of any architecture, over any configuration.
        raise StageError(
            f"transformers cannot load the model: {type(error).__name__}: {_first_line(error)}",
            help="check config.json, and that the architecture has a head for `model.task`",
        ) from error


def _attention(auto: Any, config: Any) -> str | None:
    # Architectures without switchable attention (convolutional ones) refuse the argument's value, not the argument.
    model_class = auto._model_mapping.get(type(config), None)
    model_class = model_class[0] if isinstance(model_class, tuple) else model_class
    return "eager" if model_class is None or getattr(model_class, "_supports_sdpa", False) else None


def _pretrained(auto: Any, config: Any, directory: Path) -> tuple[Any, Mapping[str, Any]]:
    model, report = auto.from_pretrained(
        directory,
        config=config,
        attn_implementation=_attention(auto, config),
        trust_remote_code=False,
        local_files_only=True,
        weights_only=True,
        output_loading_info=True,
    )
    return model, report


def _derived(model: Any, task: str, export: ExportPlan, said: Processing, tail: Tail | None) -> Reference:
    """The model with the first of the inputs that it may take with which it runs.

    Raises:
        StageError: it runs with none of them, or an axis that it needs is not declared.
    """
    *others, last = candidates(model, task, export, said)
    for inputs in others:
        with contextlib.suppress(ForwardError):
            return _needed(model, inputs, export, tail)
    # Of several ways to call a model, the last has all that it could need: its failure tells the most.
    return _needed(model, last, export, tail)


def _needed(model: Any, inputs: tuple[InputPlan, ...], export: ExportPlan, tail: Tail | None) -> Reference:
    """The model with those of the inputs that it reads: a mask of sound or of images changes no answer of some.

    Raises:
        StageError: it does not run with them.
    """
    import torch

    reference = _finish(model, inputs, export, tail)
    if inputs[0].name == "input_ids" or not any(tensor.name in OPTIONAL_MASKS for tensor in inputs):
        return reference
    arguments = example_inputs(inputs, export)
    expected = reference.module(*arguments)
    unread = set()
    for index, tensor in enumerate(inputs):
        if tensor.name in OPTIONAL_MASKS:
            shorter = arguments[index].clone()
            shorter[..., -(-shorter.shape[-1] // 2) :] = 0
            found = reference.module(*arguments[:index], shorter, *arguments[index + 1 :])
            if all(torch.equal(left, right) for left, right in zip(expected, found, strict=True)):
                unread.add(tensor.name)
    read = tuple(tensor for tensor in inputs if tensor.name not in unread)
    return _finish(model, read, export, tail) if unread else reference


def _check_inputs(model: Any, inputs: tuple[InputPlan, ...]) -> None:
    accepted = inspect.signature(model.forward).parameters
    for tensor in inputs:
        if tensor.name not in accepted:
            raise StageError(
                f"{type(model).__name__}.forward() takes no input `{tensor.name}`",
                help=f"it takes: {', '.join(name for name in accepted if name not in {'self', 'kwargs'})}",
            )


def _check_positions(config: Any, export: ExportPlan) -> None:
    limit = position_limit(config.to_dict())
    longest = next((axis.max for axis in export.axes if axis.name == "sequence"), None)
    if limit is not None and longest is not None and longest > limit:
        raise StageError(
            f"`sequence` goes to {longest}, but the model has {limit} positions",
            help=f"set `export.dynamic_axes.sequence.max` to {limit} or less",
        )


def _finish(model: Any, inputs: tuple[InputPlan, ...], export: ExportPlan, tail: Tail | None) -> Reference:
    names = tuple(tensor.name for tensor in inputs)
    if tail is None:
        return finish(_ordered(model, names), inputs, export, binding=IN_ORDER)
    if tail.output == EMBEDDING and MASK not in names and MASK in inspect.signature(model.forward).parameters:
        raise StageError(
            f"the pooling of modules.json reads `{MASK}`, which `export.inputs` does not declare",
            help=f"add `{MASK}: {{dtype: int64, shape: [batch, sequence], fill: 1}}`, or write `interface: tensors`",
        )
    # A spec that lists outputs keeps them, and gains the answer's.
    kept = tail.keeps if export.outputs is None else export.outputs
    wanted = (*kept, *(() if tail.output in kept else (tail.output,)))
    export = export.model_copy(update={"outputs": wanted})
    return finish(_ordered(_followed(model, tail), names), inputs, export, binding=IN_ORDER)


def _followed(model: Any, tail: Tail) -> torch.nn.Module:
    """The model with the answer's tensor beside its outputs."""
    import torch

    class Followed(torch.nn.Module):
        """The model and what follows one of its outputs."""

        def __init__(self) -> None:
            super().__init__()
            self.model, self.tail = model, tail.module

        def forward(self, **inputs: torch.Tensor) -> Any:
            found = dict(self.model(**inputs))
            if (value := found.get(tail.source)) is None:
                raise ValueError(f"the model gives no `{tail.source}`, which the answer is made of")
            if tail.source == LOGITS:
                return {**found, tail.output: self.tail(value)}
            mask = inputs.get(MASK)
            whole = torch.ones(value.shape[:2], dtype=torch.int64) if mask is None else mask
            return {**found, tail.output: self.tail(value, whole)}

    return Followed()


def _ordered(model: Any, names: tuple[str, ...]) -> torch.nn.Module:
    import torch

    class Ordered(torch.nn.Module):
        """The model with its inputs in the order of the spec."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> Any:
            return self.model(**dict(zip(names, inputs, strict=True)), return_dict=True)

    return Ordered()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
