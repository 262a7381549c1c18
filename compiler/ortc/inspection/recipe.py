"""What a repository of sentence-transformers adds to its model: pooling, further layers, normalization, prompts.

Only JSON files are read. The meaning of every key is that of sentence-transformers; a key or a value that would change
the answer and cannot be reproduced is an error, never a default.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

from pydantic import Field

from ortc.common.errors import StageError
from ortc.common.values import Frozen
from ortc.inspection.repository import MODULES, Repository, modules_of
from ortc.spec.interface import Pool

SENTENCE_CONFIGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Names of the configuration of the first module; the first that is there counts."""
PROMPTS = "config_sentence_transformers.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
"""Files that decide how a text becomes token ids."""
HELP = "`interface: tensors` in `model` takes the tensors of the model alone; or build the whole with `source: pytorch`"

Activation = Literal["Identity", "Tanh", "ReLU", "GELU", "Sigmoid", "SiLU"]
_EMBEDDING = "sentence_embedding"
_CONFIG, _WEIGHTS, _OLD_WEIGHTS = "config.json", "model.safetensors", "pytorch_model.bin"
_LEGACY_MODES: Mapping[str, Pool] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Keys of older configurations and the modes that they switch on, in the order in which vectors are joined."""
_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "transformer_task": ("feature-extraction",),
    "module_output_name": ("token_embeddings",),
    "modality_config": ({"text": {"method": "forward", "method_output_name": "last_hidden_state"}},),
}
"""Keys of that configuration with the only values that are reproduced."""
_KNOWN = ("max_seq_length", "do_lower_case", *_PLAIN)


class RecipeError(StageError):
    """A part of a repository that cannot be reproduced; `file` says where it stands."""

    def __init__(self, file: str, what: str) -> None:
        super().__init__(f"{file}: {what}", help=HELP)
        self.file, self.what = file, what


class _ElsewhereError(Exception):
    """A file that a spec lists and that this machine does not have."""


class Pooling(Frozen):
    """The vectors of all tokens become one: several modes are joined in their order."""

    kind: Literal["pooling"] = "pooling"
    modes: tuple[Pool, ...] = Field(min_length=1)


class Dense(Frozen):
    """A linear layer with its activation; the weights lie in the file."""

    kind: Literal["dense"] = "dense"
    weights: str
    in_features: int = Field(ge=1)
    out_features: int = Field(ge=1)
    bias: bool
    activation: Activation
    residual: bool = False


class LayerNorm(Frozen):
    """A normalization over the features; the weights lie in the file."""

    kind: Literal["layer_norm"] = "layer_norm"
    weights: str
    dimension: int = Field(ge=1)


class Normalize(Frozen):
    """The vector divided by its length."""

    kind: Literal["normalize"] = "normalize"


Step = Pooling | Dense | LayerNorm | Normalize


class Recipe(Frozen):
    """The steps after the model in their order, and how texts are prepared before it."""

    steps: tuple[Step, ...]
    max_length: int | None = None
    lower_case: bool = False
    prompts: dict[str, str] = Field(default_factory=dict)
    default_prompt: str | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files with trained weights of the steps."""
        return tuple(step.weights for step in self.steps if isinstance(step, Dense | LayerNorm))

    def size(self, hidden: int, *, pooling: Pool | None) -> int:
        """Return how many numbers a vector has after all steps.

        Args:
            hidden: how many numbers the model gives for a token.
            pooling: what stands for the pooling of the repository.
        """
        for step in self.steps:
            if isinstance(step, Pooling):
                hidden *= len(step.modes) if pooling is None else 1
            elif isinstance(step, Dense):
                hidden = step.out_features
        return hidden


def read_recipe(repository: Repository) -> Recipe | None:
    """Read what the modules of a repository compute after the model.

    Args:
        repository: its files, as far as they can be read.

    Returns:
        None for a repository without modules, or one with a file that a spec lists and this machine does not have.

    Raises:
        RecipeError: a module, or a setting of one, cannot be reproduced.
    """
    try:
        return _read(repository)
    except _ElsewhereError:
        return None


