"""/v1/embeddings, /v1/rerank and /v1/predict: a body to texts or files, the model that it names, and its answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from serving.answer_bodies import encode
from serving.answer_requests import DECODERS, TextsAsked, parse, refuse_structure, wrong
from serving.app import Application
from serving.calls import Call
from serving.errors import RefusedError, bad
from serving.forms import is_form
from serving.forms import parse as parse_form
from serving.memory import Hold
from serving.models import Served
from serving.text_tensors import FILES
from serving.texts import Asked
from serving.threads import in_thread

if TYPE_CHECKING:
    from processing.answers import Processing

T = TypeVar("T")
PATHS = {f"/v1/{name}": name for name in DECODERS}
LARGE_BYTES = 65536  # of a body, or values of an answer: made in a thread
WIDEST = 4  # bytes that a character of a text takes where one of them is wide
NUMBER_BYTES = 16  # of an answer's JSON for one value, about


class AnswerRoutes:
    """Answers requests of texts, images and sounds."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def answer(self, call: Call, content: bytes | bytearray, content_type: str, held: Hold) -> bytes:
        """The body of the answer to a body of JSON, or to a form with files.

        Raises:
            RefusedError: The request cannot be answered.
            UnknownModelError: There is no such model.
        """
        application, route = self._application, call.route
        asked = await self._asked(route, content, content_type, held)
        call.name = application.default if asked.model is None else asked.model
        served = await application.lease(call)
        processing = _processing(served, route)
        self._check_dimensions(served, processing, asked)
        if served.texts is not None:
            take = served.texts.entries
            asked = replace(asked, entries=await _made(lambda: take(asked.entries), large=len(content) > LARGE_BYTES))
        shaped = route == "predict"
        # What an answer of several outputs is read from is for its kind to say.
        names = [processing.output] if processing.form.of_one_row else served.model.output_names()
        answered = await application.answer(served, held, Asked(asked.entries, names, asked.prompt, shaped))
        values = answered.values if shaped else [row[processing.output] for row in answered.values]
        if asked.dimensions is not None:
            cut: Any = getattr(processing.form, "cut", lambda vector, _: vector)
            values = [cut(vector, asked.dimensions) for vector in values]
        size = sum(np.size(value) for value in values if isinstance(value, np.ndarray))
        self._application.memory.take(held, NUMBER_BYTES * size)
        model = served.model.name
        return await _made(
            lambda: encode(route, model, asked, processing, values, answered.tokens), large=size > LARGE_BYTES
        )

    async def _asked(self, route: str, content: bytes | bytearray, content_type: str, held: Hold) -> TextsAsked:
        large = len(content) > LARGE_BYTES
        if is_form(content_type):
            if route != "predict":
                raise RefusedError(415, "request", f"/v1/{route} takes application/json alone")
            form = await _made(lambda: parse_form(content, content_type, FILES), large=large)
            return TextsAsked(form.fields.get("model"), None, list(form.files))
        found = await _made(lambda: refuse_structure(content), large=large)
        self._application.memory.take(held, found.bytes + (WIDEST * len(content) if large else 0))
        return await _made(lambda: DECODERS[route](parse(content)), large=large)

    @staticmethod
    def _check_dimensions(served: Served, processing: Processing, asked: TextsAsked) -> None:
        """Vectors are cut to the sizes that the model was trained for, and to no other."""
        (tensor,) = (tensor for tensor in served.model.outputs if tensor.name == processing.output)
        known = getattr(processing.form, "dimensions", ())
        if asked.dimensions not in (None, tensor.shape[-1], *known):
            said = f"which are cut to {', '.join(map(str, known))}" if known else "which cannot be cut"
            raise wrong(
                f"{served.model.name} gives vectors of {tensor.shape[-1]} numbers, {said}; leave dimensions out",
                "dimensions",
            )


WANTED = {"embeddings": "embedding", "rerank": "score"}


def _processing(served: Served, route: str) -> Processing:
    """How the model answers texts; RefusedError where it does not answer what is asked for."""
    name = served.model.name
    if served.texts is None:
        raise bad(f"{name} takes tensors alone; send them to /v2/models/{name}/infer")
    processing = served.texts.processing
    wanted = WANTED.get(route, processing.kind)
    if processing.kind != wanted or (processing.media is not None and route != "predict"):
        of_kind = [way for way, kind in WANTED.items() if kind == processing.kind and processing.media is None]
        ways = of_kind or ["predict"]
        raise RefusedError(
            400,
            "request",
            f"{name} is a model for {processing.task}, which /v1/{route} does not answer; use /v1/{ways[0]}",
            parameter="model",
        )
    return processing


async def _made(work: Callable[[], T], *, large: bool) -> T:
    return await in_thread(work) if large else work()
