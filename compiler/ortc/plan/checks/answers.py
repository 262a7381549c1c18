"""What a bundle answers with, as far as the files of this machine and the spec tell."""

from __future__ import annotations

from collections.abc import Iterator

from ortc.inspection import feature_extractors
from ortc.inspection.classes import CONFIG, activation_of, entailment_of, labels_of
from ortc.inspection.image_processors import IMAGE_PROCESSOR, unreproduced
from ortc.inspection.model_files import (
    UNLISTED_HELP,
    answers_audio,
    answers_image,
    answers_text,
    unlisted_files,
    visible,
)
from ortc.inspection.recipe import RecipeError, read_recipe
from ortc.inspection.repository import Repository
from ortc.inspection.text_length import declared_length
from ortc.plan.texts import CLASSIFIERS
from ortc.spec.deployment import Export
from ortc.spec.diagnostics.diagnostic import Diagnostic, quoted
from ortc.spec.diagnostics.rules import answers as rules
from ortc.spec.interface import TextInterface
from ortc.spec.load import LoadedSpec
from ortc.spec.model_sources import HuggingFaceSource
from ortc.spec.tasks import AUDIO_TASKS, IMAGE_TASKS, SETTINGS, TEXT_TASKS

IDS = "input_ids"
"""The input that holds token ids; the name that transformers gives it."""


ANSWERED = (*TEXT_TASKS, *IMAGE_TASKS, *AUDIO_TASKS)
"""Tasks whose answers a bundle gives."""
_NEEDED = (
    (IMAGE_TASKS, ("images", answers_image, IMAGE_PROCESSOR)),
    (AUDIO_TASKS, ("sounds", answers_audio, "preprocessor_config.json")),
)
"""Tasks with what a request holds, whether a repository has what that needs, and the name of it."""


def check(loaded: LoadedSpec) -> Iterator[Diagnostic]:
    """Report a recipe that cannot be reproduced, files of it that are not listed, and texts that are too long."""
    model = loaded.spec.model
    if not isinstance(model, HuggingFaceSource) or not model.answers:
        return
    repository = visible(model, loaded.root)
    try:
        read_recipe(repository)
        _check_classes(model, repository)
        yield from _unlisted(loaded, model, repository)
        yield from _unused(loaded, model, repository)
        yield from _of_another_task(loaded, model)
        yield from _length(loaded, model, repository)
        yield from _dimensions(loaded, model, repository)
    except RecipeError as error:
        yield Diagnostic(
            rules.RECIPE_UNREPRODUCED,
            f"{quoted(str(model.id or model.path))} cannot be reproduced: {error.message}",
            loaded.document.locate(("model", "id" if model.id is not None else "path")),
            help=error.help,
        )


def _check_classes(model: HuggingFaceSource, repository: Repository) -> None:
    """Check that the classes of a model are those that its task needs, as far as its configuration is here.

    Raises:
        RecipeError: they are not.
    """
    config = repository.mapping(CONFIG)
    if answers_image(model, repository):
        _check_processor(repository)
        if config and model.task == "image-classification":
            activation_of(model.task, config)
            labels_of(config, model.interface)
        if config and model.task in ("object-detection", "semantic-segmentation"):
            labels_of(config, model.interface)
    if answers_audio(model, repository):
        _check_extractor(repository)
        if config and model.task == "audio-classification":
            activation_of(model.task, config)
            labels_of(config, model.interface)
    if not config or not answers_text(model, repository):
        return
    if model.task == "zero-shot-classification":
        entailment_of(config)
    elif model.task in CLASSIFIERS:
        activation_of(model.task, config)
        labels_of(config, model.interface)


def _check_processor(repository: Repository) -> None:
    """Check that an image processor, as far as its configuration is here and names it, is reproduced.

    Raises:
        RecipeError: it is not.
    """
    if (name := unreproduced(repository)) is not None:
        raise RecipeError(IMAGE_PROCESSOR, f"the image processor {name} is not reproduced")


def _check_extractor(repository: Repository) -> None:
    """Check that a feature extractor, as far as its configuration is here and names it, is reproduced.

    Raises:
        RecipeError: it is not.
    """
    if (what := feature_extractors.unreproduced(repository)) is not None:
        raise RecipeError(feature_extractors.EXTRACTOR_FILES[0], f"{what} is not reproduced")


