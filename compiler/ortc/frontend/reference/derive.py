"""Derive a model's inputs from its configuration and the signature of its forward().

What transformers calls an input says what it is, over all architectures: `input_ids`, `pixel_values`, `input_values`
(sound as a wave), `input_features` (sound as a spectrogram). Where that leaves a choice (is the second modality needed,
are features before frames?) there is a candidate for each, and the first that the model runs with is taken.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ortc.common.errors import StageError
from ortc.frontend.samples.inputs import BOXES, PIXEL_MASK
from ortc.inspection.repository import PROCESSORS, Repository
from ortc.plan.masks import ATTENTION_MASK as MASK
from ortc.plan.plan import ExportPlan, InputPlan

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
_FURTHER = ("pixel_values", "input_features", "is_longer", "decoder_input_ids")
"""Inputs that some models need beside their main one."""
_SEGMENTS = {"xlnet": 3}
"""Greatest token type of architectures that compare types and have no table of them."""
OPTIONAL_MASKS = ("attention_mask", "pixel_mask")
"""Masks that some architectures accept and do not read; a trial tells."""


Option = tuple[InputPlan, ...]


@dataclass(frozen=True)
class Processing:
    """What a repository's tokenizer and processors say of a model's inputs; None where they say nothing."""

    model_input_names: frozenset[str] = frozenset()
    return_attention_mask: bool | None = None
    image_size: Any = None


def processing(repository: Repository) -> Processing:
    """Read what the configurations of a repository's tokenizer and processors say of inputs."""
    names: set[str] = set()
    masked: bool | None = None
    for file in ("tokenizer_config.json", *PROCESSORS):
        for config in _configurations(repository.mapping(file)):
            declared = config.get("model_input_names")
            names |= {str(name) for name in declared} if isinstance(declared, list) else set()
            if isinstance(config.get("return_attention_mask"), bool) and file in PROCESSORS:
                masked = config["return_attention_mask"]
    return Processing(frozenset(names), masked, _image_size(repository.mapping(PROCESSORS[0])))


def _image_size(config: Mapping[str, Any]) -> Any:
    """The size that an image processor gives images: of the crop, else of the resized image; None for neither."""
    size = config.get("crop_size" if config.get("do_center_crop") else "size")
    known = ({"height", "width"}, {"shortest_edge"})
    return size if isinstance(size, int) or (isinstance(size, dict) and set(size) in known) else None


def _configurations(value: Any) -> Iterator[Mapping[str, Any]]:
    """A processor's configuration, and those of its parts."""
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from _configurations(item)


def candidates(
    model: Any, task: str, export: ExportPlan, said: Processing | None = None
) -> Iterator[tuple[InputPlan, ...]]:
    """Inputs that the model may take, over the canonical axis names; the fewest first.

    Raises:
        StageError: an axis that the model's kind of input needs is not declared, or the kind is not known.
    """
    derivation = _Derivation(model, task, export, said or Processing())
    accepted = inspect.signature(model.forward).parameters
    further = [name for name in accepted if name in _FURTHER and name != model.main_input_name]
    if end_token(model) is not None:
        # Its decoder reads the text itself, moved by one token.
        further.remove("decoder_input_ids")
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


def left_out(model: Any, inputs: Option) -> tuple[str, ...]:
    """Name the tensors that a model's forward() accepts and that are no inputs, in the order of its signature."""
    given = {tensor.name for tensor in inputs}
    accepted = inspect.signature(model.forward).parameters.items()
    return tuple(name for name, parameter in accepted if name not in given and "Tensor" in str(parameter.annotation))


def end_token(model: Any) -> int | None:
    """Return the token at which a classifier made of an encoder and a decoder reads its answer; None for other models.

    BART, T5 and their kin refuse a batch whose rows have different numbers of it.
    """
    is_classifier = type(model).__name__.endswith("ForSequenceClassification")
    if not is_classifier or not getattr(model.config, "is_encoder_decoder", False):
        return None
    end = model.config.eos_token_id
    first = end[0] if isinstance(end, list) else end
    return None if first is None else int(first)


