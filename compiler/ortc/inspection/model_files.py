"""Which files of a Hugging Face source are the model: what is refused, what is left out, and what is loaded."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ortc.common.errors import StageError
from ortc.common.plain_files import is_directory, is_plain, read_plain_text
from ortc.common.project import find_installed
from ortc.common.texts import shown
from ortc.inspection.feature_extractors import EXTRACTOR_FILES, SPELLING, VOCABULARY, has_extractor
from ortc.inspection.image_processors import IMAGE_PROCESSOR
from ortc.inspection.quantized_checkpoint import HELP as QUANTIZED_HELP
from ortc.inspection.quantized_checkpoint import quantization_of
from ortc.inspection.recipe import TOKENIZER_FILES, read_recipe, recipe_files
from ortc.inspection.repository import (
    ADAPTER,
    ADAPTER_PLACE,
    PROCESSORS,
    Part,
    Repository,
    code,
    of_directories,
    parts,
    weight_files,
)
from ortc.spec.accuracy import SamplesFunction
from ortc.spec.model_sources import HuggingFaceSource
from ortc.spec.tasks import AUDIO_TASKS, IMAGE_TASKS, TEXT_TASKS

if TYPE_CHECKING:
    from ortc.plan.plan import AccuracyPlan

CODE_HELP = (
    "ortc runs no code of a repository, and the stock architecture computes something else: write a function that "
    "builds the model, and name it with `source: pytorch`"
)
PARTS_HELP = (
    "`interface: tensors` in `model` says that the tensors of the model without them are wanted; to keep them, build "
    "the whole with `source: pytorch`"
)
UNLISTED_HELP = (
    "these files decide how a text becomes an answer: list each with its sha256 digest (`ortc init` writes them), or "
    "write `interface: tensors` for a bundle of the model's tensors alone"
)
ADAPTER_HELP = "move the adapter into a directory of its own and name it in `model.adapter`, which merges it; or: "


def local_directories(source: HuggingFaceSource, root: Path) -> tuple[Path, ...]:
    """Return the directories of this machine that hold the source's repository or a part of it.

    They are its own directory, the mirrors `path:` and `package:`, and the local cache of the hub.
    """
    if source.path is not None:
        return (root / source.path,)
    places = []
    for mirror in source.mirrors:
        scheme, _, rest = mirror.partition(":")
        if scheme == "path":
            places.append(root / rest)
        elif scheme == "package":
            places += package_directories(rest)
    if (snapshot := _hub_snapshot(source)) is not None:
        places.append(snapshot)
    # A directory without a configuration is not a copy of a model's repository.
    return tuple(place for place in places if is_plain(place / "config.json"))


def package_directories(place: str) -> Iterator[Path]:
    """Directories inside an importable package (`module/directory`), found without importing it."""
    module, _, directory = place.partition("/")
    found = find_installed(module)
    for base in found.directories if found else ():
        yield base / directory


def _hub_snapshot(source: HuggingFaceSource) -> Path | None:
    """The directory of a revision in the hub's local cache, by the layout of huggingface_hub, which loads slowly."""
    place = _hub_cache() / f"models--{str(source.id).replace('/', '--')}"
    revision = source.revision or "main"
    with contextlib.suppress(OSError, UnicodeError):
        revision = read_plain_text(place / "refs" / revision).strip()
    snapshot = place / "snapshots" / revision
    return snapshot if is_directory(snapshot) else None


def _hub_cache() -> Path:
    """`$HF_HUB_CACHE`, else `hub` in `$HF_HOME`, else in `huggingface` of the user's cache directory."""
    if (cache := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")) is not None:
        return Path(cache).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("HF_HOME") or f"{base}/huggingface").expanduser() / "hub"


def visible(source: HuggingFaceSource, root: Path) -> Repository:
    """Return the source's repository, as far as this machine has it and the spec lists it."""
    return of_directories(local_directories(source, root), source.files)


def unwanted(source: HuggingFaceSource, repository: Repository) -> tuple[Part, ...]:
    """Name the parts of a repository that the source's model is without."""
    return parts(repository, source.files, with_weights=source.weights == "pretrained", with_modules=not source.answers)


