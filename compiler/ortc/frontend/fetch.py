"""Get a model's files: from wherever they can be had, and only with the digests that the spec declares."""

from __future__ import annotations

import fnmatch
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ortc.common.digests import sha256_file
from ortc.common.disk import full, is_full, temporary
from ortc.common.errors import StageError
from ortc.common.permissions import masked
from ortc.common.plain_files import is_plain, read_plain
from ortc.common.values import Frozen
from ortc.execution.action_cache import Store
from ortc.frontend.hub import asking, cached, downloaded
from ortc.frontend.mirrors import download
from ortc.inspection.external_data import copy, data_file, load_graph, locations, refuse_pointer
from ortc.inspection.hub_files import HUB_PATTERNS, PICKLE_SUFFIXES, WEIGHT_SUFFIXES
from ortc.inspection.model_files import package_directories, refuse, unwanted, visible
from ortc.inspection.recipe import recipe_files
from ortc.inspection.repository import ADAPTER, ADAPTER_PLACE, Repository, of_directories
from ortc.plan.plan import SourcePlan
from ortc.spec.model_sources import (
    ADAPTER_FILES,
    Adapter,
    ExportedProgramSource,
    HuggingFaceSource,
    OnnxSource,
    PyTorchSource,
)

ADAPTER_FORMAT = "save the adapter with PEFT's save_pretrained(), which writes safetensors"


class FetchedFile(Frozen):
    """A file of the model, its digest, and where it came from (no machine's paths)."""

    name: str
    sha256: str
    origin: str


class Fetched(Frozen):
    """A model's files, linked by name into one directory."""

    directory: Path
    files: tuple[FetchedFile, ...]
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    """Parts of the repository that the model is without, as the spec allows; the same on every machine."""

    def digests(self) -> dict[str, str]:
        """File name to sha256: what the content of the model is, wherever it came from."""
        return {file.name: file.sha256 for file in self.files}


def fetch(source: SourcePlan, root: Path, store: Store, work: Path) -> Fetched:
    """Put every file that a source needs into `work`.

    Args:
        source: the plan's model source.
        root: what relative paths of the spec resolve against.
        store: keeps files by digest.
        work: an empty directory to link the files into.

    Raises:
        StageError: a file cannot be had, or no place has it with the declared digest.
    """
    found = _fetched(source, root, store, work)
    if isinstance(source, HuggingFaceSource) and source.adapter is not None:
        found = found.model_copy(update={"files": (*found.files, *_adapter(source.adapter, root, store, work))})
    # Places that come from the environment are named by their variables in manifests and reports.
    files = tuple(file.model_copy(update={"origin": masked(file.origin)}) for file in found.files)
    return found.model_copy(update={"files": files, "notes": tuple(map(masked, found.notes))})


def _fetched(source: SourcePlan, root: Path, store: Store, work: Path) -> Fetched:
    match source:
        case HuggingFaceSource():
            return _huggingface(source, root, store, work)
        case PyTorchSource(weights_file=None):
            return Fetched(directory=work, files=())
        case PyTorchSource(weights_file=str() as name) | OnnxSource(path=name) | ExportedProgramSource(path=name):
            return _local(name, source.sha256, root, work)
    raise AssertionError(source)


def _local(name: str, declared: str | None, root: Path, work: Path) -> Fetched:
    path = root / name
    if not is_plain(path):
        raise StageError(f"`{name}` does not exist", help=f"paths of a spec resolve against its root, {root}")
    _check_suffix(name)
    refuse_pointer(path, name)
    if path.suffix == ".onnx":
        return _graph(path, name, declared, root, work)
    found = sha256_file(path)
    if declared is not None and found != declared:
        raise StageError(f"`{name}` was refused: {_difference(declared, found, path, root)}")
    _link(path, work, path.name)
    return Fetched(directory=work, files=(FetchedFile(name=path.name, sha256=found, origin=f"path:{name}"),))


def _graph(path: Path, name: str, declared: str | None, root: Path, work: Path) -> Fetched:
    """Copies of an ONNX file and its external data: readers refuse data through links, and copies do not change.

    Raises:
        StageError: the file is not the declared one, or its data is not where it may be.
    """
    own = work / path.name
    found = copy(path, own)
    if declared is not None and found != declared:
        raise StageError(f"`{name}` was refused: {_difference(declared, found, path, root)}")
    files = [FetchedFile(name=path.name, sha256=found, origin=f"path:{name}")]
    for location in locations(load_graph(own)):
        extra, target = data_file(path, location), work / location
        if target.exists():
            continue  # two spellings of one file, or the graph itself
        refuse_pointer(extra, location)
        files.append(FetchedFile(name=location, sha256=copy(extra, target), origin=f"path:{name}"))
    return Fetched(directory=work, files=tuple(files))


