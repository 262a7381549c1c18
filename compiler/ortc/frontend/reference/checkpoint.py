"""A checkpoint against the class that loads it: classes that are unknown, heads that are lost, weights that lack."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ortc.common.errors import StageError
from ortc.frontend.reference.model import Reference, example_inputs
from ortc.inspection.model_files import CODE_HELP
from ortc.inspection.repository import of_directories, weight_files
from ortc.plan.plan import ExportPlan
from ortc.spec.model_sources import HuggingFaceSource

if TYPE_CHECKING:
    import torch

_BUFFERS = re.compile(
    r"(^|\.)(position_ids|token_type_ids|inv_freq|original_inv_freq|masked_bias|num_batches_tracked"
    r"|relative_position_index|attn\.bias|attention\.bias)$"
)
"""Keys of older checkpoints whose values the configuration decides: nothing that was trained."""
_POOLER = re.compile(r"(^|\.)pooler\.")
"""A pooler over an encoder, which classes with another head do without."""
_IDLE = re.compile(r"(^|\.)(pooler\.|masked_spec_embed$|mask_token$|mask_emb$)")
"""Weights that many checkpoints lack and many outputs do not need: a pooler, and what masks inputs in training."""
_PRETRAINING = (
    "MODEL_FOR_PRETRAINING_MAPPING",
    "MODEL_FOR_MASKED_LM_MAPPING",
    "MODEL_FOR_MASKED_IMAGE_MODELING_MAPPING",
)
"""Heads that a pretraining ends with; encoders are used without them."""
_OTHER_FRAMEWORKS = ("TF", "Flax")


def raw_config(directory: Path) -> dict[str, Any]:
    """Return config.json as it is written; empty where it cannot be read."""
    return dict(of_directories((directory,)).mapping("config.json"))


def check_architectures(config: Mapping[str, Any], kind: type) -> None:
    """Check that every class that a configuration names is one of transformers, and of the model's own type.

    Args:
        config: config.json, as it is written.
        kind: the class of configuration that transformers takes it for.

    Raises:
        StageError: a class is unknown, or belongs to another type of model.
    """
    import transformers

    for path, name in _named(config, ()):
        known = next((found for form in _forms(name) if (found := getattr(transformers, form, None)) is not None), None)
        if not isinstance(known, type):
            raise StageError(
                f"config.json: `{'.'.join((*path, 'architectures'))}` names `{name}`, which transformers "
                f"{transformers.__version__} does not have",
                help=CODE_HELP,
            )
        wanted = inspect.getattr_static(known, "config_class", None)
        if path or not isinstance(wanted, type) or issubclass(kind, wanted) or issubclass(wanted, kind):
            continue
        raise StageError(
            f"config.json: `architectures` names `{name}`, a model of {wanted.__name__}, but `model_type` "
            f"`{config.get('model_type')}` stands for {kind.__name__}",
            help="correct `architectures` or `model_type`, so that both name the model that was trained; a model of "
            "another kind is built with `source: pytorch`",
        )


def _named(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, dict):
        declared = value.get("architectures")
        for name in declared if isinstance(declared, list) else [declared] if isinstance(declared, str) else ():
            if name is not None:
                yield path, str(name)
        for key, item in value.items():
            yield from _named(item, (*path, str(key)))


def _forms(name: str) -> tuple[str, ...]:
    """The name, and that of the same model in PyTorch where it is of another framework."""
    return (name, *(name.removeprefix(other) for other in _OTHER_FRAMEWORKS if name.startswith(other)))


def other_head(config: Mapping[str, Any], model: Any) -> tuple[str, ...]:
    """Name the class with a head that a configuration names, where another class is loaded."""
    loaded = type(model).__name__
    names = [form for name in config.get("architectures") or () for form in _forms(str(name))]
    base = getattr(model, "base_model", model) is model
    if loaded in names or not base:
        return ()
    return tuple(
        f"config.json: the head of {name} ({loaded} is loaded)" for name in names[:1] if not name.endswith("Model")
    )


def lost(
    source: HuggingFaceSource, directory: Path, config: Mapping[str, Any], model: Any, unexpected: Collection[str]
) -> tuple[str, ...]:
    """Name the trained weights of a checkpoint that nothing loads.

    Buffers and copies of the input embeddings are none. Poolers, and heads of a pretraining that the configuration
    names, are named; every other head needs `interface: tensors`.

    Raises:
        StageError: a trained head would be lost, and the spec does not say so.
    """
    trained = sorted(key for key in unexpected if not _BUFFERS.search(key))
    trained = [key for key in trained if not _is_tied(directory, key, model)]
    usual = _pretraining_keys(config, model)
    heads = [key for key in trained if key not in usual and not _POOLER.search(key)]
    if heads and source.answers:
        raise StageError(
            f"the checkpoint has {len(heads)} trained weights that {type(model).__name__} does not load, first "
            f"`{heads[0]}`: {', '.join(_groups(heads))}",
            help=f"{_task_of(config, heads)}`interface: tensors` in `model` says that the model is wanted without them",
            details=tuple(heads[:20]),
        )
    return tuple(f"weights: {group}" for group in _groups(trained))


def _task_of(config: Mapping[str, Any], heads: Iterable[str]) -> str:
    named = next(iter(config.get("architectures") or ()), None)
    return f"set `model.task` to the task of {named}; or: " if named else "set `model.task` to the head's; or: "


def _groups(keys: Iterable[str]) -> list[str]:
    """Keys by module: `classifier (2 tensors)`."""
    counts: dict[str, int] = {}
    for key in keys:
        parts = key.split(".")
        name = ".".join(parts[: max(1, min(2, len(parts) - 1))])
        counts[name] = counts.get(name, 0) + 1
    return [f"{name} ({count} tensor{'s' if count > 1 else ''})" for name, count in counts.items()]


def _pretraining_keys(config: Mapping[str, Any], model: Any) -> frozenset[str]:
    """Keys of the pretraining classes of the model's type, if the configuration names one of them."""
    import torch
    import transformers

    kind = type(model.config)
    classes = [
        found
        for name in _PRETRAINING
        if (found := getattr(transformers, name, {}).get(kind, None)) is not None and not _generates(found)
    ]
    named = {form for name in config.get("architectures") or () for form in _forms(str(name))}
    if named.isdisjoint(found.__name__ for found in classes):
        return frozenset()
    keys: set[str] = set()
    for found in classes:
        with torch.device("meta"):
            keys |= found(model.config).state_dict().keys()
    return frozenset(keys)


