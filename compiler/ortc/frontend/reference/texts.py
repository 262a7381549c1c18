"""Texts as the model's own tokenizer reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ortc.common.errors import StageError
from ortc.inspection.recipe import Recipe, read_recipe
from ortc.inspection.repository import of_directories
from ortc.inspection.text_length import declared_length
from ortc.plan.processing import AnswerForm, Kind, KnownTokens, Padding, Processing, TextProcessing
from ortc.plan.texts import TYPES, takes_prompts
from ortc.spec.interface import TextInterface
from ortc.spec.model_sources import HuggingFaceSource

Request = str | dict[str, Any]
"""A text, a pair (`text`, `text_pair`), a question (`question`, `context`), or a text with `labels`."""
UNLIMITED = 10**9
"""A number of tokens that no text has."""
STRIDE = 128
"""Tokens that windows of a context share, unless that is more than half of a window."""
STRATEGIES: Mapping[Kind, Literal["only_first", "only_second"]] = {"span": "only_second", "zero-shot": "only_first"}
"""Kinds of answers to pairs of which one text alone is cut."""
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
        self._task = source.task
        self._settings = source.interface if isinstance(source.interface, TextInterface) else TextInterface()
        self.tokenizer = _load(directory)
        if self._recipe.lower_case:
            _lower(self.tokenizer)
        if TYPES not in self.tokenizer.model_input_names:
            _give_one_type(self.tokenizer)
        # The state of the file that ships: what a call sets would be kept.
        self._content = self.tokenizer.backend_tokenizer.to_str()
        declared = declared_length(source, repository)
        if declared is not None and declared[0] > bound:
            raise StageError(
                f"texts may have {declared[0]} tokens by {declared[1]}, but the model's inputs hold {bound}",
                help=f"set `model.interface.max_length` to {bound} or less, or raise the bound of the axis",
            )
        text = self._text(form, bound if declared is None else declared[0])
        self.processing = Processing(task=source.task, text=text, answer=form)
        if form.kind in ("labels", "score", "span", "zero-shot"):
            self._allow_pairs(inputs)
        self._check_tokens()

    def _check_tokens(self) -> None:
        """Check that the tokenizer has what the kind of answers needs.

        Raises:
            StageError: it has not.
        """
        text, kind = self.processing.of_text, self.processing.answer.kind
        if kind == "fill-mask" and text.tokens.mask is None:
            raise StageError("the tokenizer has no mask token, which `fill-mask` fills", help=WAY_OUT)
        if kind == "span" and text.padding.side == "left":
            raise StageError(
                "the tokenizer pads on the left, and questions are answered with padding on the right alone",
                help=f"set `padding_side` of tokenizer_config.json to `right`; or: {WAY_OUT}",
            )
        if kind == "span" and text.stride >= text.max_length:
            raise StageError(
                f"windows of {text.max_length} tokens cannot share {text.stride}",
                help="set `model.interface.stride` to less than half of `max_length`",
            )

    def _allow_pairs(self, inputs: Sequence[str]) -> None:
        """Take pairs of texts, where the model reads the token types that tell them apart.

        Raises:
            StageError: a ranking needs pairs, and the model does not.
        """
        types = list(self.tokenizer("a", "b", return_token_type_ids=True)[TYPES])
        if TYPES in inputs or not any(types):
            text = self.processing.of_text.model_copy(update={"pairs": True})
            self.processing = self.processing.model_copy(update={"text": text})
        elif self.processing.answer.kind != "labels":
            raise StageError(
                f"`{self.processing.task}` takes pairs of texts, told apart by `{TYPES}`, which is no input",
                help=f"declare `{TYPES}` in `export.inputs`; or: {WAY_OUT}",
            )

    def _text(self, form: AnswerForm, length: int) -> TextProcessing:
        tokenizer, prompts = self.tokenizer, self._recipe.prompts if takes_prompts(self._task) else {}
        prompt = prompts.get(self._recipe.default_prompt or "", "")
        if self._settings.prompt is not None and takes_prompts(self._task):
            prompt = prompts.get(self._settings.prompt, self._settings.prompt)
        stride = 0
        if form.kind == "span":
            stride = min(length // 2, STRIDE) if self._settings.stride is None else self._settings.stride
        return TextProcessing(
            max_length=length,
            truncation=self._settings.truncation or tokenizer.truncation_side,
            strategy=STRATEGIES.get(form.kind, "longest_first"),
            stride=stride,
            padding=_padding(tokenizer),
            prompt=prompt,
            prompts=prompts,
            tokens=_known_tokens(tokenizer),
            clean_up=_cleans_up(tokenizer),
        )

    @property
    def special(self) -> tuple[str, ...]:
        """The tokenizer's special tokens as texts."""
        return tuple(map(str, self.tokenizer.all_special_tokens))

    def write(self, path: Path) -> None:
        """Write the tokenizer as `tokenizers` reads it, without padding and truncation of its own."""
        content = {**json.loads(self._content), "padding": None, "truncation": None}
        path.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")), "utf-8")

    def rows(self, requests: Sequence[Request]) -> list[dict[str, list[int]]]:
        """Token ids and token types of every request, cut as the bundle cuts them and not padded.

        Those of windows, and of the pairs that labels make, follow one another.
        """
        found = [self.encoded(request) for request in requests]
        return [
            {
                "ids": [token for row in rows for token in row["input_ids"]],
                "types": [kind for row in rows for kind in row[TYPES]],
            }
            for rows in found
        ]

    def cuts(self) -> dict[str, Any]:
        """Arguments with which the tokenizer cuts as the bundle does."""
        settings = self.processing.of_text
        if settings.truncation == "refuse":
            return {}
        self.tokenizer.truncation_side = settings.truncation
        strategy = True if settings.strategy == "longest_first" else settings.strategy
        return {"truncation": strategy, "max_length": settings.max_length}

    def bounded(self) -> Any:
        """The tokenizer with the bundle's limit as its own, for callers that name none."""
        settings = self.processing.of_text
        limited = settings.truncation != "refuse"
        if limited:
            self.tokenizer.truncation_side = settings.truncation
        self.tokenizer.model_max_length = settings.max_length if limited else UNLIMITED
        return self.tokenizer

    def encoded(self, request: Request) -> list[dict[str, list[int]]]:
        """Token ids and token types of the rows that a request stands for."""
        if isinstance(request, str):
            return [self._row(self.processing.of_text.prompt + request)]
        if "context" in request:
            return [{"input_ids": row.ids, TYPES: row.type_ids} for row in self.windows(request).encodings]
        if "labels" in request:
            template = str(self.processing.answer.hypothesis)
            return [self._row(request["text"], template.format(label)) for label in request["labels"]]
        return [self._row(self.processing.of_text.prompt + request["text"], request["text_pair"])]

    def _row(self, *texts: str) -> dict[str, list[int]]:
        found = self.tokenizer(*texts, return_token_type_ids=True, return_attention_mask=False, **self.cuts())
        return {"input_ids": list(found["input_ids"]), TYPES: list(found[TYPES])}

    def windows(self, request: dict[str, Any]) -> Any:
        """A question with each window of its context, as transformers' BatchEncoding has them."""
        return self.tokenizer(
            [request["question"]],
            [request["context"]],
            return_token_type_ids=True,
            return_overflowing_tokens=True,
            stride=self.processing.of_text.stride,
            **self.cuts(),
        )


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


