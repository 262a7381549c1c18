"""How the weights and activations of a variant become integers: one kind of quantization, with what that kind takes."""

from typing import Annotated, Literal

from pydantic import Field

from ortc.spec.vocabulary import Model

Alpha = Annotated[float, Field(gt=0, lt=1)] | Literal["auto"]
"""SmoothQuant's alpha over calibrated ranges; `auto` finds one for each tensor."""
Calibration = Literal["minmax", "percentile", "entropy", "moving-average"]
_SMOOTHING = (
    "Move the spread of activation channels into the weights before rounding. `layer-norm` estimates it from the "
    "parameters of a LayerNormalization that feeds a MatMul that widens; it needs no samples. A number is "
    "SmoothQuant's alpha over calibrated ranges; `auto` finds one for each tensor."
)


QUANTIZABLE = ("MatMul", "Gemm", "Conv")
"""Operators of an activation and a constant weight: those whose activations have ranges to calibrate."""


class _Quantization(Model):
    operators: tuple[str, ...] = Field(
        description="Operator types to quantize: MatMul, Gemm, Conv (where samples calibrate it), Gather (embedding "
        "tables), LSTM; and GRU, RNN and ConvTranspose, whose weights alone become integers.",
        examples=[["MatMul", "Gemm"]],
    )
    calibration: Calibration = Field(
        default="minmax", description="How the ranges of activations are found, where samples calibrate them."
    )

    @property
    def calibrated_operators(self) -> tuple[str, ...]:
        """The operators whose activations need ranges, where anything is calibrated."""
        return tuple(operator for operator in self.operators if operator in QUANTIZABLE)


class _Smoothed(_Quantization):
    smoothing: Alpha | Literal["layer-norm"] | None = Field(default=None, description=_SMOOTHING)

    @property
    def alpha(self) -> Alpha | None:
        """SmoothQuant's alpha, None without calibrated smoothing."""
        return None if self.smoothing == "layer-norm" else self.smoothing

    @property
    def is_calibrated(self) -> bool:
        """Whether it needs the ranges that activations take on samples."""
        return self.alpha is not None


class DynamicQuantization(_Smoothed):
    """Weights as 8-bit integers; activations are rounded while the model runs, with ranges found then."""

    kind: Literal["dynamic"] = Field(description="Which quantization.")
    narrowing: Literal["integer", "weight-only"] = Field(
        default="integer",
        description="MatMuls that narrow, a feed-forward's second: rounded like others, or their weights only, with "
        "activations in floating point.",
    )


class StaticQuantization(_Quantization):
    """Weights and activations as 8-bit integers (QDQ), with ranges of activations that are calibrated on samples."""

    kind: Literal["static"] = Field(description="Which quantization.")
    smoothing: Alpha | None = Field(
        default=None, description="SmoothQuant's alpha over calibrated ranges; `auto` finds one for each tensor."
    )
    narrowing: Literal["integer", "float"] = Field(
        default="integer",
        description="MatMuls that narrow, a feed-forward's second: rounded like others, or left in floating point.",
    )
    symmetric: bool = Field(
        default=False,
        description="Activations as signed integers around zero (S8S8), instead of unsigned ones with a zero point of "
        "their own (U8S8). Not every processor has kernels for it: some products stay in floating point.",
    )

    @property
    def is_calibrated(self) -> bool:
        """Whether it needs the ranges that activations take on samples: always."""
        return True


class WeightQuantization(_Smoothed):
    """Weights as integers in blocks, with activations in floating point."""

    kind: Literal["weight-only"] = Field(description="Which quantization.")
    bits: Literal[4, 8] = Field(description="Bits of a weight.")


Quantization = Annotated[DynamicQuantization | StaticQuantization | WeightQuantization, Field(discriminator="kind")]
