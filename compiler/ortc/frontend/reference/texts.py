"""Texts as the model's own tokenizer reads them, and the answers that PyTorch gives to them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ortc.common.errors import StageError
from ortc.frontend.reference.model import Reference
from ortc.inspection.recipe import Recipe, read_recipe
from ortc.inspection.repository import of_directories
from ortc.inspection.text_length import declared_length
from ortc.plan.processing import AnswerForm, Padding, Processing, TextProcessing
from ortc.plan.texts import MASK, TYPES
from ortc.spec.interface import TextInterface
from ortc.spec.model_sources import HuggingFaceSource

if TYPE_CHECKING:
    import torch

Request = str | dict[str, str]
"""A text, or a pair: `text` and `text_pair`."""
WAY_OUT = "`interface: tensors` in `model` builds a bundle of the model's tensors, without texts"


class ReferenceTexts:
    """The model's own tokenizer, with the settings of its repository and of the spec.

    Args:
        source: the model's source.
        directory: the model's files.
        form: how the bundle answers.
        bound: the most tokens that the model's inputs hold.
        inputs: names of the model's inputs.

    Raises:
        StageError: transformers cannot load the tokenizer, or what it does cannot be reproduced.
    """

    def __init__(
        self, source: HuggingFaceSource, directory: Path, form: AnswerForm, bound: int, inputs: Sequence[str]
    ) -> None:
        repository = of_directories((directory,))
        self._recipe = read_recipe(repository) or Recipe(steps=())
        self._settings = source.interface if isinstance(source.interface, TextInterface) else TextInterface()
        self._tokenizer = _load(directory)
        if self._recipe.lower_case:
            _lower(self._tokenizer)
        # The state of the file that ships: what a call sets would be kept.
        self._content = self._tokenizer.backend_tokenizer.to_str()
        declared = declared_length(source, repository)
        if declared is not None and declared[0] > bound:
            raise StageError(
                f"texts may have {declared[0]} tokens by {declared[1]}, but the model's inputs hold {bound}",
                help=f"set `model.interface.max_length` to {bound} or less, or raise the bound of the axis",
            )
        text = self._text(bound if declared is None else declared[0])
        self.processing = Processing(task=source.task, text=text, answer=form)
        if form.kind in ("labels", "score"):
            self._allow_pairs(inputs)

    def _allow_pairs(self, inputs: Sequence[str]) -> None:
        """Take pairs of texts, where the model reads the token types that tell them apart.

        Raises:
            StageError: a ranking needs pairs, and the model does not.
        """
        types = self._encoded({"text": "a", "text_pair": "b"})[TYPES]
        if TYPES in inputs or not any(types):
            text = self.processing.text.model_copy(update={"pairs": True})
            self.processing = self.processing.model_copy(update={"text": text})
        elif self.processing.answer.kind == "score":
            raise StageError(
                f"a ranking takes pairs of texts, which the tokenizer tells apart by `{TYPES}`, and that is no input",
                help=f"declare `{TYPES}` in `export.inputs`; or: {WAY_OUT}",
            )

    def _text(self, length: int) -> TextProcessing:
        prompts, tokenizer = self._recipe.prompts, self._tokenizer
        prompt = prompts.get(self._recipe.default_prompt or "", "")
        if self._settings.prompt is not None:
            prompt = prompts.get(self._settings.prompt, self._settings.prompt)
        return TextProcessing(
            max_length=length,
            truncation=self._settings.truncation or tokenizer.truncation_side,
            padding=_padding(tokenizer),
            prompt=prompt,
            prompts=prompts,
        )

    @property
    def special(self) -> tuple[str, ...]:
        """The tokenizer's special tokens as texts."""
        return tuple(map(str, self._tokenizer.all_special_tokens))

    def write(self, path: Path) -> None:
        """Write the tokenizer as `tokenizers` reads it, without padding and truncation of its own."""
        content = {**json.loads(self._content), "padding": None, "truncation": None}
        path.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")), "utf-8")

    def rows(self, texts: Sequence[Request]) -> list[dict[str, list[int]]]:
        """Token ids and token types of every text, cut as the bundle cuts them and not padded."""
        return [{"ids": row["input_ids"], "types": row[TYPES]} for row in map(self._encoded, texts)]

    def _encoded(self, request: Request) -> dict[str, list[int]]:
        settings = self.processing.text
        cuts = {} if settings.truncation == "refuse" else {"truncation": True, "max_length": settings.max_length}
        if cuts:
            self._tokenizer.truncation_side = settings.truncation
        pair = {} if isinstance(request, str) else {"text_pair": request["text_pair"]}
        text = request if isinstance(request, str) else request["text"]
        found = self._tokenizer(
            settings.prompt + text, **pair, return_token_type_ids=True, return_attention_mask=False, **cuts
        )
        return {"input_ids": list(found["input_ids"]), TYPES: list(found[TYPES])}

    def answers(self, texts: Sequence[Request], reference: Reference) -> list[Any]:
        """What the model answers in PyTorch to every text by itself, as JSON has it.

        Classes and their scores are those of transformers' own pipeline.
        """
        if self.processing.answer.kind == "labels":
            return self._classified(texts, reference)
        return [self._answer(self._encoded(text), reference) for text in texts]

    def _classified(self, texts: Sequence[Request], reference: Reference) -> list[Any]:
        import transformers

        models = (part for part in reference.original.modules() if isinstance(part, transformers.PreTrainedModel))
        model = next(models)
        labels = self.processing.answer.labels
        model.config.id2label = dict(enumerate(labels))
        settings = self.processing.text
        cuts = {} if settings.truncation == "refuse" else {"truncation": True, "max_length": settings.max_length}
        classify: Any = transformers.pipeline("text-classification", model=model, tokenizer=self._tokenizer)
        found = [classify(dict(text) if isinstance(text, dict) else text, top_k=None, **cuts) for text in texts]
        return [[{"label": entry["label"], "score": float(entry["score"])} for entry in row] for row in found]

    def _answer(self, row: dict[str, list[int]], reference: Reference) -> Any:
        import torch

        length = len(row["input_ids"])
        values = {**row, MASK: [1] * length}
        tensors = tuple(
            torch.tensor([values[tensor.name]], dtype=getattr(torch, tensor.dtype)) for tensor in reference.inputs
        )
        with torch.inference_mode():
            outputs = dict(zip(reference.outputs, reference.module(*tensors), strict=True))
        value: torch.Tensor = outputs[self.processing.answer.output][0]
        return float(value[0]) if self.processing.answer.kind == "score" else value.tolist()


