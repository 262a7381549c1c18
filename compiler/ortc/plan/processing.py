"""What is done around a model's tensors: processing.json of a bundle, as one typed model.

The compiler writes it and `templates/runtime/processing` reads it; docs/answers.md is its reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from pydantic import Field

from ortc.common.values import Frozen
from ortc.plan.audio_processing import AudioProcessing, Spelling
from ortc.plan.image_processing import ImageProcessing
from ortc.spec.interface import Aggregation

FORMAT_VERSION = 1
DIRECTORY = "processing"
DOCUMENT = f"{DIRECTORY}/processing.json"
TOKENIZER = f"{DIRECTORY}/tokenizer.json"
TEXT, IMAGE, WEB_TEXT = "+text", "+image", "+web-text"
"""End the name of a set of pins that has what texts or images need, or texts in browsers."""
EMBEDDING = "sentence_embedding"
"""The output that holds one vector for each text."""

POOLED = "pooler_output"
"""The output of a model of images that holds one vector for each."""
PROBABILITIES = "probabilities"
"""The output that holds the scores of classes after softmax or sigmoid."""
LOGITS = "logits"
"""The output of a classifier before softmax or sigmoid."""
DEPTHS = "predicted_depth"
"""The output of a model that says how far away things are."""
BOXES = "pred_boxes"
"""The output of a detector that says where objects are."""
STARTS, ENDS = "start_logits", "end_logits"
"""Outputs that say where an answer starts and ends."""

Takes = Literal["text", "image", "audio"]
"""What a bundle answers."""
NEEDS: Mapping[Takes, str] = {"text": TEXT, "image": IMAGE, "audio": ""}
"""The end of the name of a set of pins that has what each needs: sounds need numpy alone."""
Unit = Literal["texts", "images", "sounds"]
UNITS: Mapping[Takes, Unit] = {"text": "texts", "image": "images", "audio": "sounds"}
"""Requests in a word."""


class Medium(NamedTuple):
    """What a file that bundles take is called, what it becomes, and which code of the model makes that of it.

    `most` is how far a value may be from what that code makes. Pixels are float32 arithmetic over integers of 8 bits;
    features of sounds are logarithms of small energies.
    """

    file: str
    made: Literal["pixels", "features"]
    processor: str
    most: float


MEDIA: Mapping[Takes, Medium] = {
    "image": Medium("image", "pixels", "image processor", 1e-5),
    "audio": Medium("sound", "features", "feature extractor", 1e-4),
}

Kind = Literal[
    "embedding",
    "token-embeddings",
    "labels",
    "score",
    "entities",
    "span",
    "fill-mask",
    "zero-shot",
    "boxes",
    "segments",
    "depth",
    "transcript",
]
"""What an answer is: a vector for a text, one for each of its tokens, classes with scores, one score of a pair,
entities of a text, a span of a context, words for masked places, scores of labels that the request names, objects of an
image with their boxes, classes of an image with their pixels, the depth of each pixel, or the text that is spoken."""

WEB_KINDS: tuple[Kind, ...] = ("embedding", "token-embeddings", "labels", "score")
"""Answers to texts that pages give; other bundles for browsers take tensors."""


class Padding(Frozen):
    """What fills a row that is shorter than others, and on which side."""

    side: Literal["left", "right"]
    token: int
    type: int


class KnownTokens(Frozen):
    """Ids of tokens with a meaning of their own, as far as the tokenizer has them."""

    unknown: int | None = None
    mask: int | None = None
    padding: int | None = None
    first: int | None = None


class TextProcessing(Frozen):
    """How texts become token ids."""

    max_length: int = Field(ge=1, description="Most tokens of a text, special tokens included.")
    truncation: Literal["left", "right", "refuse"]
    strategy: Literal["longest_first", "only_first", "only_second"] = Field(
        default="longest_first", description="Which text of a pair is cut."
    )
    stride: int = Field(default=0, ge=0, description="Tokens that windows of a second text share.")
    padding: Padding
    tokens: KnownTokens = KnownTokens()
    clean_up: bool = Field(default=False, description="Whether text of token ids has no space before punctuation.")
    prompt: str = Field(default="", description="Put before every text, unless the caller names another.")
    prompts: dict[str, str] = Field(default_factory=dict, description="Texts that a caller may put before, by name.")
    pairs: bool = Field(default=False, description="Whether a request may be a pair of texts.")


class AnswerForm(Frozen):
    """How output tensors become an answer."""

    kind: Kind
    output: str = Field(description="The tensor that the answer is read from.")
    labels: tuple[str, ...] = Field(
        default=(), description="Names of the classes, in the order of the tensor; of `zero-shot` the default labels."
    )
    dimensions: tuple[int, ...] | None = Field(
        default=None, description="Of `embedding`: sizes that a request may cut the vector to."
    )
    normalized: bool | None = Field(
        default=None, description="Of `embedding`: whether a cut vector has length 1 again."
    )
    ends: str | None = Field(default=None, description="Of `span`: the tensor that says where an answer ends.")
    aggregation: Aggregation | None = Field(default=None, description="Of `entities`: what becomes of tokens.")
    top_k: int | None = Field(default=None, ge=1, description="Of `fill-mask`: candidates for a place.")
    entailment: int | None = Field(default=None, description="Of `zero-shot`: the class of a hypothesis that holds.")
    contradiction: int | None = Field(default=None, description="Of `zero-shot`: the class of one that does not.")
    hypothesis: str | None = Field(default=None, description="Of `zero-shot`: a text with `{}` for a label.")
    multi_label: bool | None = Field(default=None, description="Of `zero-shot`: whether several labels may hold.")
    boxes: str | None = Field(default=None, description="Of `boxes`: the tensor with centers and sizes, in shares.")
    threshold: float | None = Field(default=None, description="Of `boxes`: objects have a higher score.")
    spelling: Spelling | None = Field(default=None, description="Of `transcript`: how tokens become a text.")


class Processing(Frozen):
    """processing.json: one of `text`, `image` and `audio` is there."""

    format_version: int = FORMAT_VERSION
    task: str
    text: TextProcessing | None = None
    image: ImageProcessing | None = None
    audio: AudioProcessing | None = None
    answer: AnswerForm

    @property
    def takes(self) -> Takes:
        """What a request holds."""
        return "image" if self.image is not None else "audio" if self.audio is not None else "text"

    @property
    def of_text(self) -> TextProcessing:
        """How texts become token ids, of a bundle that takes texts."""
        if self.text is None:
            raise AssertionError(self)
        return self.text
