"""What a model's repository holds beside a stock architecture and its weights: code, modules, adapters, more weights.

Only file names and JSON files are read. Nothing is imported, run or downloaded.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ortc.common.plain_files import read_plain

MODULES = "modules.json"
PROCESSORS = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
TOKENIZERS = ("tokenizer_config.json", "tokenizer.json")
ADAPTER = re.compile(r"(^|/)(adapter_config\.json|adapter_model\.(safetensors|bin)|pytorch_adapter\.bin)$")
"""Files of an adapter over a base model: those of PEFT and of AdapterHub."""
ADAPTER_PLACE = ".adapter"
"""The directory that the files of an adapter are put into, below that of its base's files."""
HEADS = {
    "model_head.pkl": "the trained classifier of SetFit",
    "colbert_linear.pt": "a trained ColBERT head",
    "sparse_linear.pt": "a trained sparse head",
}
"""Trained heads that are files of their own, by the names that libraries give them."""
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
_NO_MODEL = re.compile(
    r"(pytorch_model.*\.bin|training_args\.bin|optimizer\.(bin|pt)|scheduler\.pt|scaler\.pt|rng_state.*)$"
)
"""Files of weights that add nothing: the older format of the same weights, and the state of a training."""
_STOCK_MODULES = "sentence_transformers."
_MAX_DEPTH = 2
_MAX_FILES = 10_000
_CHECKPOINT = re.compile(r"checkpoint-\d+")


@dataclass(frozen=True)
class Repository:
    """The files of a repository by name, and a function that reads one of its JSON files.

    The function raises OSError or ValueError for a file that cannot be had or is not JSON.
    """

    names: frozenset[str]
    read: Callable[[str], Any]

    def mapping(self, name: str) -> Mapping[str, Any]:
        """A JSON file's object; empty where the file is missing, unreadable or something else."""
        if name not in self.names:
            return {}
        try:
            found = self.read(name)
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True, order=True)
class Part:
    """A part of a repository that the exported model is without: the file that shows it, and what it is."""

    file: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


def of_directories(directories: Iterable[Path], names: Collection[str] = ()) -> Repository:
    """Return the repository that local directories hold together; of equal names the first directory's counts.

    Args:
        directories: each holds the repository or a part of it.
        names: further files that are known by name only.
    """
    places: dict[str, Path] = {}
    for directory in directories:
        for name, path in _walk(directory):
            places.setdefault(name, path)

    def read(name: str) -> Any:
        if name not in places:
            raise FileNotFoundError(name)
        return json.loads(read_plain(places[name]))

    return Repository(frozenset((*places, *names)), read)


def _walk(directory: Path) -> Iterator[tuple[str, Path]]:
    """Files down to two directories below, without hidden ones and the intermediate states of a training."""
    count = 0
    for place, directories, files in os.walk(directory, followlinks=False):
        relative = Path(place).relative_to(directory)
        deep = len(relative.parts) >= _MAX_DEPTH
        directories[:] = (
            []
            if deep
            else sorted(name for name in directories if not name.startswith(".") and not _CHECKPOINT.fullmatch(name))
        )
        for name in sorted(files):
            count += 1
            if count > _MAX_FILES:
                return
            yield (relative / name).as_posix(), Path(place) / name


def code(repository: Repository, loaded: Collection[str]) -> tuple[str, ...]:
    """Name every place where the repository brings code of its own, as far as what is loaded depends on it.

    Args:
        repository: the repository.
        loaded: the files that a build takes. Code of a tokenizer or a processor counts with one of its files.
    """
    configs = ["config.json"]
    if not {*TOKENIZERS}.isdisjoint(loaded):
        configs.append("tokenizer_config.json")
    if not {*PROCESSORS}.isdisjoint(loaded):
        configs += PROCESSORS
    found = [
        f"{name}: `{'.'.join((*path, 'auto_map'))}` names {described}"
        for name in configs
        for path, described in _auto_maps(repository.mapping(name), ())
    ]
    found += [f"{MODULES}: the module {kind}" for kind in _module_types(repository) if not _is_stock(kind)]
    return tuple(found)


