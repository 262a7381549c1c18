"""What the process of a model says about texts: its own tokenizer, and its answers to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ortc.common.errors import StageError
from ortc.plan.plan import ExportPlan, ModelPlan
from ortc.plan.processing import AnswerForm
from ortc.spec.model_sources import HuggingFaceSource

if TYPE_CHECKING:
    from ortc.frontend.reference.model import Reference
    from ortc.frontend.reference.texts import ReferenceTexts

Json = dict[str, Any]


class Holder(Protocol):
    """Who holds the model."""

    source: ModelPlan | None
    directory: Path

    def loaded(self) -> tuple[Reference, ExportPlan]:
        """The model, and how it is exported; StageError where none is loaded."""


class TextOperations:
    """Operations `texts`, `tokens` and `answers` of one model."""

    def __init__(self, server: Holder) -> None:
        self._server = server
        self._made: ReferenceTexts | None = None
        self.operations: dict[str, Callable[[Json], Json]] = {
            "texts": self._write,
            "tokens": self._tokens,
            "answers": self._answers,
        }

    def _write(self, request: Json) -> Json:
        """{form, bound, inputs, tokenizer: path} -> {"processing", "special", "mask"}; the tokenizer is written.

        They are the content of processing.json of a bundle, the special tokens as texts, and the mask token.

        Raises:
            StageError: the model's own tokenizer cannot be reproduced.
        """
        from ortc.frontend.reference.texts import ReferenceTexts

        self._server.loaded()
        source = self._server.source
        if not isinstance(source, HuggingFaceSource):
            raise StageError("the model's source has no tokenizer")
        form = AnswerForm.model_validate(request["form"])
        made = ReferenceTexts(source, self._server.directory, form, int(request["bound"]), request["inputs"])
        made.write(Path(request["tokenizer"]))
        self._made = made
        return {
            "processing": made.processing.model_dump(mode="json"),
            "special": list(made.special),
            "mask": made.tokenizer.mask_token,
        }

    def _tokens(self, request: Json) -> Json:
        """{texts} -> {"rows": [{"ids", "types"}, …]}, by the model's own tokenizer."""
        return {"rows": self._texts().rows(request["texts"])}

    def _answers(self, request: Json) -> Json:
        """{texts} -> {"answers": […]}, each text by itself."""
        from ortc.frontend.reference.answers import reference_answers

        reference, _ = self._server.loaded()
        return {"answers": reference_answers(self._texts(), request["texts"], reference)}

    def _texts(self) -> ReferenceTexts:
        if self._made is None:
            raise StageError("no tokenizer is loaded")
        return self._made
