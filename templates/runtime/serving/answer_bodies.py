"""The answers of /v1/embeddings, /v1/rerank and /v1/predict, and their errors, as JSON."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from serving.errors import RefusedError

if TYPE_CHECKING:
    from processing.answers import Processing

    from serving.answer_requests import TextsAsked
    from serving.calls import Call

Json = dict[str, Any]
Values = Sequence[Any]  # arrays, or answers where they are shaped
INVALID = "invalid_request_error"
TYPES = {429: "rate_limit_error", 500: "server_error", 503: "server_error"}
CODES = {"unknown-model": "model_not_found", "unauthorized": "invalid_api_key", "queue-full": "rate_limit_exceeded"}
PARAMETERS = {"unknown-model": "model"}


def embeddings(model: str, asked: TextsAsked, _: Processing, values: Values, tokens: int) -> Json:
    """Vectors as OpenAI answers them: lists of numbers, or float32 in base64."""

    def form(vector: NDArray[Any]) -> Any:
        vector = np.ascontiguousarray(vector, dtype="<f4")
        return base64.b64encode(vector.tobytes()).decode("ascii") if asked.base64 else vector

    data = [{"object": "embedding", "index": index, "embedding": form(vector)} for index, vector in enumerate(values)]
    return {"object": "list", "data": data, "model": model, "usage": _usage(tokens)}


def rerank(model: str, asked: TextsAsked, processing: Processing, values: Values, tokens: int) -> Json:
    """Documents by their scores, the highest first; equal ones in the order in which they came."""
    scores = [processing.shaped(value) for value in values]
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[: asked.top]
    results: list[Json] = [{"index": index, "relevance_score": scores[index]} for index in order]
    if asked.documents:
        for result in results:
            pair: Any = asked.entries[result["index"]]
            result["document"] = {"text": pair["text_pair"]}
    return {"model": model, "results": results, "usage": _usage(tokens)}


def predict(model: str, _: TextsAsked, __: Processing, values: Values, tokens: int) -> Json:
    """An answer for each text, of the kind that the model gives."""
    return {"model": model, "outputs": list(values), "usage": _usage(tokens)}


ENCODERS = {"embeddings": embeddings, "rerank": rerank, "predict": predict}


def encode(route: str, model: str, asked: TextsAsked, processing: Processing, values: Values, tokens: int) -> bytes:
    """The body of an answer.

    Raises:
        RefusedError: 422, an infinity or NaN that JSON cannot say.
    """
    if not all(map(_is_finite, values)):
        raise RefusedError(422, "numerics", "the answer holds NaN or infinity, which JSON cannot say")
    body = ENCODERS[route](model, asked, processing, values, tokens)
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def _is_finite(value: Any) -> bool:
    """Whether every number of an answer can be said in JSON."""
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return not isinstance(value, float | np.ndarray) or bool(np.isfinite(value).all())


def error_of(status: int, kind: str, message: str, parameter: str | None = None) -> Json:
    """Why there is no answer, in OpenAI's form."""
    return {
        "error": {
            "message": message,
            "type": TYPES.get(status, INVALID),
            "param": parameter or PARAMETERS.get(kind),
            "code": CODES.get(kind),
        }
    }


def error_body(call: Call) -> bytes:
    """Why a call was not answered, in OpenAI's form; Cohere's clients read `message`."""
    document = error_of(call.status, call.kind, call.problem, call.parameter)
    if call.route == "rerank":
        document["message"] = call.problem
    return orjson.dumps(document)


def _usage(tokens: int) -> Json:
    return {"prompt_tokens": tokens, "total_tokens": tokens}
