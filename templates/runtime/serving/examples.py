"""Requests that work as they are, for the OpenAPI document and the page: of golden inputs or files, or of texts."""

from __future__ import annotations

import contextlib
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from loading.arrays import Arrays
from loading.errors import BundleError
from loading.model import Model
from loading.selftest import first_inputs

from serving.protocol import NAMES

if TYPE_CHECKING:
    from serving.texts import TextModel

Json = dict[str, Any]
MOST_VALUES = 4096  # of an example
TEXTS = ("A man is playing a guitar.", "The invoice is due next week.")
QUERY, DOCUMENTS = "Where is the station?", ["The station is behind the park.", "Apples are red."]


def tensors_of(model: Model) -> Json | None:
    """A request of the first golden inputs, or of the least ones; None where JSON cannot say them, or is too long."""
    found = [first_inputs(model.root, model.manifest)]
    with contextlib.suppress(BundleError):  # inputs that cannot be made: the golden ones are all there is
        found.append(model.example({axis.name: axis.min for axis in model.axes}))
    for arrays in found:
        if arrays and _is_short(arrays):
            return {"inputs": [_tensor(name, array) for name, array in arrays.items()]}
    return None


def _is_short(arrays: Arrays) -> bool:
    finite = all(array.dtype.kind != "f" or np.isfinite(array).all() for array in arrays.values())
    return finite and sum(math.prod(array.shape) for array in arrays.values()) <= MOST_VALUES


def _tensor(name: str, array: Any) -> Json:
    return {
        "name": name,
        "shape": list(array.shape),
        "datatype": "BYTES" if array.dtype.kind == "U" else NAMES[array.dtype],
        "data": array.ravel().tolist(),
    }


def routes_of(name: str, texts: TextModel) -> dict[str, Json]:
    """Requests to the routes for texts, images or sounds that the model answers, by route."""
    processing = texts.processing
    if texts.takes == "row":
        return {"predict": {"model": name, "inputs": texts.example}}
    if processing.media is not None:
        return {"predict": {"model": name, "inputs": {processing.takes: texts.example}}}
    pair = {"text": TEXTS[0], "text_pair": TEXTS[1]}
    inputs: dict[str, Any] = {
        "score": pair,
        "span": {"question": QUERY, "context": DOCUMENTS[0]},
        "zero-shot": {"text": TEXTS[0], "labels": ["music", "money"]},
    }
    vocabulary = processing.texts.vocabulary
    if vocabulary.mask is not None:
        inputs["fill-mask"] = f"A man is playing a {vocabulary.token(vocabulary.mask)}."
    found: dict[str, Json] = {"predict": {"model": name, "inputs": inputs.get(processing.kind, TEXTS[0])}}
    if processing.kind == "embedding":
        found["embeddings"] = {"model": name, "input": list(TEXTS)}
    if processing.kind == "score":
        found["rerank"] = {"model": name, "query": QUERY, "documents": DOCUMENTS}
    return found


def row_of(model: Model) -> Any:
    """The first row of the golden inputs, or of the least ones."""
    arrays = first_inputs(model.root, model.manifest) or model.example({axis.name: axis.min for axis in model.axes})
    made: Any = model.processing()
    return made.example(arrays)


def file_of(model: Model, takes: str) -> str:
    """The smallest golden image or sound of a bundle, in base64."""
    path = model.root / str(model.manifest["processing"]["golden"]["file"])
    return min((str(case[takes]) for case in json.loads(path.read_bytes())["cases"]), key=len)


def text_tensors_of(texts: TextModel) -> Json:
    """A request of texts, of an image or of a sound as tensors."""
    if texts.processing.media is not None:
        return {
            "inputs": [{"name": texts.processing.takes, "shape": [1], "datatype": "BYTES", "data": [texts.example]}]
        }
    given = zip(("text", "text_pair"), TEXTS, strict=True)
    inputs = [{"name": name, "shape": [1], "datatype": "BYTES", "data": [text]} for name, text in given]
    return {"inputs": inputs if texts.processing.kind == "score" else inputs[:1]}
