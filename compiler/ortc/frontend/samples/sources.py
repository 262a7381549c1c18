"""Where real inputs come from: text, arrays, a directory of images, or a function of the user's."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ortc.common.arrays import Array, is_of, read_arrays
from ortc.common.digests import sha256_file
from ortc.common.errors import OrtcError, StageError
from ortc.common.plain_files import MOST_TEXTS, not_plain, read_plain_text
from ortc.common.values import digest
from ortc.frontend.samples.images import load_images, pillow_version
from ortc.frontend.samples.inputs import Samples
from ortc.frontend.samples.texts import encode, frame, padding, read_tokenizer
from ortc.inspection.entrypoint import entrypoint_digest
from ortc.inspection.image_files import image_files
from ortc.plan.plan import AxisPlan, InputPlan
from ortc.spec.accuracy import SamplesFunction

MAX_GIVEN = 1024
"""Samples that a function is asked for: half judges, half calibrates. More are not taken."""


def samples_digest(declared: str | SamplesFunction, root: Path) -> str:
    """sha256 of what the samples are: a file's bytes, a directory's images by path, or code and what lies beside it.

    Raises:
        StageError: there is no such file or module, or a directory has no images.
    """
    if isinstance(declared, SamplesFunction):
        return entrypoint_digest(declared.entrypoint, root)
    path = root / declared
    if path.is_dir():
        return digest([[file.relative_to(path).as_posix(), sha256_file(file)] for file in image_files(path)])
    if (kind := not_plain(path)) is not None:
        raise StageError(f"samples `{declared}` are {kind}, not a plain file", help="write what it gives into a file")
    if not path.is_file():
        raise StageError(f"samples `{declared}` do not exist", help=f"paths of a spec resolve against its root, {root}")
    return sha256_file(path)


def samples_key(declared: str | SamplesFunction, root: Path) -> str:
    """The digest, with what decides how samples are read, for cache keys.

    Raises:
        StageError: as `samples_digest`; or images need Pillow, which is not installed.
    """
    found = samples_digest(declared, root)
    if isinstance(declared, SamplesFunction):
        return digest([declared.entrypoint, found])
    return digest(["pillow", pillow_version(), found]) if (root / declared).is_dir() else found


def load_samples(
    declared: str | SamplesFunction,
    root: Path,
    model_directory: Path | None,
    inputs: tuple[InputPlan, ...],
    axes: tuple[AxisPlan, ...],
    given: list[object] | None = None,
) -> Samples:
    """Real inputs of a model.

    Args:
        declared: what the spec says: a path below `root`, or a function.
        root: the project.
        model_directory: the model's files.
        inputs: what the model takes.
        axes: the declared axes.
        given: what the function gave, where it has run already.

    Raises:
        StageError: unreadable, empty, or not for this model.
    """
    if isinstance(declared, SamplesFunction):
        given = given_samples(declared.entrypoint, root, model_directory) if given is None else given
        return Samples(arrays=stacked_samples(declared.entrypoint, given, inputs))
    path = root / declared
    if path.is_dir():
        return Samples(arrays=load_images(path, model_directory, inputs, axes))
    return read_samples(path, model_directory)


def given_samples(entrypoint: str, root: Path, model_directory: Path | None) -> list[object]:
    """Call a function of the user's that gives samples.

    It is called without arguments, or with `model_dir` where it has such a parameter, and gives an iterable of mappings
    from input to array, one sample each.

    Raises:
        StageError: it fails, ends the process, or gives nothing or something else.
    """
    from ortc.common.project import ending_is_an_error, resolve_entrypoint

    given: list[object] = []
    with ending_is_an_error(entrypoint):
        function = resolve_entrypoint(entrypoint, root)
        try:
            takes_directory = "model_dir" in inspect.signature(function).parameters
            found = function(model_dir=model_directory) if takes_directory else function()
            if not isinstance(found, Iterable) or isinstance(found, Mapping):
                raise StageError(
                    f"`{entrypoint}` gives {type(found).__name__}, not an iterable of samples",
                    help="return or yield a mapping from input to array for each sample",
                )
            given = list(itertools.islice(found, MAX_GIVEN))
        except OrtcError:
            raise
        except Exception as error:
            raise StageError(f"the samples `{entrypoint}` fail: {type(error).__name__}: {error}") from error
    if not given:
        raise StageError(f"the samples `{entrypoint}` are empty")
    return given


def stacked_samples(entrypoint: str, given: list[object], inputs: tuple[InputPlan, ...]) -> dict[str, Array]:
    """What a function gave, as an array an input with samples along axis 0.

    An array of a sample has the dimensions that the input declares, with the first of size 1 or without it.

    Raises:
        StageError: a sample is not for these inputs.
    """
    rows = [_row(entrypoint, index, sample, inputs) for index, sample in enumerate(given)]
    return {tensor.name: _stacked(entrypoint, tensor.name, [row[tensor.name] for row in rows]) for tensor in inputs}


def _row(entrypoint: str, index: int, sample: object, inputs: tuple[InputPlan, ...]) -> dict[str, Array]:
    """One sample without its batch dimension."""
    where = f"sample {index} of `{entrypoint}`"
    if not isinstance(sample, Mapping):
        raise StageError(f"{where} is {type(sample).__name__}, not a mapping from input to array")
    names = [tensor.name for tensor in inputs]
    if set(sample) != set(names):
        given = ", ".join(sorted(map(str, sample))) or "nothing"
        raise StageError(f"{where} has {given}; the model's inputs are {', '.join(names)}")
    row = {}
    for tensor in inputs:
        try:
            array = np.asarray(sample[tensor.name])
        except Exception as error:
            # Whatever the value's own conversion raises: a tensor on a GPU, rows of several lengths.
            raise StageError(f"`{tensor.name}` of {where} is no array: {type(error).__name__}: {error}") from error
        rank = len(tensor.shape)
        if array.ndim == rank and rank and array.shape[0] == 1:
            array = array[0]
        if not is_of(array, tensor.dtype) or array.ndim != max(rank - 1, 0):
            raise StageError(
                f"`{tensor.name}` of {where} is {array.dtype} {list(array.shape)}; the spec declares {tensor.dtype} "
                f"{list(tensor.shape)}, of which a sample is one, with the first dimension of size 1 or without it"
            )
        row[tensor.name] = array
    return row


def _stacked(entrypoint: str, name: str, rows: list[Any]) -> Array:
    shapes = {row.shape for row in rows}
    if len(shapes) > 1:
        found = " and ".join(str(list(shape)) for shape in sorted(shapes)[:2])
        raise StageError(
            f"the samples `{entrypoint}` give `{name}` in several shapes, such as {found}",
            help="pad them to one shape, with the model's mask where it has one",
        )
    return np.stack(rows)


def read_samples(path: Path, model_directory: Path | None) -> Samples:
    """Read a samples file: `.npz` with an array an input, else UTF-8 text with one sample a line.

    Raises:
        StageError: unreadable, empty, or text for a model without tokenizer.json.
    """
    if path.suffix == ".npz":
        return _load_npz(path)
    tokenizer_file = None if model_directory is None else model_directory / "tokenizer.json"
    if tokenizer_file is None or not tokenizer_file.is_file():
        raise StageError(
            f"samples are text (`{path.name}`), but the model's files have no tokenizer.json",
            help="list tokenizer.json in `model.files`, or give samples as .npz with an array an input",
        )
    try:
        lines = [line.strip() for line in read_plain_text(path, MOST_TEXTS).splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise StageError(f"samples `{path.name}` are not UTF-8: byte {error.start}") from error
    except OSError as error:
        raise StageError(f"cannot read the samples `{path.name}`: {error.strerror}") from error
    if not lines:
        raise StageError(f"samples `{path.name}` are empty")
    tokenizer = read_tokenizer(tokenizer_file)
    pads = padding(tokenizer, tokenizer_file.parent)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    texts = tuple(tuple(encoding.ids) for encoding in encode(tokenizer, lines, special=False))
    if not any(texts):
        raise StageError(f"samples `{path.name}` have no text that the tokenizer knows")
    around = frame(tokenizer, lines, path.name)
    return Samples(texts=tuple(text for text in texts if text), frame=around, padding=pads)


def _load_npz(path: Path) -> Samples:
    try:
        arrays = read_arrays(path)
    except (OSError, ValueError) as error:
        raise StageError(f"cannot read the samples `{path.name}`: {error}") from error
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if not arrays or len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise StageError(
            f"samples `{path.name}` need one array an input with the same number of samples along axis 0",
            details=tuple(f"{name}: {length}" for name, length in lengths.items()),
        )
    return Samples(arrays=arrays)
