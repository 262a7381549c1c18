"""The bodies of /v1/embeddings, /v1/rerank and /v1/predict: JSON to what is asked, within bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from serving.bounds import LONGEST_NAME, MOST_TEXTS, quoted
from serving.errors import RefusedError
from serving.json_bounds import Structure, count, structure

MOST_TOKENS = 2**20  # ids in one request
SLACK = 4096
BOUNDS = Structure(values=MOST_TOKENS + MOST_TEXTS + SLACK, lists=MOST_TEXTS + SLACK, objects=MOST_TEXTS + SLACK)
COMMON = ("model", "prompt", "user")
EMBEDDINGS = (*COMMON, "input", "encoding_format", "dimensions")
RERANK = (*COMMON, "query", "documents", "top_n", "return_documents")
PREDICT = (*COMMON, "inputs")
TEXT_FORMS = "a string, a list of strings, a list of token ids, or a list of lists of token ids"


@dataclass(frozen=True)
class TextsAsked:
    """What a request asks for: entries are texts, pairs of texts, images, sounds or tuples of token ids."""

    model: str | None
    prompt: str | None
    entries: Sequence[object]
    base64: bool = False
    dimensions: int | None = None
    top: int | None = None
    documents: bool = False  # whether the answer repeats them


def wrong(message: str, parameter: str | None = None) -> RefusedError:
    """A value that cannot be taken; `parameter` names it."""
    return RefusedError(400, "request", message, parameter=parameter)


def refuse_structure(body: bytes | bytearray) -> Structure:
    """What the JSON text holds, counted without parsing it.

    Raises:
        RefusedError: 400, it holds more than any request needs.
    """
    found = count(body, len(body))
    if found.beyond(BOUNDS):
        found = structure(body, len(body))
    if what := found.beyond(BOUNDS):
        raise wrong(f"the body holds more {what} than a request may: more than {getattr(BOUNDS, what)}")
    return found


def parse(body: bytes | bytearray) -> dict[str, Any]:
    """The JSON object of a body.

    Raises:
        RefusedError: 400, it is none.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise wrong(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise wrong("the body is not a JSON object")
    return document


def embeddings(document: Mapping[str, Any]) -> TextsAsked:
    """A request for vectors, in OpenAI's form; RefusedError with the name of the parameter that is wrong."""
    _known(document, EMBEDDINGS)
    model = _model(document)
    if model is None:
        raise wrong("you must provide a model parameter")
    form = document.get("encoding_format")
    if form not in (None, "float", "base64"):
        raise wrong("encoding_format is neither `float` nor `base64`", "encoding_format")
    dimensions = _number(document, "dimensions")
    return TextsAsked(
        model, _prompt(document), _inputs(document.get("input")), base64=form == "base64", dimensions=dimensions
    )


def rerank(document: Mapping[str, Any]) -> TextsAsked:
    """A query and documents, in the form of Jina and Cohere; RefusedError with what is wrong."""
    _known(document, RERANK)
    query, given = document.get("query"), document.get("documents")
    if not isinstance(query, str):
        raise wrong("query is not a string", "query")
    if not isinstance(given, list) or not given:
        raise wrong('documents is not a list of strings or of {"text"} with at least one entry', "documents")
    _count(given, "documents")
    documents = [_document(entry, index) for index, entry in enumerate(given)]
    repeat = document.get("return_documents")
    if not isinstance(repeat, bool | None):
        raise wrong("return_documents is neither true nor false", "return_documents")
    entries: list[object] = [{"text": query, "text_pair": text} for text in documents]
    top = _number(document, "top_n")
    return TextsAsked(_model(document), _prompt(document), entries, top=top, documents=bool(repeat))


def predict(document: Mapping[str, Any]) -> TextsAsked:
    """A text, an object of a request's parts, a row of values, or a list of them; RefusedError with what is wrong."""
    _known(document, PREDICT)
    given = document.get("inputs")
    # A list that holds a number is one row.
    is_row = isinstance(given, list) and any(isinstance(entry, int | float) for entry in given[:MOST_TEXTS])
    entries = given if isinstance(given, list) and not is_row else [given]
    if not entries:
        raise wrong("inputs is empty; send a text, a pair, a row, or a list of them", "inputs")
    _count(entries, "inputs")
    for index, entry in enumerate(entries):
        # What an object or a list holds is for the model's kind of answers to check.
        if not isinstance(entry, str | dict | list):
            place = f"inputs[{index}]" if entries is given else "inputs"
            raise wrong(
                f'{place} is neither a string, nor an object such as {{"text", "text_pair"}}, nor a list of values',
                "inputs",
            )
    return TextsAsked(_model(document), _prompt(document), entries)


DECODERS: dict[str, Callable[[Mapping[str, Any]], TextsAsked]] = {
    "embeddings": embeddings,
    "rerank": rerank,
    "predict": predict,
}


def _known(document: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in document:
        if name not in names:
            raise wrong(f"the argument {quoted(name)} is unknown; expected {', '.join(names)}", name[:LONGEST_NAME])


def _model(document: Mapping[str, Any]) -> str | None:
    model = document.get("model")
    if model is None:
        return None
    if not isinstance(model, str) or not model or len(model) > LONGEST_NAME:
        raise wrong("model is not the name of a model", "model")
    return model


def _prompt(document: Mapping[str, Any]) -> str | None:
    prompt = document.get("prompt")
    if not isinstance(prompt, str | None):
        raise wrong("prompt is not the name of one of the model's prompts", "prompt")
    return prompt


def _number(document: Mapping[str, Any], name: str) -> int | None:
    value = document.get(name)
    if value is None:
        return None
    if type(value) is not int or value < 1:
        raise wrong(f"{name} is not a whole number of at least 1", name)
    return value


def _count(entries: list[Any], name: str) -> None:
    if len(entries) > MOST_TEXTS:
        raise wrong(f"{name} has {len(entries)} entries, at most {MOST_TEXTS} are taken", name)


def _document(entry: object, index: int) -> str:
    if isinstance(entry, dict) and set(entry) == {"text"}:
        entry = entry["text"]
    if not isinstance(entry, str):
        raise wrong(f'documents[{index}] is neither a string nor {{"text"}} of a string', "documents")
    return entry


def _inputs(given: object) -> list[object]:
    """The texts, or the token ids as tuples."""
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list) or not given:
        raise wrong(f"input is empty or of another form; expected {TEXT_FORMS}", "input")
    if type(given[0]) is int:
        return [_ids(given, "input")]
    _count(given, "input")
    if isinstance(given[0], list):
        return [_ids(entry, f"input[{index}]") for index, entry in enumerate(given)]
    for index, entry in enumerate(given):
        if not isinstance(entry, str):
            raise wrong(f"input[{index}] is not a string; expected {TEXT_FORMS}", "input")
    return given


def _ids(entry: object, place: str) -> tuple[int, ...]:
    if not isinstance(entry, list) or not entry or set(map(type, entry)) != {int}:
        raise wrong(f"{place} is not a list of at least one token id", "input")
    return tuple(entry)