def _read(repository: Repository) -> Recipe | None:
    if MODULES not in repository.names:
        return None
    modules = modules_of(repository)
    if modules is None:
        _read_error(repository)
        raise RecipeError(MODULES, "the file cannot be read as a list of modules")
    if not modules:
        return None
    if _type(modules[0]) != "Transformer":
        raise RecipeError(MODULES, f"the first module is {_type(modules[0])}, where Transformer is reproduced")
    steps = tuple(_step(repository, entry) for entry in modules[1:])
    _check_order(steps)
    config = _sentence_config(repository, str(modules[0].get("path") or ""))
    length = config.get("max_seq_length")
    prompts = _json(repository, PROMPTS) if PROMPTS in repository.names else {}
    if (kind := prompts.get("model_type")) not in (None, "SentenceTransformer"):
        raise RecipeError(PROMPTS, f"`model_type: {kind}` is not reproduced, SentenceTransformer is")
    named = {str(name): str(text or "") for name, text in (prompts.get("prompts") or {}).items()}
    default = prompts.get("default_prompt_name")
    if default is not None and default not in named:
        raise RecipeError(PROMPTS, f"`default_prompt_name: {default}` is none of `prompts`")
    _check_prompt(repository, modules, named)
    return Recipe(
        steps=steps,
        max_length=None if length is None else int(length),
        lower_case=bool(config.get("do_lower_case")),
        prompts=named,
        default_prompt=default,
    )


def _sentence_config(repository: Repository, path: str) -> Mapping[str, Any]:
    """The settings of the first module, each of which is known.

    Raises:
        RecipeError: one is not, or has a value that is not reproduced.
    """
    names = [_inside(path, name) for name in SENTENCE_CONFIGS]
    file = next((name for name in names if name in repository.names), names[0])
    config = _json(repository, file) if file in repository.names else {}
    for key, value in config.items():
        if key not in _KNOWN or (key in _PLAIN and value not in _PLAIN[key]):
            raise RecipeError(file, f"`{key}: {value}` is not reproduced")
    return config


def recipe_files(repository: Repository) -> tuple[str, ...]:
    """Name the files of a repository that decide its answers around the model, as far as they can be told."""
    names = [MODULES, *SENTENCE_CONFIGS, PROMPTS, *TOKENIZER_FILES]
    for entry in (modules_of(repository) or ())[1:]:
        path = str(entry.get("path") or "")
        if path and _type(entry) != "Normalize":
            names.append(_inside(path, _CONFIG))
        if _type(entry) in ("Dense", "LayerNorm"):
            names.append(_weights(repository, path))
    return tuple(name for name in names if name in repository.names)


def _type(entry: Mapping[str, Any]) -> str:
    return str(entry.get("type")).rpartition(".")[2]


def _json(repository: Repository, file: str) -> Mapping[str, Any]:
    try:
        found = repository.read(file)
    except FileNotFoundError as error:
        raise _ElsewhereError from error
    except (OSError, ValueError, RecursionError) as error:
        raise RecipeError(file, f"the file cannot be read ({error})") from error
    if not isinstance(found, dict):
        raise RecipeError(file, "the file is not a JSON object")
    return found


def _read_error(repository: Repository) -> None:
    """Tell a file that is elsewhere from one that is malformed."""
    try:
        repository.read(MODULES)
    except FileNotFoundError as error:
        raise _ElsewhereError from error
    except (OSError, ValueError, RecursionError):
        return