def _huggingface(source: HuggingFaceSource, root: Path, store: Store, work: Path) -> Fetched:
    """Get the files, and refuse a repository that has more than a stock model, before and after.

    Raises:
        StageError: as `fetch`; or the repository brings code, or parts that the spec does not leave out.
    """
    nearby = visible(source, root)
    refuse(source, nearby, source.files or nearby.names)
    found = _files(source, root, store, work)
    names = [file.name for file in found.files]
    own = nearby if source.path is not None else of_directories((work,), names)
    refuse(source, own, names)
    left = tuple(str(part) for part in unwanted(source, own))
    others = tuple(f"left out: {part}" for part in unwanted(source, nearby) if str(part) not in left)
    return found.model_copy(update={"left_out": left, "notes": (*found.notes, *others)})


def _adapter(adapter: Adapter, root: Path, store: Store, work: Path) -> Iterator[FetchedFile]:
    """Put the files of an adapter into a directory of their own, where nothing but the merge looks."""
    place = work / ADAPTER_PLACE
    place.mkdir()
    if adapter.path is None:
        source = HuggingFaceSource(source="huggingface", **adapter.model_dump(exclude={"path", "license"}))
        wanted = {name: adapter.files[name] for name in ADAPTER_FILES}
        for file in _collect(source, wanted, root, store, place).files:
            yield file.model_copy(update={"name": f"{ADAPTER_PLACE}/{file.name}"})
        return
    for name in ADAPTER_FILES:
        path, declared = root / adapter.path / name, adapter.files.get(name)
        if not is_plain(path):
            raise StageError(f"the adapter `{adapter.path}` has no `{name}`", help=ADAPTER_FORMAT)
        refuse_pointer(path, f"{adapter.path}/{name}")
        found = sha256_file(path)
        if declared is not None and found != declared:
            raise StageError(f"`{adapter.path}/{name}` was refused: {_difference(declared, found, path, root)}")
        _link(path, place, name)
        yield FetchedFile(name=f"{ADAPTER_PLACE}/{name}", sha256=found, origin=f"path:{adapter.path}")


def _files(source: HuggingFaceSource, root: Path, store: Store, work: Path) -> Fetched:
    if source.path is not None:
        return _directory(source, root, work)
    wanted = {
        name: sha256
        for name, sha256 in source.files.items()
        if source.weights == "pretrained" or not name.endswith(WEIGHT_SUFFIXES)
    }
    complete = source.weights == "random" or any(name.endswith(".safetensors") for name in wanted)
    if not wanted or not complete:
        return _hub_snapshot(source, wanted, root, store, work)
    found = _collect(source, wanted, root, store, work)
    if any(file.origin.startswith("hub:") for file in found.files):
        # The hub was asked just now: it also says what the list of the spec is without.
        refuse(source, _hub_repository(source, work), wanted)
    return found


def _directory(source: HuggingFaceSource, root: Path, work: Path) -> Fetched:
    directory = root / str(source.path)
    if not directory.is_dir():
        raise StageError(f"`{source.path}` is no directory", help=f"paths of a spec resolve against its root, {root}")
    repository = visible(source, root)
    names = list(source.files) or model_files(source, repository)
    files = []
    for name in names:
        path = directory / name
        if source.weights == "random" and name.endswith(WEIGHT_SUFFIXES):
            continue
        if not is_plain(path):
            raise StageError(f"`{source.path}` has no `{name}`")
        _check_suffix(name)
        refuse_pointer(path, f"{source.path}/{name}")
        found = sha256_file(path)
        if (declared := source.files.get(name)) is not None and found != declared:
            raise StageError(f"`{source.path}/{name}` was refused: {_difference(declared, found, path, root)}")
        _link(path, work, name)
        files.append(FetchedFile(name=name, sha256=found, origin=f"path:{source.path}"))
    if not any(file.name == "config.json" for file in files):
        raise StageError(f"`{source.path}` has no config.json")
    return Fetched(directory=work, files=tuple(files))


def model_files(source: HuggingFaceSource, repository: Repository) -> list[str]:
    """Return the files of a repository that a spec without a list takes, sorted by name."""
    left = {part.file for part in unwanted(source, repository)} - {"config.json"}
    around = recipe_files(repository) if source.answers else ()
    return sorted(
        name
        for name in repository.names
        if name in around
        or (
            name not in left
            and any(fnmatch.fnmatch(name, pattern) for pattern in HUB_PATTERNS)
            and name.count("/") == 0
        )
    )


def _collect(source: HuggingFaceSource, wanted: dict[str, str], root: Path, store: Store, work: Path) -> Fetched:
    """Each file from the first place that has it with the right digest."""
    files: list[FetchedFile] = []
    notes: list[str] = []
    for name, declared in wanted.items():
        _check_suffix(name)
        tried: list[str] = []
        for origin, path in _places(source, name, declared, root, store, tried):
            found = sha256_file(path)
            if found != declared:
                tried.append(f"{origin}: refused, {_difference(declared, found, path, root)}")
                if path == store.blobs.place(declared):
                    # Damaged on the disk; while it lies there, no good copy would take its place.
                    path.unlink(missing_ok=True)
                continue
            _link(store.blobs.add(path, declared), work, name)
            files.append(FetchedFile(name=name, sha256=declared, origin=origin))
            break
        else:
            raise StageError(
                f"`{name}` of {source.id} cannot be had with the declared digest",
                help=_ways_out(source),
                details=tuple(tried),
            )
        notes.extend(line for line in tried if "refused" in line)
    return Fetched(directory=work, files=tuple(files), notes=tuple(notes))