def _load(directory: Path) -> Any:
    import transformers

    try:
        load = transformers.AutoTokenizer.from_pretrained
        tokenizer = load(directory, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        # The code of any tokenizer, over any configuration.
        raise StageError(
            f"transformers cannot load the tokenizer: {type(error).__name__}: {error}", help=WAY_OUT
        ) from error
    if not getattr(tokenizer, "is_fast", False):
        raise StageError(
            f"the tokenizer {type(tokenizer).__name__} has no form in tokenizer.json",
            help=f"save a fast tokenizer in the model's directory; or: {WAY_OUT}",
        )
    return tokenizer


def _lower(tokenizer: Any) -> None:
    """Lower the case of every text first, as `do_lower_case` of sentence-transformers does."""
    from tokenizers.normalizers import Lowercase
    from tokenizers.normalizers import Sequence as Normalizers

    backend = tokenizer.backend_tokenizer
    stored = json.loads(backend.to_str())["normalizer"] or {}
    if any(entry["type"] == "Lowercase" for entry in stored.get("normalizers", [stored] if stored else [])):
        return
    others = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = Normalizers([Lowercase(), *others])


def _padding(tokenizer: Any) -> Padding:
    """How a tokenizer pads; models mask that, so that any token serves where a tokenizer has none for it."""
    found = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    token = next((int(token) for token in found if token is not None), 0)
    kind = int(getattr(tokenizer, "pad_token_type_id", 0) or 0)
    return Padding(side=tokenizer.padding_side, token=token, type=kind)
