"""What the OpenAPI document says of the routes for texts and files, and of the models that the page shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from serving import examples
from serving.bounds import MOST_TEXTS
from serving.models import Served
from serving.protocol import NAMES
from serving.text_sizes import MOST_CHARACTERS
from serving.text_tensors import FILES

Json = dict[str, Any]
_TEXT: Json = {"type": "string", "maxLength": MOST_CHARACTERS}
_COUNT: Json = {"type": "integer"}
_USAGE: Json = {"type": "object", "properties": {"prompt_tokens": _COUNT, "total_tokens": _COUNT}}
_TOKENS: Json = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_PROMPT: Json = {"type": "string", "nullable": True, "description": "The name of one of the model's prompts"}
_PAIR: Json = {
    "type": "object",
    "properties": {"text": _TEXT, "text_pair": _TEXT},
    "required": ["text"],
    "additionalProperties": False,
}
_DOCUMENT: Json = {"type": "object", "properties": {"text": _TEXT}, "required": ["text"], "additionalProperties": False}
_ROW: Json = {
    "description": "Numbers of all columns in their order, or an object of columns",
    "oneOf": [
        {"type": "array", "items": {"type": "number"}, "minItems": 1},
        {"type": "object", "additionalProperties": {"oneOf": [{"type": "number"}, {"type": "array"}]}},
    ],
}
_SCORE: Json = {"type": "number", "minimum": 0, "maximum": 1, "description": "Of objects: the least score"}
_FILES: list[Json] = [
    {
        "type": "object",
        "properties": {
            name: {"type": "string", "description": f"The file of the {name} in base64, or its data URL"},
            **more,
        },
        "required": [name],
        "additionalProperties": False,
    }
    for name, more in (("image", {"threshold": _SCORE}), ("audio", {}))
]


def _several(*items: Json) -> Json:
    entry: Json = items[0] if len(items) == 1 else {"oneOf": list(items)}
    return {"type": "array", "items": entry, "minItems": 1, "maxItems": MOST_TEXTS}


SUMMARIES = {
    "embeddings": "Vectors of texts, as OpenAI has them",
    "rerank": "Documents by how well they answer a query",
    "predict": "Answers to texts, pairs of texts, images, sounds or rows",
}
REQUESTS: dict[str, tuple[Json, list[str]]] = {
    "embeddings": (
        {
            "input": {"oneOf": [_TEXT, _several(_TEXT), _TOKENS, _several(_TOKENS)]},
            "encoding_format": {"type": "string", "enum": ["float", "base64"]},
        },
        ["model", "input"],
    ),
    "rerank": (
        {
            "query": _TEXT,
            "documents": _several(_TEXT, _DOCUMENT),
            "top_n": {"type": "integer", "minimum": 1},
            "return_documents": {"type": "boolean"},
        },
        ["query", "documents"],
    ),
    "predict": (
        {"inputs": {"anyOf": [_TEXT, _PAIR, *_FILES, _ROW, _several(_TEXT, _PAIR, *_FILES, _ROW)]}},
        ["inputs"],
    ),
}
LISTS = {"embeddings": "data", "rerank": "results", "predict": "outputs"}


def text_paths(models: Sequence[Served], errors: Json) -> Json:
    """The routes for texts that one of the models answers, each with a request that works for every such model."""
    shown: dict[str, Json] = {}
    for served in models:
        if served.texts is not None:
            for route, body in examples.routes_of(served.model.name, served.texts).items():
                shown.setdefault(route, {})[served.model.name] = {"value": body}
    found = {f"/v1/{route}": {"post": _post(route, working, errors)} for route, working in shown.items()}
    taken = {served.texts.processing.takes for served in models if served.texts is not None}
    if names := [name for name in FILES if name in taken]:
        found["/v1/predict"]["post"]["requestBody"]["content"]["multipart/form-data"] = {"schema": _form(names)}
    return found


def _form(names: Sequence[str]) -> Json:
    """A form with files of some names."""
    files: Json = {name: {"type": "string", "format": "binary"} for name in names}
    return {
        "type": "object",
        "properties": {**files, "model": {"type": "string"}},
        "anyOf": [{"required": [name]} for name in names],
    }


def _post(route: str, working: Json, errors: Json) -> Json:
    own, required = REQUESTS[route]
    model: Json = {"type": "string", "enum": list(working)}
    properties = {"model": model, **own, "prompt": _PROMPT, "user": {"type": "string"}}
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    answers: Json = {LISTS[route]: {"type": "array"}, "model": {"type": "string"}, "usage": _USAGE}
    answers[LISTS[route]]["items"] = {}
    answer = {"type": "object", "properties": answers, "required": list(answers)}
    return {
        "summary": SUMMARIES[route],
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema, "examples": working}}},
        "responses": {
            "200": {"description": SUMMARIES[route], "content": {"application/json": {"schema": answer}}},
            **errors,
        },
    }


def models_of(models: Sequence[Served]) -> list[Json]:
    """What the page needs to know of each model."""
    return [_model(served) for served in models]


def _model(served: Served) -> Json:
    model, texts = served.model, served.texts
    found: Json = {"name": model.name, "version": model.version, "target": model.target, "example": served.example}
    found["inputs"] = [
        {"name": tensor.name, "datatype": NAMES[tensor.dtype], "shape": list(tensor.shape)} for tensor in model.inputs
    ]
    if texts is not None:
        processing = texts.processing
        found |= {
            "kind": processing.kind,
            "task": processing.task,
            "takes": texts.takes,
            "pairs": processing.pairs,
            "routes": examples.routes_of(model.name, texts),
        }
    return found
