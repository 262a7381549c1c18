"""What a configuration says of a classifier's answers: the function over its logits, and the names of its classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ortc.inspection.recipe import RecipeError
from ortc.spec.interface import TextInterface

CONFIG = "config.json"
Activation = Literal["softmax", "sigmoid", "none"]
_BY_TYPE: Mapping[str, Activation] = {
    "regression": "none",
    "multi_label_classification": "sigmoid",
    "single_label_classification": "softmax",
}
_IDENTITY, _SIGMOID = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid"


def count_of(config: Mapping[str, Any]) -> int:
    """Return how many classes a configuration has; transformers has two where nothing is said."""
    named, number = config.get("id2label"), config.get("num_labels")
    if isinstance(named, dict) and named:
        return len(named)
    return number if isinstance(number, int) and not isinstance(number, bool) else 2


def labels_of(config: Mapping[str, Any], interface: object) -> tuple[str, ...]:
    """Return the names of the classes in their order: the spec's, else those of `id2label`, else LABEL_0 and so on.

    Raises:
        RecipeError: the names are not one for each class.
    """
    count = count_of(config)
    if isinstance(interface, TextInterface) and interface.labels is not None:
        found: tuple[str, ...] = interface.labels
    else:
        named = config.get("id2label")
        if not isinstance(named, dict) or not named:
            return tuple(f"LABEL_{index}" for index in range(count))
        if set(named) != {str(index) for index in range(count)}:
            raise RecipeError(CONFIG, f"the keys of `id2label` are not 0 to {count - 1}")
        found = tuple(str(named[str(index)]) for index in range(count))
    if len(found) != count or len(set(found)) != count:
        raise RecipeError(CONFIG, f"{len(set(found))} names of classes are given for {count} classes")
    return found


def entailment_of(config: Mapping[str, Any]) -> tuple[int, int]:
    """Return the class of a hypothesis that the text entails, and the class of one that it contradicts.

    The rules are those of transformers' zero-shot-classification pipeline, which takes the last class as the entailment
    where none is named so; that is refused here.

    Raises:
        RecipeError: no class is named so.
    """
    labels, count = labels_of(config, None), count_of(config)
    stored = config.get("label2id")
    ids = stored if isinstance(stored, dict) and stored else {label: index for index, label in enumerate(labels)}
    found = next((number for label, number in ids.items() if str(label).lower().startswith("entail")), None)
    if found is None:
        raise RecipeError(CONFIG, "no class has a name that begins with `entail`, in `label2id` or in `id2label`")
    if not isinstance(found, int) or not 0 <= found < count:
        raise RecipeError(CONFIG, f"`label2id` gives the entailment the number {found}, and there are {count} classes")
    return found, count - 1 if found == 0 else 0


def activation_of(task: str, config: Mapping[str, Any]) -> Activation:
    """Return the function that turns a classifier's logits into its scores.

    The rules are those of transformers' pipelines for text-classification, token-classification and
    audio-classification, and for rankings of sentence-transformers' cross-encoders.

    Raises:
        RecipeError: the configuration names a function that is not reproduced.
    """
    kind = config.get("problem_type")
    if task == "text-ranking":
        return _ranking(config)
    if task == "token-classification" or (task == "audio-classification" and kind is None):
        return "softmax"
    if kind is not None and kind not in _BY_TYPE:
        raise RecipeError(CONFIG, f"`problem_type: {kind}` is not reproduced")
    if kind == "regression":
        return "none"
    if kind == "multi_label_classification" or count_of(config) == 1:
        return "sigmoid"
    return "softmax"


def _ranking(config: Mapping[str, Any]) -> Activation:
    own = config.get("sentence_transformers")
    named = own.get("activation_fn") if isinstance(own, dict) else None
    named = named or config.get("sbert_ce_default_activation_function")
    if count_of(config) != 1:
        raise RecipeError(CONFIG, f"a ranking has one score, and the model has {count_of(config)} classes")
    if named is None or named == _SIGMOID:
        return "sigmoid"
    if named == _IDENTITY:
        return "none"
    raise RecipeError(CONFIG, f"the activation `{named}` is not reproduced")