def _of_another_task(loaded: LoadedSpec, model: HuggingFaceSource) -> Iterator[Diagnostic]:
    """Report settings that have an effect with other tasks alone."""
    if not isinstance(model.interface, TextInterface) or model.task not in ANSWERED:
        return
    every: dict[str, tuple[str, ...]] = {"max_length": TEXT_TASKS, "truncation": TEXT_TASKS, **SETTINGS}
    for name in sorted(model.interface.model_fields_set & every.keys()):
        if model.task not in every[name]:
            yield Diagnostic(
                rules.INTERFACE_OF_ANOTHER_TASK,
                f"`{name}` has no effect with the task {quoted(model.task)}",
                loaded.document.locate(("model", "interface", name), key=True),
                help=f"remove it; it is a setting of {', '.join(every[name])}",
            )


def _unlisted(loaded: LoadedSpec, model: HuggingFaceSource, repository: Repository) -> Iterator[Diagnostic]:
    if names := unlisted_files(model, repository):
        yield Diagnostic(
            rules.RECIPE_UNLISTED,
            f"`files` does not list {', '.join(map(quoted, names))}",
            loaded.document.locate(("model", "files"), key=True),
            help=UNLISTED_HELP,
        )


def _unused(loaded: LoadedSpec, model: HuggingFaceSource, repository: Repository) -> Iterator[Diagnostic]:
    """Report settings for texts, images or sounds of a bundle that takes none."""
    if not isinstance(model.interface, TextInterface):
        return
    text = ("texts", answers_text, "tokenizer.json")
    what, has, missing = next((found for tasks, found in _NEEDED if model.task in tasks), text)
    if model.task not in ANSWERED:
        why = f"no answers are made for the task {quoted(model.task)}"
    elif model.files and not has(model, repository):
        why = f"`files` lists no {missing}"
    elif model.path is not None and not has(model, repository):
        why = f"{quoted(model.path)} has no {missing}"
    else:
        return
    yield Diagnostic(
        rules.INTERFACE_UNUSED,
        f"`interface` has settings for {what}, but {why}",
        loaded.document.locate(("model", "interface"), key=True),
        help=f"remove `interface`, or add the model's {missing}",
    )


def _length(loaded: LoadedSpec, model: HuggingFaceSource, repository: Repository) -> Iterator[Diagnostic]:
    """Report a greatest length of texts that is above the bound of the axis of token ids."""
    bound = sequence_bound(loaded.spec.export)
    declared = declared_length(model, repository) if answers_text(model, repository) else None
    if bound is None or declared is None or declared[0] <= bound[1]:
        return
    name, most = bound
    length, place = declared
    at = ("model", "interface", "max_length") if place == "interface.max_length" else ("export", "dynamic_axes", name)
    yield Diagnostic(
        rules.TEXT_LENGTH,
        f"texts may have {length} tokens by {place}, but `{name}` ends at {most}",
        loaded.document.locate(at if name else ("export", "inputs", IDS)),
        help=f"set `model.interface.max_length` to {most} or less, or the bound of the axis to {length} or more",
    )


def _dimensions(loaded: LoadedSpec, model: HuggingFaceSource, repository: Repository) -> Iterator[Diagnostic]:
    """Report sizes of vectors above the size that the model gives, as far as its configuration is here."""
    interface, hidden = model.interface, repository.mapping(CONFIG).get("hidden_size")
    if not isinstance(interface, TextInterface) or not interface.dimensions or model.task not in SETTINGS["dimensions"]:
        return
    if not answers_text(model, repository) or type(hidden) is not int:
        return
    recipe = read_recipe(repository)
    size = hidden if recipe is None else recipe.size(hidden, pooling=interface.pooling)
    for place, wanted in enumerate(interface.dimensions):
        if wanted > size:
            yield Diagnostic(
                rules.INTERFACE_DIMENSIONS,
                f"vectors of {size} numbers are to be cut to {wanted}",
                loaded.document.locate(("model", "interface", "dimensions", place)),
                help=f"name sizes of {size} or less",
            )


def sequence_bound(export: Export) -> tuple[str, int] | None:
    """Return the axis of token ids and its greatest size; an empty name for a fixed size, None without such an input.

    Inputs that are still to be derived have the axis `sequence`.
    """
    last: str | int = "sequence"
    if export.inputs is not None:
        if IDS not in export.inputs or not export.inputs[IDS].shape:
            return None
        last = export.inputs[IDS].shape[-1]
    if isinstance(last, int):
        return "", last
    return (last, export.dynamic_axes[last].max) if last in export.dynamic_axes else None