def refuse(source: HuggingFaceSource, repository: Repository, loaded: Iterable[str]) -> None:
    """Check that a repository holds no code, and no part that would vanish without a word.

    Args:
        source: the source; `interface: tensors` allows parts, and nothing allows code.
        repository: the repository, as far as it is known.
        loaded: the files that the build takes.

    Raises:
        StageError: it holds code, or parts without `interface: tensors`, or modules that cannot be reproduced.
    """
    name = source.id or source.path
    if found := code(repository, tuple(loaded)):
        raise StageError(f"`{name}` brings code of its own ({found[0]})", help=CODE_HELP, details=found[1:])
    if source.weights == "pretrained" and (method := quantization_of(repository)) is not None:
        raise StageError(f"the weights of `{name}` are quantized already, with {shown(method)}", help=QUANTIZED_HELP)
    left = unwanted(source, repository)
    if left and source.answers:
        raise StageError(
            f"`{name}` has parts that the exported model would be without: {'; '.join(map(str, left))}",
            help=parts_help(left),
        )
    if source.answers:
        read_recipe(repository)
        if unlisted := unlisted_files(source, repository):
            raise StageError(
                f"`{name}` has files that decide its answers, and that `model.files` does not list: "
                f"{', '.join(unlisted)}",
                help=UNLISTED_HELP,
            )


def unlisted_files(source: HuggingFaceSource, repository: Repository) -> tuple[str, ...]:
    """Name the files of a repository that decide its answers, and that a list of files with digests is without."""
    if not source.answers or not source.files:
        return ()
    spells = source.task == "ctc" and answers_audio(source, repository)
    left = () if spells or answers_text(source, repository) else TOKENIZER_FILES
    return tuple(name for name in recipe_files(repository) if name not in (*source.files, *left))


def answers_text(source: HuggingFaceSource, repository: Repository) -> bool:
    """Whether a source's bundle takes texts: it has a tokenizer, and a task whose answer is made here."""
    listed = source.files or repository.names
    return source.answers and source.task in TEXT_TASKS and "tokenizer.json" in listed


def answers_image(source: HuggingFaceSource, repository: Repository) -> bool:
    """Whether a source's bundle takes images: it has an image processor, and a task whose answer is made here."""
    listed = source.files or repository.names
    return source.answers and source.task in IMAGE_TASKS and IMAGE_PROCESSOR in listed


def answers_audio(source: HuggingFaceSource, repository: Repository) -> bool:
    """Whether a source's bundle takes sounds: it has a feature extractor, and a task whose answer is made here."""
    listed = source.files or repository.names
    spells = source.task != "ctc" or all(name in listed for name in SPELLING)
    return source.answers and source.task in AUDIO_TASKS and spells and has_extractor(listed)


def parts_help(left: Iterable[Part]) -> str:
    """Say what to do about parts that a bundle would be without."""
    return (ADAPTER_HELP if any(ADAPTER.search(part.file) for part in left) else "") + PARTS_HELP


def loaded_files(
    source: HuggingFaceSource, directory: Path, names: Iterable[str], accuracy: AccuracyPlan, *, derived: bool
) -> frozenset[str]:
    """Return which of a model's files a build reads: what a bundle is made from.

    Args:
        source: the source.
        directory: where the files were put.
        names: the files.
        accuracy: the samples and the metric, which may read files of the model.
        derived: whether the inputs are derived from the repository's configurations.
    """
    names = frozenset(names)
    repository = of_directories((directory,), names)
    read = {"config.json", "generation_config.json", *weight_files(repository)}
    if source.answers:
        read |= set(recipe_files(repository))
    if answers_image(source, repository):
        read |= {IMAGE_PROCESSOR}
    if answers_audio(source, repository):
        read |= {*EXTRACTOR_FILES, VOCABULARY, "tokenizer_config.json"}
    if derived:
        read |= {*PROCESSORS, "tokenizer_config.json"}
    if isinstance(accuracy.samples, SamplesFunction) or accuracy.metric is not None:
        # A function that is given the directory may read any file of it; no adapter is there.
        left = {part.file for part in unwanted(source, repository)}
        read |= {name for name in names if name not in left}
    elif accuracy.samples is not None and accuracy.samples.endswith(".npz"):
        pass
    elif accuracy.samples is not None:
        read |= {*PROCESSORS, "tokenizer_config.json", "tokenizer.json"}
    return names & read | {name for name in names if name.startswith(f"{ADAPTER_PLACE}/")}
