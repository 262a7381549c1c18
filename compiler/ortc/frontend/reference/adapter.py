"""Adapters of PEFT over a Hugging Face model: LoRA and IA3, merged into its weights before anything is exported."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ortc.common.errors import StageError
from ortc.common.plain_files import read_plain
from ortc.common.texts import shown
from ortc.spec.model_sources import ADAPTER_FILES

ADAPTER_CONFIG, ADAPTER_WEIGHTS = ADAPTER_FILES
MERGEABLE = {"LORA": "LoRA", "IA3": "IA3"}
"""Kinds of adapters that become a part of the base's weights, as PEFT and as people call them."""
_COMMON = (
    "peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode",
    "target_modules", "exclude_modules", "modules_to_save", "fan_in_fan_out",
)  # fmt: skip
_READ = {
    "LORA": (
        *_COMMON, "r", "lora_alpha", "lora_dropout", "bias", "lora_bias", "use_rslora", "use_dora", "init_lora_weights",
        "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "target_parameters",
        "trainable_token_indices", "ensure_weight_tying",
        # Read where `megatron_config` or `use_qalora` is set, which is refused.
        "megatron_core", "qalora_group_size",
    ),
    "IA3": (*_COMMON, "feedforward_modules", "init_ia3_weights"),
}  # fmt: skip
"""Fields of adapter_config.json that may be set: with them PEFT changes weights, and imports and loads nothing."""
_INITIAL = re.compile(r"gaussian|olora|orthogonal|eva|pissa(_niter_\d+)?")
"""How LoRA's weights may have begun, where not as PEFT's own: nothing is computed of that before the file is read."""
INSTALL = "pip install 'ortc[adapters]'"
_PREFIX = "base_model.model."
_HEAD = re.compile(r"(^|\.)(classifier|score|out_proj)\.weight$")


def trained_names(directory: Path) -> dict[str, tuple[int, ...]]:
    """Return the tensors of an adapter that replace those of its base, by the base's names for them, with their shapes.

    These are the modules that were trained whole, as a new classifier.

    Raises:
        StageError: the file of weights cannot be read.
    """
    shapes = _shapes(directory)
    return {
        name.removeprefix(_PREFIX): shape
        for name, shape in shapes.items()
        if name.startswith(_PREFIX) and not re.search(r"\.(lora|ia3)_", name)
    }


def class_count(directory: Path) -> int | None:
    """Return the number of classes of a head that was trained with an adapter; None without one."""
    heads = [shape for name, shape in trained_names(directory).items() if _HEAD.search(name) and len(shape) == 2]
    return heads[-1][0] if heads else None


def merge(model: Any, directory: Path) -> Any:
    """Return the model with the adapter of a directory merged into its weights.

    Args:
        model: the base, in float32.
        directory: holds the adapter's configuration and weights.

    Raises:
        StageError: PEFT is not installed, the kind of adapter cannot be merged, or it does not fit the base.
    """
    kind = _kind(directory)
    peft = _peft()
    try:
        with warnings.catch_warnings():
            # What PEFT warns of here is compared below, tensor by tensor.
            warnings.simplefilter("ignore")
            adapted = peft.PeftModel.from_pretrained(model, str(directory), is_trainable=False)
            _check_names(set(_shapes(directory)), set(peft.get_peft_model_state_dict(adapted)))
            return adapted.merge_and_unload(safe_merge=True)
    except StageError:
        raise
    except Exception as error:
        # The code of PEFT, over any configuration and any base.
        raise StageError(
            f"the {kind} adapter cannot be merged into the model: {type(error).__name__}: {_first_line(error)}",
            help="check that `model` is the base that the adapter was trained on; its adapter_config.json names one",
        ) from error


def _kind(directory: Path) -> str:
    config = _config(directory)
    kind = str(config.get("peft_type"))
    if kind not in MERGEABLE:
        raise StageError(
            f"the adapter is {kind}, which does not become a part of the model's weights",
            help=f"ortc merges {' and '.join(MERGEABLE.values())}; `source: pytorch` builds the whole",
        )
    _check_fields(config, kind)
    return MERGEABLE[kind]


def _check_fields(config: Mapping[str, Any], kind: str) -> None:
    """Check that a configuration sets what changes weights alone.

    `megatron_config` makes PEFT import the module that `megatron_core` names, whichever that is. Other fields load
    files, change the model by its input, or are of a PEFT that knows more.

    Raises:
        StageError: it sets another field.
    """
    wrong = [name for name, value in config.items() if value and name not in _READ[kind]]
    begun = config.get("init_lora_weights", True)
    if not isinstance(begun, bool) and not _INITIAL.fullmatch(str(begun)):
        wrong.append("init_lora_weights")
    if wrong:
        raise StageError(
            f"{ADAPTER_CONFIG} sets `{shown(wrong[0])}`, with which the adapter is not a part of the weights alone",
            help="merge it with merge_and_unload() of PEFT, save the model, and name its directory in `model.path`",
        )


def _config(directory: Path) -> dict[str, Any]:
    try:
        config = json.loads(read_plain(directory / ADAPTER_CONFIG))
    except (OSError, ValueError, RecursionError) as error:
        raise StageError(f"{ADAPTER_CONFIG} of the adapter cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise StageError(f"{ADAPTER_CONFIG} of the adapter is not a JSON object")
    return config


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise StageError(
            f"merging an adapter needs PEFT, which cannot be imported: {error}", help=f"install it: {INSTALL}"
        ) from error
    return peft


def _shapes(directory: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(directory / ADAPTER_WEIGHTS, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise StageError(f"{ADAPTER_WEIGHTS} of the adapter cannot be read: {error}") from error


def _check_names(stored: set[str], used: set[str]) -> None:
    """Check that every tensor of the file has its place, and every place its tensor.

    Raises:
        StageError: one is left over; PEFT would leave it out, or keep what it was initialized with.
    """
    for what, left in (("has no place for", stored - used), ("lacks", used - stored)):
        if left:
            who = "the model" if what.startswith("has") else "the adapter's file"
            raise StageError(
                f"{who} {what} {len(left)} tensors of the adapter, first `{min(left)}`",
                help="check that `model` is the base of the adapter, and that `model.task` has its head",
                details=tuple(sorted(left)[:20]),
            )


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