def _auto_maps(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, dict):
        declared = value.get("auto_map")
        if declared:
            yield path, ", ".join(_classes(declared)) or "code"
        for key, item in value.items():
            if key != "auto_map":
                yield from _auto_maps(item, (*path, str(key)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _auto_maps(item, (*path, str(index)))


def _classes(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _classes(item)


def modules_of(repository: Repository) -> list[Mapping[str, Any]] | None:
    """Return the entries of modules.json; None where it is there and not understood."""
    if MODULES not in repository.names:
        return []
    try:
        found = repository.read(MODULES)
    except (OSError, ValueError, RecursionError):
        return None
    fits = isinstance(found, list) and all(
        isinstance(item, dict) and isinstance(item.get("type"), str) for item in found
    )
    return found if fits else None


def _module_types(repository: Repository) -> list[str]:
    return [str(entry["type"]) for entry in modules_of(repository) or ()]


def _is_stock(kind: str) -> bool:
    return kind.startswith(_STOCK_MODULES)


def weight_files(repository: Repository) -> frozenset[str]:
    """Return the names of the files that transformers reads the weights from."""
    explicit = repository.mapping("config.json").get("transformers_weights")
    if isinstance(explicit, str) and not explicit.endswith(".index.json"):
        return frozenset({explicit}) & repository.names
    single, index = (SINGLE, INDEX) if not isinstance(explicit, str) else ("", explicit)
    if single in repository.names:
        return frozenset({single})
    for name in (index, "pytorch_model.bin.index.json"):
        if name in repository.names:
            shards = repository.mapping(name).get("weight_map")
            listed = shards.values() if isinstance(shards, dict) else ()
            return frozenset({name, *(str(shard) for shard in listed)}) & repository.names
        if "pytorch_model.bin" in repository.names:
            return frozenset({"pytorch_model.bin"})
    return frozenset()


def parts(
    repository: Repository, listed: Collection[str], *, with_weights: bool = True, with_modules: bool = True
) -> tuple[Part, ...]:
    """Name what the repository holds and the exported model is without, sorted by file.

    Args:
        repository: the repository.
        listed: the files that a spec lists with digests; with any, other files of weights are not the model's.
        with_weights: whether weights are loaded at all: a seeded architecture has no adapter and no further weights.
        with_modules: whether the modules around the model are among them: a model that answers texts has them.
    """
    found = [*(_added_modules(repository) if with_modules else ()), *_pipelines(repository)]
    if with_weights:
        found += [*_adapters(repository), *_heads(repository), *_stray_weights(repository, listed)]
    return tuple(sorted(set(found)))


def _added_modules(repository: Repository) -> Iterator[Part]:
    modules = modules_of(repository)
    if modules is None:
        yield Part(MODULES, "modules around the model, which cannot be read here")
        return
    added = [entry for entry in modules if str(entry["type"]).rpartition(".")[2] != "Transformer"]
    if added:
        yield Part(MODULES, ", ".join(_module(repository, entry) for entry in added))


def _module(repository: Repository, entry: Mapping[str, Any]) -> str:
    """A module with what its configuration says of it, such as `Pooling (mean)`."""
    name = str(entry["type"]).rpartition(".")[2]
    config = repository.mapping(f"{entry.get('path')}/config.json")
    modes = [
        key.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
        for key, value in config.items()
        if key.startswith("pooling_mode_") and value is True
    ]
    if isinstance(config.get("pooling_mode"), str):
        modes.append(config["pooling_mode"])
    if isinstance(config.get("in_features"), int) and isinstance(config.get("out_features"), int):
        modes.append(f"{config['in_features']} to {config['out_features']}")
    return f"{name} ({', '.join(modes)})" if modes else name


def _pipelines(repository: Repository) -> Iterator[Part]:
    declared = repository.mapping("config.json").get("custom_pipelines")
    if isinstance(declared, dict) and declared:
        yield Part("config.json", f"the custom pipelines {', '.join(map(str, declared))}")


def _adapters(repository: Repository) -> Iterator[Part]:
    for name in repository.names:
        if ADAPTER.search(name):
            config = repository.mapping(name) if name.endswith("_config.json") else {}
            kind, base = config.get("peft_type"), config.get("base_model_name_or_path")
            kind = f" ({kind})" if isinstance(kind, str) else ""
            yield Part(name, f"an adapter{kind}" + (f" over {base}" if isinstance(base, str) and base else ""))


def _heads(repository: Repository) -> Iterator[Part]:
    for name, what in HEADS.items():
        if name in repository.names:
            yield Part(name, what)


def _stray_weights(repository: Repository, listed: Collection[str]) -> Iterator[Part]:
    """Files of weights at the top, or listed, that are not loaded."""
    loaded = weight_files(repository)
    for name in repository.names:
        candidate = name in listed if listed else "/" not in name
        if not candidate or not name.endswith(_WEIGHTS) or name in loaded or name in HEADS:
            continue
        in_module = any(
            entry.get("path") and name.startswith(f"{entry['path']}/") for entry in modules_of(repository) or ()
        )
        if not in_module and not ADAPTER.search(name) and not _NO_MODEL.fullmatch(name):
            yield Part(name, "weights that are not loaded")