def _give_one_type(tokenizer: Any) -> None:
    """Give all tokens the type 0, as a model takes them that its tokenizer gives no types to."""
    from tokenizers import Tokenizer

    backend = tokenizer.backend_tokenizer
    stored = json.loads(backend.to_str())
    stored["post_processor"] = _of_one_type(stored["post_processor"])
    backend.post_processor = Tokenizer.from_str(json.dumps(stored)).post_processor


def _of_one_type(stored: dict[str, Any] | None) -> dict[str, Any]:
    """A post-processor of tokenizer.json that tells the two texts of a pair apart by no type."""
    if stored is None:
        return _template([], [], {})
    kind = stored["type"]
    if kind == "Sequence":
        return {**stored, "processors": list(map(_of_one_type, stored["processors"]))}
    if kind == "BertProcessing":
        first, last = (_piece("SpecialToken", str(stored[name][0])) for name in ("cls", "sep"))
        named = (stored["cls"], stored["sep"])
        tokens = {text: {"id": text, "ids": [number], "tokens": [text]} for text, number in named}
        return _template([first], [last], tokens)
    if kind == "TemplateProcessing":
        pieces = {
            name: [{part: {**value, "type_id": 0} for part, value in piece.items()} for piece in stored[name]]
            for name in ("single", "pair")
        }
        return {**stored, **pieces}
    return stored


def _template(first: list[Any], last: list[Any], tokens: dict[str, Any]) -> dict[str, Any]:
    texts = [_piece("Sequence", name) for name in "AB"]
    single = [*first, texts[0], *last]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, texts[1], *last],
        "special_tokens": tokens,
    }


def _piece(kind: str, name: str) -> dict[str, Any]:
    return {kind: {"id": name, "type_id": 0}}


def _padding(tokenizer: Any) -> Padding:
    """How a tokenizer pads; models mask that, so that any token serves where a tokenizer has none for it."""
    found = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    token = next((int(token) for token in found if token is not None), 0)
    kind = int(getattr(tokenizer, "pad_token_type_id", 0) or 0)
    return Padding(side=tokenizer.padding_side, token=token, type=kind)


def _known_tokens(tokenizer: Any) -> KnownTokens:
    return KnownTokens(
        unknown=tokenizer.unk_token_id,
        mask=tokenizer.mask_token_id,
        padding=tokenizer.pad_token_id,
        first=tokenizer.cls_token_id,
    )


def _cleans_up(tokenizer: Any) -> bool:
    """Whether spaces before punctuation are dropped where token ids become text."""
    if not tokenizer.clean_up_tokenization_spaces:
        return False
    is_bpe = type(tokenizer.backend_tokenizer.model).__name__ == "BPE"
    return not is_bpe or bool(
        getattr(tokenizer, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", False)
    )
