"""Which bundles take texts, images or sounds, and what their environments hold besides for that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ortc.inspection.classes import CONFIG, activation_of, entailment_of, labels_of
from ortc.inspection.model_files import answers_audio, answers_image, answers_text
from ortc.inspection.recipe import Normalize, RecipeError, read_recipe
from ortc.inspection.repository import Repository, of_directories
from ortc.plan.plan import ExportPlan, Plan, RuntimePlan, TargetPlan
from ortc.plan.processing import (
    BOXES,
    DEPTHS,
    EMBEDDING,
    ENDS,
    LOGITS,
    NEEDS,
    POOLED,
    PROBABILITIES,
    STARTS,
    WEB_KINDS,
    WEB_TEXT,
    AnswerForm,
    Kind,
    Takes,
)
from ortc.spec.interface import TextInterface
from ortc.spec.model_sources import HuggingFaceSource
from ortc.spec.runtimes import pins
from ortc.spec.tasks import SETTINGS

PIXELS, PIXEL_MASK = "pixel_values", "pixel_mask"
"""Inputs that an image gives."""
WAVE = "input_values"
"""The input that a sound gives; `attention_mask` says which of its samples are of the sound."""
HIDDEN = "last_hidden_state"
IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"
CLASSIFIERS = ("text-classification", "text-ranking", "token-classification")
"""Tasks whose scores are an output: logits after softmax or sigmoid."""
THRESHOLD = 0.5
"""Objects have a higher score, as in transformers' object-detection pipeline."""
TOP_K = 5
"""Candidates for a masked place, unless the spec says how many."""
HYPOTHESIS = "This example is {}."
"""The hypothesis about a label, unless the spec has one."""
TEXT_INPUTS = frozenset((IDS, MASK, TYPES))
"""Inputs that a text gives."""


def answer_form(source: object, export: ExportPlan, repository: Repository) -> AnswerForm | None:
    """Return how a bundle answers texts, images or sounds; None for a bundle of tensors.

    A spec that lists inputs which no request gives, or outputs without the answer's, is one of tensors.

    Args:
        source: of the model.
        export: its inputs and outputs, as the spec lists them.
        repository: the model's files.
    """
    if isinstance(source, HuggingFaceSource) and answers_image(source, repository):
        return _of_images(source, export, repository)
    if isinstance(source, HuggingFaceSource) and answers_audio(source, repository):
        return _of_audio(source, export, repository)
    if not isinstance(source, HuggingFaceSource) or not answers_text(source, repository):
        return None
    if export.inputs is not None and not {IDS} <= {tensor.name for tensor in export.inputs} <= TEXT_INPUTS:
        return None
    if source.task in CLASSIFIERS:
        return _classes(source, repository)
    if source.task in _FORMS:
        form = _FORMS[source.task](source, repository)
        needed = {form.output, *(() if form.ends is None else (form.ends,))}
        return form if export.outputs is None or needed <= set(export.outputs) else None
    if pools(source, repository):
        return _vector(source, repository)
    if export.outputs is not None and HIDDEN not in export.outputs:
        return None
    return AnswerForm(kind="token-embeddings", output=HIDDEN)


def _of_images(source: HuggingFaceSource, export: ExportPlan, repository: Repository) -> AnswerForm | None:
    names = {PIXELS} if export.inputs is None else {tensor.name for tensor in export.inputs}
    if not {PIXELS} <= names <= {PIXELS, PIXEL_MASK}:
        return None
    if source.task == "image-classification":
        config = repository.mapping("config.json")
        output = LOGITS if activation_of(source.task, config) == "none" else PROBABILITIES
        return AnswerForm(kind="labels", output=output, labels=labels_of(config, source.interface))
    outputs = {"object-detection": BOXES, "semantic-segmentation": LOGITS, "depth-estimation": DEPTHS}
    needed = outputs.get(source.task, POOLED)
    if export.outputs is not None and needed not in export.outputs:
        return None
    if source.task == "image-feature-extraction":
        return AnswerForm(kind="embedding", output=POOLED)
    if source.task == "depth-estimation":
        return AnswerForm(kind="depth", output=DEPTHS)
    labels = labels_of(repository.mapping("config.json"), source.interface)
    if source.task == "semantic-segmentation":
        return AnswerForm(kind="segments", output=LOGITS, labels=labels)
    return AnswerForm(kind="boxes", output=PROBABILITIES, boxes=BOXES, labels=labels, threshold=THRESHOLD)


def _of_audio(source: HuggingFaceSource, export: ExportPlan, repository: Repository) -> AnswerForm | None:
    names = {WAVE} if export.inputs is None else {tensor.name for tensor in export.inputs}
    if not {WAVE} <= names <= {WAVE, MASK}:
        return None
    if source.task == "ctc":
        given = export.outputs is None or LOGITS in export.outputs
        return AnswerForm(kind="transcript", output=LOGITS) if given else None
    config = repository.mapping("config.json")
    output = LOGITS if activation_of(source.task, config) == "none" else PROBABILITIES
    return AnswerForm(kind="labels", output=output, labels=labels_of(config, source.interface))


