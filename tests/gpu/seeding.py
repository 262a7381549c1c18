"""Weights that any machine makes anew from their names, to the last bit, and files that are put together from them.

Needs numpy alone. Every number comes of 64-bit words of PCG64, whose stream is fixed, by integer sums and at most two
roundings of IEEE arithmetic: no logarithm or cosine, whose last digit differs between libraries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
LANES = 4
"""16-bit numbers that are added up: close to a normal distribution, of a spread that is known exactly."""
SPREAD = 65536 * (LANES / 12) ** 0.5
WEIGHT = 0.04
"""Standard deviation of matrices and embeddings, about that of a trained BERT's."""
VECTOR = 0.1
"""Of biases, and of the scales of normalizations around 1, which are 0 and 1 before training and then hide mistakes."""


def seeded(name: str, shape: Sequence[int], seed: int) -> NDArray[np.float32]:
    """The parameter of that name: a function of name, shape and seed.

    Args:
        name: as in the model's state dictionary; a vector `*.weight` is a normalization's scale.
        shape: of the parameter.
        seed: of the model.
    """
    key = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16], "little")
    count = int(np.prod(shape, dtype=np.int64))
    words = np.random.PCG64(key).random_raw(count).astype("<u8", copy=False)
    sums = words.view("<u2").reshape(count, LANES).sum(axis=1, dtype=np.int32) - LANES * 65535 // 2
    vector = len(shape) < 2
    numbers = sums.astype(np.float32) * np.float32((VECTOR if vector else WEIGHT) / SPREAD)
    if vector and name.endswith(".weight"):
        numbers += np.float32(1)
    return np.asarray(numbers.reshape(shape), np.float32)


def digest(data: Array | bytes) -> str:
    """sha256, in hex, of an array's bytes in C order."""
    return hashlib.sha256(data if isinstance(data, bytes) else np.ascontiguousarray(data).data).hexdigest()


def cast(array: NDArray[np.float32], dtype: str) -> Array:
    """float32 rounded to the nearest, ties to even; bfloat16 as its bits, because numpy has none."""
    if dtype == "bfloat16":
        bits = np.ascontiguousarray(array).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return array.astype(dtype, copy=False)


class Weights:
    """A model's parameters, each made when it is first asked for and compared with its digest."""

    def __init__(self, model: Mapping[str, Any]) -> None:
        """Of a model of pack.json: `seed`, and `parameters` with name, shape and sha256 each."""
        self._seed = int(model["seed"])
        self._listed = {str(entry["name"]): entry for entry in model["parameters"]}
        self._made: dict[str, NDArray[np.float32]] = {}

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        """A parameter; ValueError when this machine makes another than the one that was packed."""
        if name not in self._made:
            entry = self._listed[name]
            array = seeded(name, entry["shape"], self._seed)
            if digest(array) != entry["sha256"]:
                raise ValueError(f"{name} comes out as {digest(array)} here, {entry['sha256']} was packed")
            self._made[name] = array
        return self._made[name]

    def all(self) -> dict[str, NDArray[np.float32]]:
        """Every parameter by name."""
        return {name: self[name] for name in self._listed}

    def tensor(self, recipe: Mapping[str, Any]) -> Array:
        """What a recipe says: parameters `of` these names, each turned or not, joined along an axis, as a type."""
        parts = [self[name].T if recipe["turned"] else self[name] for name in recipe["of"]]
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=recipe["axis"])
        return np.ascontiguousarray(cast(np.ascontiguousarray(joined), recipe["dtype"]))


def restore(pack: Path, entry: Mapping[str, Any], weights: Weights, place: Path) -> None:
    """Put a packed bundle together in a new directory.

    Args:
        pack: the directory that holds blobs/.
        entry: a variant of pack.json: `stamp`, and `files` of path, sha256 and pieces, each a blob or a recipe.
        weights: of its model.
        place: to be made.

    Raises:
        ValueError: a file comes out with another digest.
    """
    import os

    for file in entry["files"]:
        path, found = place / file["path"], hashlib.sha256()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            for piece in file["pieces"]:
                blob = piece.get("blob")
                data = weights.tensor(piece).tobytes() if blob is None else (pack / "blobs" / blob).read_bytes()
                found.update(data)
                stream.write(data)
        if found.hexdigest() != file["sha256"]:
            raise ValueError(f"{path} comes out as {found.hexdigest()}, {file['sha256']} was packed")
        os.utime(path, (entry["stamp"], entry["stamp"]))