class _Derivation:
    """What one model's configuration says of its inputs."""

    def __init__(self, model: Any, task: str, export: ExportPlan, said: Processing) -> None:
        self.said = said
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
            case "is_longer":
                return [(InputPlan(name=name, dtype="bool", shape=(self._axis("batch", 1), 1), fill=0),)]
        raise StageError(
            f"cannot derive the inputs of {type(self.model).__name__}, whose main input is `{name}`",
            help="declare them in `export.inputs`",
        )

    def _axis(self, name: str, fixed: str | int) -> str | int:
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
        bounds = (0, self._vocabulary() - 1)
        inputs = [InputPlan(name="input_ids", dtype="int64", shape=shape, range=bounds, end=end_token(self.model))]
        if "attention_mask" in self.accepted:
            inputs.append(InputPlan(name="attention_mask", dtype="int64", shape=shape, range=(0, 1), fill=1))
        inputs += [*self._types(shape), *self._boxes(shape), *self._paths(shape), *self._languages(shape)]
        return tuple(inputs)

    def _types(self, shape: tuple[str | int, ...]) -> Iterator[InputPlan]:
        """Token types: of a table, of several (one for each column of types), or compared without one."""
        name, config = "token_type_ids", self.config.get_text_config()
        if name not in self.accepted:
            return
        tables = getattr(config, "type_vocab_sizes", None)
        if isinstance(tables, list | tuple) and tables:
            # One range for all columns would refuse the types of the largest: only the model knows each column's.
            yield InputPlan(name=name, dtype="int64", shape=(*shape, len(tables)))
            return
        types = getattr(config, "type_vocab_size", None)
        most = types - 1 if isinstance(types, int) else _SEGMENTS.get(str(getattr(config, "model_type", None)), 0)
        if types is None and name in self.said.model_input_names:
            most = max(most, 1)
        if most > 0:
            yield InputPlan(name=name, dtype="int64", shape=shape, range=(0, most))

    def _boxes(self, shape: tuple[str | int, ...]) -> Iterator[InputPlan]:
        """The box of each token on its page."""
        if BOXES not in self.accepted:
            return
        sizes = self._setting("max_2d_position_embeddings")
        if isinstance(sizes, int) and self._setting("bbox_scale") is None:
            yield InputPlan(name=BOXES, dtype="int64", shape=(*shape, 4), range=(0, sizes - 1))
        else:
            # Shares of the page's sides.
            yield InputPlan(name=BOXES, dtype="float32", shape=(*shape, 4), range=(0.0, 1.0))

    def _paths(self, shape: tuple[str | int, ...]) -> Iterator[InputPlan]:
        """The path of each token in its HTML document: tags and subscripts."""
        for name, table in (
            ("xpath_tags_seq", "max_xpath_tag_unit_embeddings"),
            ("xpath_subs_seq", "max_xpath_subs_unit_embeddings"),
        ):
            if name in self.accepted and isinstance(size := self._setting(table), int):
                depth = int(self._setting("max_depth"))
                yield InputPlan(name=name, dtype="int64", shape=(*shape, depth), range=(0, size - 1))

    def _languages(self, shape: tuple[str | int, ...]) -> Iterator[InputPlan]:
        """The language of each token, where the model has an embedding of languages."""
        count = self._setting("n_langs")
        if "langs" in self.accepted and isinstance(count, int) and count > 1 and self._setting("use_lang_emb"):
            yield InputPlan(name="langs", dtype="int64", shape=shape, range=(0, count - 1))

    def _pixels(self, name: str) -> Option:
        size = self._setting("image_size", "input_size", "crop_size") or self.said.image_size or _IMAGE
        height, width = _sides(size)
        shape: tuple[str | int, ...] = (self._channels(), self._axis("height", height), self._axis("width", width))
        frames = self._setting("num_frames", "frames_per_clip")
        if frames is not None:
            shape = (self._axis("frames", int(frames)), *shape)
        # Models that compare texts with images take as many of the ones as of the others, or not.
        batch = self._axis("images", self._axis("batch", 1))
        pixels = InputPlan(name=name, dtype="float32", shape=(batch, *shape))
        if PIXEL_MASK not in self.accepted or frames is not None:
            return (pixels,)
        # Images of a batch differ in size, and are padded to the largest.
        return (pixels, _mask(PIXEL_MASK, (batch, *shape[1:])))

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
        wave = InputPlan(name=name, dtype="float32", shape=(batch, samples))
        # A first layer that normalizes over the whole wave is trained on waves that are padded without a mask.
        masked = self.said.return_attention_mask
        if masked is None:
            masked = self._setting("feat_extract_norm") != "group"
        return (wave, _mask(MASK, (batch, samples))) if masked and MASK in self.accepted else (wave,)

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
        sound = [InputPlan(name=name, dtype="float32", shape=shape) for shape in shapes]
        masked = MASK in self.accepted and self.said.return_attention_mask is not False
        return [(tensor, _mask(MASK, (batch, frames))) if masked else (tensor,) for tensor in sound]

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


def _mask(name: str, shape: tuple[str | int, ...]) -> InputPlan:
    return InputPlan(name=name, dtype="int64", shape=shape, range=(0, 1), fill=1)


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