def _generates(found: type) -> bool:
    return found.__name__.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"))


def _is_tied(directory: Path, key: str, model: Any) -> bool:
    """Whether a key holds the very values of the input embeddings."""
    import torch

    try:
        embeddings = model.get_input_embeddings().weight
    except (NotImplementedError, AttributeError):
        return False
    found = _tensor(directory, key)
    return found is not None and found.shape == embeddings.shape and torch.equal(found.float(), embeddings.float())


def _tensor(directory: Path, key: str) -> torch.Tensor | None:
    """A tensor of the checkpoint, None where no safetensors file has it."""
    from safetensors import safe_open

    for name in sorted(weight_files(of_directories((directory,)))):
        if name.endswith(".safetensors"):
            with safe_open(directory / name, framework="pt") as file:
                if key in file.keys():  # noqa: SIM118 - no mapping
                    return file.get_tensor(key)  # type: ignore[no-any-return]
    return None


def refuse_missing(missing: Collection[str]) -> tuple[str, ...]:
    """Return the missing weights that no output may need; `refuse_needed` says whether one does.

    Raises:
        StageError: a weight is missing that every output may depend on.
    """
    if any(not _IDLE.search(key) for key in missing):
        # The first is shown: one that is certainly needed.
        ordered = sorted(missing, key=lambda key: (_IDLE.search(key) is not None, key))
        raise _missing(ordered, "check `model.task`: the head must be the one that was trained")
    return tuple(sorted(missing))


def refuse_needed(reference: Reference, model: Any, missing: Collection[str], export: ExportPlan) -> None:
    """Check that no output depends on weights that the checkpoint lacks.

    Raises:
        StageError: one does.
    """
    import torch

    if not missing:
        return
    arguments = example_inputs(reference.inputs, export)
    before = reference.module(*arguments)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    kept = {key: tensors[key].clone() for key in missing}
    for key in missing:
        tensors[key].fill_(float("nan"))
    try:
        after = reference.module(*arguments)
    finally:
        for key, value in kept.items():
            tensors[key].copy_(value)
    needing = [
        name for name, left, right in zip(reference.outputs, before, after, strict=True) if not torch.equal(left, right)
    ]
    if needing:
        others = [name for name in reference.outputs if name not in needing]
        keep = f"keep outputs that need none of them: `export.outputs: [{', '.join(others)}]`" if others else ""
        raise _missing(
            sorted(missing), keep or "check `model.task`", f", which the output `{needing[0]}` is computed with"
        )


def _missing(missing: list[str], advice: str, why: str = "") -> StageError:
    return StageError(
        f"the checkpoint lacks {len(missing)} of the model's weights, first `{missing[0]}`{why}; transformers would "
        "fill them with random numbers",
        help=advice,
        details=tuple(missing)[:20],
    )