def _places(
    source: HuggingFaceSource, name: str, declared: str, root: Path, store: Store, tried: list[str]
) -> Iterator[tuple[str, Path]]:
    """Where a file may lie, nearest first; why a place has none is appended to `tried`."""
    if (blob := store.blobs.place(declared)).is_file():
        yield "ortc's cache", blob
    if (local := cached(source, name)) is not None:
        yield "the hub cache", local
    for mirror in source.mirrors:
        scheme, _, rest = mirror.partition(":")
        if scheme == "package":
            path = _package_file(rest, name)
        elif scheme == "path":
            path = root / rest / name
        else:
            with tempfile.TemporaryDirectory() as scratch:
                try:
                    yield mirror, download(f"{mirror.rstrip('/')}/{name}", Path(scratch) / "file")
                except (OSError, ValueError, ImportError) as error:
                    if is_full(error):
                        raise full(temporary()) from error
                    tried.append(f"{mirror}: {error}")
            continue
        if path is not None and is_plain(path):
            yield mirror, path
        else:
            tried.append(f"{mirror}: has no `{name}`")
    try:
        yield f"hub:{source.id}@{source.revision}", downloaded(source, name)
    except StageError as error:
        tried.append(f"hub:{source.id}: {error.message}")


def _package_file(place: str, name: str) -> Path | None:
    """A file inside an importable package (`module/directory`), found without importing it."""
    return next((path for base in package_directories(place) if is_plain(path := base / name)), None)


def _hub_snapshot(source: HuggingFaceSource, wanted: dict[str, str], root: Path, store: Store, work: Path) -> Fetched:
    """Files that the spec pins by revision alone; those with a digest are still held to it."""
    pinned = _collect(source, wanted, root, store, work) if wanted else Fetched(directory=work, files=())
    files = list(pinned.files)
    repository = _hub_repository(source, work)
    refuse(source, repository, (*source.files, *repository.names))
    left = unwanted(source, repository)
    for name in model_files(source, repository):
        if name in wanted:
            continue
        if source.weights == "random" and name.endswith(WEIGHT_SUFFIXES):
            continue
        path = downloaded(source, name)
        _link(path, work, name)
        files.append(FetchedFile(name=name, sha256=sha256_file(path), origin=f"hub:{source.id}@{source.revision}"))
    notes = (*pinned.notes, *(f"left out: {part}" for part in left))
    return Fetched(directory=work, files=tuple(files), notes=notes)


def _hub_repository(source: HuggingFaceSource, work: Path) -> Repository:
    """A repository as the hub lists it; its JSON files are downloaded when they are read.

    Raises:
        StageError: the hub cannot be reached, or lists a file outside of the repository.
    """
    from huggingface_hub import HfApi

    with asking(f"the hub cannot be reached for {source.id}", help=_ways_out(source)):
        listed = HfApi().list_repo_files(str(source.id), revision=source.revision)
    for name in listed:
        _inside(work, name)
    return Repository(frozenset(listed), lambda name: json.loads(read_plain(downloaded(source, name))))


def _ways_out(source: HuggingFaceSource) -> str:
    advice = (
        "give the machine access to the hub, or put the files into a directory and name it in `model.mirrors` "
        "(with `model.files`)"
    )
    if source.weights == "pretrained":
        advice += "; or build the seeded architecture, without trained weights, with `--set model.weights=random`"
    return advice


def _check_suffix(name: str) -> None:
    if name.endswith(PICKLE_SUFFIXES):
        raise StageError(
            f"refused `{name}`: reading a pickle runs the code that it carries",
            help="save the weights with safetensors.torch.save_file()",
        )


def _difference(declared: str, found: str, path: Path, root: Path) -> str:
    """Tell two digests apart; the digest of a file elsewhere is not shown, as it tells what the file holds."""
    if not path.resolve().is_relative_to(root.resolve()):
        return f"its sha256 is not {declared}"
    return f"its sha256 is {found}, declared {declared}"


def _link(path: Path, work: Path, name: str) -> None:
    if ADAPTER.search(name) and work.name != ADAPTER_PLACE:
        # Pinned, but not loaded: what reads the directory would put it over the base.
        return
    place = _inside(work, name)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(path.resolve())


def _inside(work: Path, name: str) -> Path:
    place = work / name
    # Names of a spec are checked; those that a hub lists are not.
    if ".." in place.parts or not place.is_relative_to(work):
        raise StageError(f"refused the file name `{name}`: it leads out of the model's directory")
    return place