def taken_by(source: object, repository: Repository) -> Takes:
    """Return what requests to a source's bundles hold, as far as its files tell."""
    if isinstance(source, HuggingFaceSource) and answers_image(source, repository):
        return "image"
    if isinstance(source, HuggingFaceSource) and answers_audio(source, repository):
        return "audio"
    return "text"


def _classes(source: HuggingFaceSource, repository: Repository) -> AnswerForm:
    config = repository.mapping("config.json")
    output = LOGITS if activation_of(source.task, config) == "none" else PROBABILITIES
    if source.task == "text-ranking":
        return AnswerForm(kind="score", output=output)
    labels = labels_of(config, source.interface)
    if source.task == "token-classification":
        aggregation = _settings(source).aggregation or "none"
        return AnswerForm(kind="entities", output=output, labels=labels, aggregation=aggregation)
    return AnswerForm(kind="labels", output=output, labels=labels)


def takes_prompts(task: str) -> bool:
    """Whether a text of a task may have a prompt before it: no place in the text and no other text depends on it."""
    return task in SETTINGS["prompt"]


def _vector(source: HuggingFaceSource, repository: Repository) -> AnswerForm:
    """The vector of a text, with the sizes that it may be cut to.

    Raises:
        RecipeError: config.json names other sizes than whole numbers.
    """
    declared = _settings(source).dimensions or repository.mapping(CONFIG).get("matryoshka_dimensions")
    if not declared:
        return AnswerForm(kind="embedding", output=EMBEDDING)
    if not isinstance(declared, list | tuple) or not all(type(size) is int and size > 0 for size in declared):
        raise RecipeError(CONFIG, f"`matryoshka_dimensions: {declared}` is no list of sizes")
    recipe = read_recipe(repository)
    normalized = _settings(source).normalize
    if normalized is None:
        normalized = recipe is not None and any(isinstance(step, Normalize) for step in recipe.steps)
    return AnswerForm(
        kind="embedding", output=EMBEDDING, dimensions=tuple(sorted(set(declared))), normalized=normalized
    )


def _settings(source: HuggingFaceSource) -> TextInterface:
    return source.interface if isinstance(source.interface, TextInterface) else TextInterface()


def _span(source: HuggingFaceSource, repository: Repository) -> AnswerForm:
    del source, repository
    return AnswerForm(kind="span", output=STARTS, ends=ENDS)


def _fill_mask(source: HuggingFaceSource, repository: Repository) -> AnswerForm:
    del repository
    return AnswerForm(kind="fill-mask", output=LOGITS, top_k=_settings(source).top_k or TOP_K)


def _zero_shot(source: HuggingFaceSource, repository: Repository) -> AnswerForm:
    settings = _settings(source)
    entailment, contradiction = entailment_of(repository.mapping("config.json"))
    return AnswerForm(
        kind="zero-shot",
        output=LOGITS,
        labels=settings.labels or (),
        entailment=entailment,
        contradiction=contradiction,
        hypothesis=settings.hypothesis or HYPOTHESIS,
        multi_label=bool(settings.multi_label),
    )


_FORMS: Mapping[str, Callable[[HuggingFaceSource, Repository], AnswerForm]] = {
    "question-answering": _span,
    "fill-mask": _fill_mask,
    "zero-shot-classification": _zero_shot,
}
"""Tasks whose answers are made of the model's own outputs."""


def pools(source: HuggingFaceSource, repository: Repository) -> bool:
    """Whether the vectors of all tokens become one, by the repository or by the spec."""
    if isinstance(source.interface, TextInterface) and source.interface.pooling is not None:
        return True
    recipe = read_recipe(repository) if source.answers else None
    return recipe is not None and bool(recipe.steps)


def with_text(plan: Plan, directory: Path) -> Plan:
    """Return the plan with environments that hold what requests need, where its bundles answer.

    Args:
        plan: as the spec was resolved.
        directory: the model's files.
    """
    repository = of_directories((directory,))
    form = answer_form(plan.model, plan.export, repository)
    if form is None:
        return plan
    takes = taken_by(plan.model, repository)

    def added(target: TargetPlan) -> TargetPlan:
        if target.is_javascript and not page_answers(form.kind, takes):
            return target
        name = WEB_TEXT if target.is_javascript else NEEDS[takes]
        variants = (
            variant.model_copy(update={"runtime": runtime_with(variant.runtime, name)}) for variant in target.variants
        )
        return target.model_copy(update={"variants": tuple(variants)})

    return plan.model_copy(update={"targets": tuple(map(added, plan.targets))})


def page_answers(kind: Kind, takes: Takes) -> bool:
    """Whether loaders in JavaScript give answers of a kind to what a model takes."""
    return takes == "text" and kind in WEB_KINDS


def runtime_with(runtime: RuntimePlan, suffix: str) -> RuntimePlan:
    """The same runtime with what requests need beside it."""
    name = runtime.pins if runtime.pins.endswith(suffix) else f"{runtime.pins}{suffix}"
    return runtime.model_copy(update={"pins": name, "pins_sha256": pins(name).sha256})