def _inside(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _weights(repository: Repository, path: str) -> str:
    new, old = _inside(path, _WEIGHTS), _inside(path, _OLD_WEIGHTS)
    return old if old in repository.names and new not in repository.names else new


def _step(repository: Repository, entry: Mapping[str, Any]) -> Step:
    path, kind = str(entry.get("path") or ""), _type(entry)
    file = _inside(path, _CONFIG)
    if kind == "Normalize":
        if file in repository.names:
            _same_names(file, _json(repository, file))
        return Normalize()
    if kind not in ("Pooling", "Dense", "LayerNorm"):
        raise RecipeError(MODULES, f"the module {entry.get('type')} is not reproduced")
    if file not in repository.names:
        raise RecipeError(MODULES, f"the module {kind} needs `{file}`, which is not there; list it in `model.files`")
    config = _json(repository, file)
    try:
        if kind == "Pooling":
            return Pooling(modes=_modes(file, config))
        if kind == "LayerNorm":
            return LayerNorm(weights=_weights(repository, path), dimension=config["dimension"])
        return _dense(file, config, _weights(repository, path))
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise RecipeError(file, f"the settings of {kind} are not understood ({error})") from error


def _modes(file: str, config: Mapping[str, Any]) -> tuple[Pool, ...]:
    found: list[Any] = [mode for key, mode in _LEGACY_MODES.items() if config.get(key)]
    if (declared := config.get("pooling_mode")) is not None:
        found = [declared] if isinstance(declared, str) else list(declared)
    known = ("word_embedding_dimension", "embedding_dimension", "pooling_mode", "include_prompt", *_LEGACY_MODES)
    if unknown := [key for key in config if key not in known]:
        raise RecipeError(file, f"the setting `{unknown[0]}` of Pooling is not reproduced")
    if wrong := [mode for mode in found if mode not in get_args(Pool)]:
        raise RecipeError(file, f"the pooling mode `{wrong[0]}` is not reproduced")
    # Without any mode switched on, sentence-transformers takes the mean.
    return tuple(found) or ("mean",)


def _dense(file: str, config: Mapping[str, Any], weights: str) -> Dense:
    known = ("in_features", "out_features", "bias", "activation_function", "use_residual")
    _same_names(file, config)
    if unknown := [key for key in config if key not in (*known, "module_input_name", "module_output_name")]:
        raise RecipeError(file, f"the setting `{unknown[0]}` of Dense is not reproduced")
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    name = activation.rpartition(".")[2]
    if not activation.startswith("torch.nn.") or name not in get_args(Activation):
        raise RecipeError(file, f"the activation `{activation}` is not reproduced")
    return Dense.model_validate(
        {
            "weights": weights,
            "in_features": config["in_features"],
            "out_features": config["out_features"],
            "bias": config.get("bias", True),
            "activation": name,
            "residual": bool(config.get("use_residual")),
        }
    )


def _same_names(file: str, config: Mapping[str, Any]) -> None:
    for key in ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, _EMBEDDING):
            raise RecipeError(file, f"`{key}: {config[key]}` is not reproduced, `{_EMBEDDING}` is")


def _check_order(steps: tuple[Step, ...]) -> None:
    """Check that one pooling comes first: the other steps take the vector that it gives."""
    kinds = [step.kind for step in steps]
    if kinds and (kinds[0] != "pooling" or kinds.count("pooling") > 1):
        raise RecipeError(
            MODULES, f"the modules after the Transformer are {', '.join(kinds)}, where one Pooling comes first"
        )


def _check_prompt(repository: Repository, modules: list[Mapping[str, Any]], prompts: Mapping[str, str]) -> None:
    """Check that pooling counts the prompt's tokens, where a prompt may be put before a text."""
    for file, config in _poolings(repository, modules):
        if any(prompts.values()) and config.get("include_prompt") is False:
            raise RecipeError(file, "`include_prompt: false` is not reproduced: pooling counts the prompt's tokens")


def _poolings(repository: Repository, modules: list[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for entry in modules:
        if _type(entry) == "Pooling":
            file = _inside(str(entry.get("path") or ""), _CONFIG)
            yield file, _json(repository, file)
