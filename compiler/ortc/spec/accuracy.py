"""The part `accuracy` of a spec: what it means for an answer to be right."""

from typing import Literal

from pydantic import Field, model_validator

from ortc.spec.vocabulary import Entrypoint, Model, RelativePath


class Metric(Model):
    """A task metric, higher is better, that every variant must keep."""

    entrypoint: Entrypoint = Field(description="`module:function` called with a `predict` callable; returns a float.")
    max_drop: float = Field(ge=0, description="The most that the metric may fall below PyTorch's.")
    minimum: float | None = Field(default=None, description="The least value that may ship.")


Pooling = Literal["mean", "cls", "max"]


class Embeddings(Model):
    """What embeddings of the real samples must keep, each held against PyTorch's."""

    pooling: Pooling = Field(
        default="mean",
        description="How the positions of [batch, sequence, hidden] become one embedding: the mean of those that the "
        "attention mask leaves, the first, or the greatest of each.",
    )
    output: str | None = Field(default=None, min_length=1, description="Which output; the first of floating point.")
    cosine_mean: float | None = Field(
        default=None, gt=0, le=1, description="Least mean cosine similarity of the samples' embeddings."
    )
    cosine_min: float | None = Field(
        default=None, gt=0, le=1, description="Least cosine similarity of any sample's embedding."
    )
    rank_correlation: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Least Spearman correlation between the similarities of all pairs of samples, which is what search "
        "and clustering rely on.",
    )

    @model_validator(mode="after")
    def _some_gate(self) -> "Embeddings":
        if self.cosine_mean is None and self.cosine_min is None and self.rank_correlation is None:
            raise ValueError("give at least one of `cosine_mean`, `cosine_min`, `rank_correlation`")
        return self


class SamplesFunction(Model):
    """Real inputs that a function gives."""

    entrypoint: Entrypoint = Field(
        description="`module:function` called without arguments, or with `model_dir`; gives an iterable of mappings "
        "from input to array, one sample each, of which the first 1024 are taken."
    )


class Accuracy(Model):
    """What `right` means."""

    max_abs: float = Field(
        default=1e-4, gt=0, description="Greatest absolute difference of a variant that promises fp32."
    )
    cosine: float = Field(
        default=0.98, gt=0, le=1, description="Least cosine similarity of any sample at reduced precision."
    )
    relative_error: float | None = Field(
        default=None,
        gt=0,
        description="Greatest relative L2 error of any sample at reduced precision, for outputs with more than 8 "
        "values a sample. The default follows `cosine`: `sqrt(2 - 2 * cosine)`, which is 0.2 for 0.98.",
    )
    nrmse: float | None = Field(
        default=None,
        gt=0,
        description="Greatest root mean square error at reduced precision, divided by the standard deviation of the "
        "reference's answers. The default is 0.3, or `relative_error` where that is greater.",
    )
    spearman: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        description="Least Spearman correlation at reduced precision, over 10 rows or more, of each value of outputs "
        "with up to 8 values a row. The default is 0.9, or `sqrt(1 - nrmse ** 2)` where that is less.",
    )
    top1_agreement: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Least share of samples whose largest output stays the same, and of integers that are equal. "
        "The default for integers at reduced precision is 0.98; in fp32 all must be equal.",
    )
    answer_cosine: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Least cosine similarity to PyTorch's of the answer to any sample text, of a bundle that takes "
        "texts. The default is 0.99999 in fp32, and `cosine` at reduced precision.",
    )
    answer_f1: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Least F1 of the entities or the spans of all sample texts against PyTorch's, of a bundle that "
        "answers with them. The default is 1 in fp32, and 0.95 at reduced precision.",
    )
    answer_top1: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Least share of masked places of the sample texts whose first candidate is PyTorch's, of a bundle "
        "that fills them. The default is 1 in fp32, and 0.95 at reduced precision.",
    )
    answer_token_errors: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Greatest token error rate of the transcripts of all sample sounds against PyTorch's, of a bundle "
        "that answers with them. The default is 0 in fp32, and 0.05 at reduced precision.",
    )
    samples: RelativePath | SamplesFunction | None = Field(
        default=None,
        description="Real inputs: .txt with one a line, .npz with an array an input, a directory of images, or an "
        "entry point; else seeded synthetic ones.",
        examples=["data/sentences.txt", {"entrypoint": "data.samples:validation"}],
    )
    embeddings: Embeddings | None = Field(
        default=None,
        description="What the pooled embeddings of the samples must keep.",
        examples=[{"cosine_mean": 0.995, "rank_correlation": 0.995}],
    )
    metric: Metric | None = Field(default=None, description="A task metric that every variant must keep.")

    @model_validator(mode="after")
    def _embeddings_of_samples(self) -> "Accuracy":
        if self.embeddings is not None and self.samples is None:
            raise ValueError("`embeddings` are those of real inputs: name them in `samples`")
        return self
