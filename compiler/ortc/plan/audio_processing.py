"""How sounds become a model's inputs, and how its tokens spell a transcript: parts of processing.json."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from ortc.common.values import Frozen


class WaveFeatures(Frozen):
    """The samples of a sound."""

    kind: Literal["wave"] = "wave"
    normalize: bool = Field(description="Whether they are brought to mean 0 and variance 1.")


class LogMel(Frozen):
    """Logarithms of the energies of mel bands, over frames of 400 samples every 160."""

    kind: Literal["log_mel"] = "log_mel"
    frames: PositiveInt = Field(description="A longer sound is cut, and zeros follow a shorter one.")
    bands: PositiveInt
    mean: float | None = Field(default=None, description="Is subtracted, where values are normalized.")
    std: float | None = Field(default=None, description="Twice this value divides them then.")


Features = Annotated[WaveFeatures | LogMel, Field(discriminator="kind")]


class AudioProcessing(Frozen):
    """How sounds become a model's inputs: one channel at the model's rate, then its features."""

    input: str = Field(description="The model's input that takes the features.")
    mask: str | None = Field(default=None, description="The input that says which of them are of the sound.")
    rate: PositiveInt = Field(description="Samples per second.")
    features: Features


class Spelling(Frozen):
    """How the tokens of moments become a text."""

    tokens: tuple[str, ...] = Field(min_length=1, description="The model's tokens, in the order of its scores.")
    blank: int = Field(ge=0, description="The token that stands for no token, and parts equal ones.")
    delimiter: str = Field(description="The token between words.")
    space: str = Field(description="What stands in its place.")
    lower_case: bool
    clean_up: bool = Field(description="Whether spaces before punctuation are dropped.")
