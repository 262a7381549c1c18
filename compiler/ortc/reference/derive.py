"""Derive a model's inputs from its configuration and the signature of its forward().

What transformers calls an input says what it is, over all architectures: `input_ids`, `pixel_values`, `input_values`
(sound as a wave), `input_features` (sound as a spectrogram). Where that leaves a choice (is the second modality needed,
are features before frames?) there is a candidate for each, and the first that the model runs with is taken.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from typing import Any

from ortc.errors import StageError
from ortc.plan import ExportPlan, InputPlan

MAX_CANDIDATES = 12
CHOICES = 2
"""Answers of a multiple-choice question, where no axis `choices` is declared."""
DECODER_TOKENS = 8
"""Tokens that a decoder beside an encoder is given, where no axis `decoder_sequence` is declared."""
_IMAGE = 224
"""Pixels a side where the configuration names none: what most models of images were trained at."""
_UNICODE = 0x10FFFF
_PARTS = ("vision_config", "backbone_config", "encoder_config", "encoder", "audio_config", "text_config")
"""Where a configuration of several models keeps those, in the order in which they are asked."""
_FURTHER = ("pixel_values", "input_features", "bbox", "is_longer", "decoder_input_ids")
"""Inputs that some models need beside their main one."""


Option = tuple[InputPlan, ...]


def candidates(model: Any, task: str, export: ExportPlan) -> Iterator[tuple[InputPlan, ...]]:
    """Inputs that the model may take, over the canonical axis names; the fewest first.

    Raises:
        StageError: an axis that the model's kind of input needs is not declared, or the kind is not known.
    """
    derivation = _Derivation(model, task, export)
    accepted = inspect.signature(model.forward).parameters
    further = [name for name in accepted if name in _FURTHER and name != model.main_input_name]
    chosen = [[name for name in further if accepted[name].default is inspect.Parameter.empty]]
    # Most models that can take a second modality do without; those that cannot, say so when they run.
    for name in further:
        if name not in chosen[-1]:
            chosen.append([*chosen[-1], name])
    found = (
        tuple(itertools.chain.from_iterable(options))
        for names in chosen
        for options in itertools.product(*(derivation.options(name) for name in (model.main_input_name, *names)))
    )
    yield from itertools.islice(found, MAX_CANDIDATES)


class _Derivation:
    """What one model's configuration says of its inputs."""

    def __init__(self, model: Any, task: str, export: ExportPlan) -> None:
        self.model = model
        self.config = model.config
        self.task = task
        self.declared = {axis.name for axis in export.axes}
        self.accepted = inspect.signature(model.forward).parameters

    def options(self, name: str) -> list[Option]:
        """The inputs that a name stands for: alternatives, each with what belongs to it.

        Raises:
            StageError: nothing is known of inputs of that name.
        """
        match name:
            case "input_ids":
                return [self._text()]
            case "pixel_values" | "pixel_values_videos":
                return [self._pixels(name)]
            case "input_values":
                return [self._wave()]
            case "input_features":
                return self._spectrogram()
            case "past_values":
                return [self._series()]
            case "decoder_input_ids":
                shape = (self._axis("batch", 1), self._axis("decoder_sequence", DECODER_TOKENS))
                return [(InputPlan(name=name, dtype="int64", shape=shape, range=(0, self._vocabulary() - 1)),)]
            case "bbox":
                # Corners of a token's box on the page: left <= right and top <= bottom, or models refuse them.
                return [(InputPlan(name=name, dtype="int64", shape=(*self._tokens(), 4), range=(0, 0)),)]
            case "is_longer":
                return [(InputPlan(name=name, dtype="bool", shape=(self._axis("batch", 1), 1), fill=0),)]
        raise StageError(
            f"cannot derive the inputs of {type(self.model).__name__}, whose main input is `{name}`",
            help="declare them in `export.inputs`",
        )

    def _axis(self, name: str, fixed: int) -> str | int:
        return name if name in self.declared else fixed

    def _needed(self, axis: str, tensor: str) -> str:
        if axis not in self.declared:
            raise StageError(
                f"the axis `{axis}` of the model's input `{tensor}` is not declared",
                help=f"add `{axis}: {{min: 1, typical: …, max: …}}` to `export.dynamic_axes`, or declare "
                "`export.inputs`",
            )
        return axis

    def _setting(self, *names: str) -> Any:
        """The first setting of one of these names that the configuration, or that of a part, has; None for none."""
        parts = [self.config, *(part for name in _PARTS if (part := getattr(self.config, name, None)) is not None)]
        values = (getattr(part, name, None) for part in parts for name in names)
        return next((value for value in values if value is not None), None)

    def _vocabulary(self) -> int:
        size = getattr(self.config.get_text_config(), "vocab_size", None) or getattr(self.config, "vocab_size", None)
        # Without a vocabulary, characters are read as they are.
        return int(size) if size else _UNICODE + 1

    def _tokens(self) -> tuple[str | int, ...]:
        batch, sequence = self._axis("batch", 1), self._needed("sequence", "input_ids")
        if self.task == "multiple-choice":
            return (batch, self._axis("choices", CHOICES), sequence)
        return (batch, sequence)

    def _text(self) -> Option:
        shape = self._tokens()
        inputs = [InputPlan(name="input_ids", dtype="int64", shape=shape, range=(0, self._vocabulary() - 1))]
        if "attention_mask" in self.accepted:
            inputs.append(InputPlan(name="attention_mask", dtype="int64", shape=shape, range=(0, 1), fill=1))
        types = getattr(self.config.get_text_config(), "type_vocab_size", 0) or 0
        if "token_type_ids" in self.accepted and isinstance(types, int) and types > 1:
            inputs.append(InputPlan(name="token_type_ids", dtype="int64", shape=shape, range=(0, types - 1)))
        return tuple(inputs)

    def _pixels(self, name: str) -> Option:
        size = self._setting("image_size", "input_size", "crop_size") or _IMAGE
        height, width = _sides(size)
        shape: tuple[str | int, ...] = (self._channels(), self._axis("height", height), self._axis("width", width))
        frames = self._setting("num_frames", "frames_per_clip")
        if frames is not None:
            shape = (self._axis("frames", int(frames)), *shape)
        return (InputPlan(name=name, dtype="float32", shape=(self._axis("batch", 1), *shape)),)

    def _channels(self) -> int:
        import torch

        declared = self._setting("num_channels", "in_channels", "in_chans")
        if isinstance(declared, int):
            return declared
        kinds = (torch.nn.Conv2d, torch.nn.Conv3d)
        first = next((module for module in self.model.modules() if isinstance(module, kinds)), None)
        return 3 if first is None else first.in_channels

    def _wave(self) -> Option:
        batch, name = self._axis("batch", 1), "input_values"
        if (bins := self._setting("num_mel_bins")) is not None:
            # A spectrogram of a fixed length, cut into patches like an image.
            shape = (batch, self._axis("frames", int(self._setting("max_length") or 1024)), int(bins))
            return (InputPlan(name=name, dtype="float32", shape=shape),)
        samples = self._needed("samples", name)
        return (InputPlan(name=name, dtype="float32", shape=(batch, samples)),)

    def _spectrogram(self) -> list[Option]:
        batch, name = self._axis("batch", 1), "input_features"
        bins = self._setting("feature_projection_input_dim", "num_mel_bins", "input_feat_per_channel", "n_mels")
        if bins is None:
            raise StageError(
                f"the configuration of {type(self.model).__name__} does not say how many features `{name}` has",
                help="declare `export.inputs`",
            )
        positions = self._setting("max_source_positions")
        # An encoder with a position for every second frame takes exactly as many frames.
        frames = self._axis("frames", 2 * int(positions) if positions else 100)
        bins = int(bins)
        shapes: list[tuple[str | int, ...]] = [(batch, frames, bins), (batch, bins, frames)]
        if self._convolves(bins):
            # A trial does not tell them apart where there happen to be as many frames as features.
            shapes.reverse()
        if (side := self._setting("spec_size")) is not None:
            shapes.append((batch, 1, int(side), bins))
        return [(InputPlan(name=name, dtype="float32", shape=shape),) for shape in shapes]

    def _convolves(self, features: int) -> bool:
        """Whether the first convolution goes along time with a channel for each feature."""
        import torch

        kinds = (torch.nn.Conv1d, torch.nn.Conv2d)
        first = next((module for module in self.model.modules() if isinstance(module, kinds)), None)
        return isinstance(first, torch.nn.Conv1d) and first.in_channels == features

    def _series(self) -> Option:
        length, channels = self._setting("context_length"), self._setting("num_input_channels", "input_size")
        shape = (self._axis("batch", 1), int(length or 1), int(channels or 1))
        return (InputPlan(name="past_values", dtype="float32", shape=shape),)


def _sides(size: Any) -> tuple[int, int]:
    """Height and width from one number, two, or a mapping with both."""
    if isinstance(size, dict):
        side: Any = size.get("shortest_edge", _IMAGE)
        return int(size.get("height", side)), int(size.get("width", side))
    if isinstance(size, list | tuple):
        # Of a configuration with three sizes, the first is of time or of channels.
        height, width = (*size, *size)[:2] if len(size) == 1 else size[-2:]
        return int(height), int(width)
    return int(size), int(size)
