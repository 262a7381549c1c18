"""The OpenAPI document of the server, with the inputs of the models it holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loading.interface import Tensor
from loading.model import Model

from serving import examples
from serving.answer_openapi import models_of, text_paths
from serving.bounds import MOST_FILES, MOST_TEXTS
from serving.models import Served
from serving.protocol import NAMES
from serving.text_tensors import DATATYPE

Json = dict[str, Any]
VERSION = "3.0.3"


def document(models: Sequence[Served], repository: bool) -> Json:
    """The document of what is loaded; `repository` tells whether models can be loaded and unloaded."""
    error = {str(status): _answer("Why not", {"$ref": "#/components/schemas/AnswerError"}) for status in ERRORS}
    paths: Json = {
        "/v2": _get("Server metadata", _object({"name": _STRING, "version": _STRING, "extensions": _list(_STRING)})),
        "/v2/models": _get("The names of the models", _object({"models": _list(_STRING)})),
        "/v1/models": _get("The models", _object({"object": _STRING, "data": _list({"type": "object"})})),
        "/v2/health/live": _get("Whether the process answers", _object({"live": _BOOLEAN})),
        "/v2/health/ready": _get("Whether requests are served", _object({"ready": _BOOLEAN}), 503),
        "/metrics": {"get": {"summary": "Prometheus metrics", "responses": {"200": _text("The exposition")}}},
        "/openapi.json": _get("This document", {"type": "object"}),
    }
    for served in models:
        model = served.model
        for prefix in (f"/v2/models/{model.name}", f"/v2/models/{model.name}/versions/{model.version}"):
            paths[prefix] = _get("The interface of the model", _METADATA)
            paths[f"{prefix}/ready"] = _get("Whether it is served", _object({"name": _STRING, "ready": _BOOLEAN}), 503)
            paths[f"{prefix}/infer"] = {"post": _infer(served)}
    paths |= text_paths(models, error)
    if repository:
        told = ("name", "version", "state", "reason")
        taken = dict.fromkeys(("memory_bytes", "device_memory_bytes"), _INTEGER)  # of what is loaded
        states = _object(dict.fromkeys(told, _STRING) | taken, told)
        paths["/v2/repository/index"] = _post("Every model", _object({"ready": _BOOLEAN}, ()), _list(states))
    return {
        "openapi": VERSION,
        "info": {"title": "Open Inference Protocol", "version": "2"},
        "paths": paths,
        "components": {"schemas": {"Error": _object({"error": _STRING}), "AnswerError": _ANSWER_ERROR}},
        "x-models": models_of(models),
    }


WORDS = {"text": "texts", "image": "images", "audio": "sounds", "row": "rows"}
ERRORS = (400, 401, 404, 408, 413, 415, 422, 429, 503)
_STRING: Json = {"type": "string"}
_NULLABLE: Json = {"type": "string", "nullable": True}
_BOOLEAN: Json = {"type": "boolean"}
_INTEGER: Json = {"type": "integer"}


def _list(items: Json, **more: Any) -> Json:
    return {"type": "array", "items": items, **more}


def _object(properties: Json, required: Sequence[str] | None = None) -> Json:
    found: Json = {"type": "object", "properties": properties}
    needed = list(properties if required is None else required)
    return {**found, "required": needed} if needed else found


_ANSWER_ERROR = _object(
    {"error": _object({"message": _STRING, "type": _STRING, "param": _NULLABLE, "code": _NULLABLE})}
)
_TENSOR = _object({"name": _STRING, "datatype": _STRING, "shape": _list(_INTEGER)})
_METADATA = _object(
    {
        "name": _STRING,
        "versions": _list(_STRING),
        "platform": _STRING,
        "inputs": _list(_TENSOR),
        "outputs": _list(_TENSOR),
    }
)


def _text(description: str) -> Json:
    return {"description": description, "content": {"text/plain": {"schema": _STRING}}}


def _answer(description: str, schema: Json, *types: str) -> Json:
    return {"description": description, "content": {kind: {"schema": schema} for kind in ("application/json", *types)}}


def _errors(*statuses: int) -> Json:
    reference: Json = {"$ref": "#/components/schemas/Error"}
    return {str(status): _answer("Why not", reference) for status in statuses}


def _get(summary: str, schema: Json, *also: int) -> Json:
    answers = {"200": _answer(summary, schema), **{str(status): _answer("Not now", schema) for status in also}}
    return {"get": {"summary": summary, "responses": {**answers, **_errors(404)}}}


def _post(summary: str, request: Json, schema: Json) -> Json:
    body = {"content": {"application/json": {"schema": request}}}
    return {
        "post": {
            "summary": summary,
            "requestBody": body,
            "responses": {"200": _answer(summary, schema), **_errors(400)},
        }
    }


def _infer(served: Served) -> Json:
    model, texts = served.model, served.texts
    output = _object({"name": {"type": "string", "enum": [*(t.name for t in model.outputs), *served.made]}}, ("name",))
    output["properties"]["parameters"] = _object({"binary_data": _BOOLEAN}, ())
    request = _object(
        {
            "id": {"type": "string", "maxLength": 64},
            "inputs": _list(
                {"oneOf": [*(_input(tensor, model) for tensor in model.inputs), *_texts(served)]},
                minItems=1 if served.capacity.texts else len(model.inputs),
                maxItems=len(model.inputs),
            ),
            "outputs": _list(output),
            "parameters": _object({"binary_data_output": _BOOLEAN}, ()),
        },
        ("inputs",),
    )
    answer = _object({"model_name": _STRING, "model_version": _STRING, "id": _STRING, "outputs": _list(_TENSOR)}, ())
    head = {"name": "Inference-Header-Content-Length", "in": "header", "schema": {"type": "integer", "minimum": 0}}
    shown = [
        ("tensors", served.example),
        (
            "texts" if texts is None else WORDS[texts.processing.takes],
            examples.text_tensors_of(texts) if texts is not None and texts.takes_tensors else None,
        ),
    ]
    working: Json = {name: {"value": value} for name, value in shown if value is not None}
    return {
        "summary": f"Run {model.name}",
        "parameters": [head],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": request, **({"examples": working} if working else {})},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        },
        "responses": {
            "200": _answer("The outputs", answer, "application/octet-stream"),
            **_errors(*ERRORS),
        },
    }


def _texts(served: Served) -> list[Json]:
    """The inputs of texts, images or sounds, where the model takes them."""
    if served.texts is None or not served.texts.takes_tensors:
        return []
    texts = served.texts
    names = texts.inputs if texts.processing.pairs else texts.inputs[:1]
    most = MOST_TEXTS if texts.processing.media is None else MOST_FILES
    return [
        _object(
            {
                "name": {"type": "string", "enum": [name]},
                "datatype": {"type": "string", "enum": [DATATYPE]},
                "shape": _list({"type": "integer", "minimum": 1, "maximum": most}, minItems=1, maxItems=2),
                "data": _list(_STRING, minItems=1, maxItems=most),
                "parameters": _object({"binary_data_size": {"type": "integer", "minimum": 0}}, ()),
            },
            ("name", "datatype", "shape"),
        )
        for name in names
    ]


def _axes(tensor: Tensor, model: Model) -> Json:
    """What is said of the axes of an input, in order: their names and bounds."""
    known = {axis.name: axis for axis in model.axes}
    axes: list[Json] = []
    for size in tensor.shape:
        if isinstance(size, str):
            axis = known[size]
            bounds = {"minimum": axis.min, "maximum": axis.max}
            step = {"multipleOf": axis.multiple_of} if axis.multiple_of > 1 else {}
            axes.append({"name": size, **bounds, **step, **({"equals": axis.sum} if axis.terms else {})})
        else:
            axes.append({"minimum": size, "maximum": size})
    told = [f"{a['name']} {a['minimum']} to {a['maximum']}" if "name" in a else f"{a['minimum']}" for a in axes]
    return {"description": f"Axes: {', '.join(told) or 'none'}", "x-axes": axes}


def _input(tensor: Tensor, model: Model) -> Json:
    bounds = {axis.name: (axis.min, axis.max) for axis in model.axes}
    sizes = [bounds[size] if isinstance(size, str) else (size or 0, size or 0) for size in tensor.shape]
    value: Json = {"type": {"f": "number", "b": "boolean", "U": "string"}.get(tensor.dtype.kind, "integer")}
    if tensor.range is not None:
        value |= {"minimum": tensor.range[0], "maximum": tensor.range[1]}
    shape: Json = {"type": "integer", "minimum": min((low for low, _ in sizes), default=0)}
    shape["maximum"] = max((high for _, high in sizes), default=0)
    made = _object(
        {
            "name": {"type": "string", "enum": [tensor.name]},
            "datatype": {"type": "string", "enum": [NAMES[tensor.dtype]]},
            "shape": _list(shape, minItems=len(sizes), maxItems=len(sizes)),
            "data": _list(value),
            "parameters": _object({"binary_data_size": {"type": "integer", "minimum": 0}}, ()),
        },
        ("name", "datatype", "shape"),
    )
    return {**made, **_axes(tensor, model)}
