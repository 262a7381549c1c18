"""What a bundle answers: the tensors of a model, or what its repository's tokenizer, pooling and labels make of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, field_validator

from ortc.common.texts import Line
from ortc.spec.vocabulary import Model

Pool = Literal["mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
"""How the vectors of all tokens become one, by the names of sentence-transformers."""
Aggregation = Literal["none", "simple", "first", "average", "max"]
"""How classes of tokens become entities, by the names of transformers' token-classification pipeline."""
MOST_CANDIDATES = 100
PLACE = "{}"
"""Where the label stands in a hypothesis."""


class TextInterface(Model):
    """Settings that replace those of the model's repository; what is left out follows the repository."""

    max_length: int | None = Field(
        default=None,
        ge=2,
        description="Most tokens of a text, special tokens included; longer texts are cut. When not given: "
        "sentence_bert_config.json, tokenizer_config.json, tokenizer.json, then the bound of the axis.",
    )
    truncation: Literal["right", "left", "refuse"] | None = Field(
        default=None,
        description="The side on which longer texts are cut, or `refuse` for an error. The tokenizer's side when not "
        "given.",
    )
    prompt: str | None = Field(
        default=None,
        max_length=4096,
        description="The name of one of the repository's prompts, or a text, that is put before every text; an empty "
        "text for none. The repository's default when not given.",
    )
    pooling: Pool | None = Field(
        default=None, description="How the vectors of all tokens become `sentence_embedding`, instead of modules.json."
    )
    normalize: bool | None = Field(
        default=None, description="Whether `sentence_embedding` has length 1, instead of modules.json."
    )
    dimensions: tuple[PositiveInt, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="Sizes that `sentence_embedding` may be cut to by requests, of a model trained for it, instead of "
        "`matryoshka_dimensions` of config.json.",
    )
    labels: tuple[Line, ...] | None = Field(
        default=None,
        min_length=1,
        description="Names of the classes in their order, instead of `id2label`; of zero-shot-classification the "
        "labels of requests that name none.",
    )
    aggregation: Aggregation | None = Field(
        default=None,
        description="How tokens of token-classification become entities: `none` answers with tokens, `simple` joins "
        "neighbours of one class, and the others give the tokens of a word one class first. `none` when not given.",
    )
    stride: int | None = Field(
        default=None,
        ge=0,
        description="Tokens that windows of a long context share, of question-answering. When not given: half of "
        "`max_length`, 128 at most.",
    )
    top_k: int | None = Field(
        default=None,
        ge=1,
        le=MOST_CANDIDATES,
        description="Candidates for a masked place, of fill-mask. 5 when not given.",
    )
    hypothesis: Line | None = Field(
        default=None,
        description="The hypothesis of zero-shot-classification, with `{}` for a label. `This example is {}.` when not "
        "given.",
    )
    multi_label: bool | None = Field(
        default=None,
        description="Whether several labels of zero-shot-classification may hold, so that each has a score of its own. "
        "`false` when not given.",
    )

    @field_validator("hypothesis")
    @classmethod
    def _has_one_place(cls, value: str | None) -> str | None:
        if value is not None and not value.count("{") == value.count("}") == value.count(PLACE) == 1:
            raise ValueError("a hypothesis has `{}` once, for the label, and no other braces")
        return value


Interface = Literal["auto", "tensors"] | TextInterface
