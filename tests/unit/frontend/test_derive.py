"""Inputs that follow from a model's configuration and the signature of its forward()."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from ortc.common.errors import StageError
from ortc.frontend.reference.derive import candidates
from ortc.plan.plan import AxisPlan, ExportPlan

Shapes = dict[str, tuple[str | int, ...]]


def model(main: str, forward: Callable[..., Any], **config: Any) -> Any:
    """What there is of a model before it runs: a configuration, of parts maybe, and a signature."""
    own = SimpleNamespace(**config)
    own.get_text_config = lambda: config.get("text_config", own)
    return SimpleNamespace(config=own, main_input_name=main, forward=forward, modules=lambda: iter(()))


def shapes(found: Any, *axes: str, task: str = "feature-extraction") -> list[Shapes]:
    plans = tuple(AxisPlan(name=name, min=1, typical=2, max=8) for name in axes)
    export = ExportPlan(opset=20, ir_version=9, exporter="auto", axes=plans, inputs=None, outputs=None)
    return [{tensor.name: tensor.shape for tensor in inputs} for inputs in candidates(found, task, export)]


def test_text() -> None:
    def forward(input_ids: Any, attention_mask: Any = None, token_type_ids: Any = None, labels: Any = None) -> None: ...

    text = ("batch", "sequence")
    encoder = model("input_ids", forward, vocab_size=9, type_vocab_size=2)
    every = {"input_ids": text, "attention_mask": text, "token_type_ids": text}
    assert shapes(encoder, "batch", "sequence") == [every]
    assert shapes(encoder, "sequence") == [dict.fromkeys(every, (1, "sequence"))]
    # One type of tokens is no choice.
    single = model("input_ids", forward, vocab_size=9, type_vocab_size=1)
    assert shapes(single, "batch", "sequence") == [{"input_ids": text, "attention_mask": text}]
    (asked,) = shapes(encoder, "batch", "sequence", task="multiple-choice")
    assert asked == dict.fromkeys(every, ("batch", 2, "sequence"))
    (asked,) = shapes(encoder, "batch", "choices", "sequence", task="multiple-choice")
    assert asked == dict.fromkeys(every, ("batch", "choices", "sequence"))
    with pytest.raises(StageError, match="the axis `sequence` of the model's input `input_ids` is not declared"):
        shapes(encoder, "batch")


def test_ids_are_those_of_the_vocabulary() -> None:
    def forward(input_ids: Any) -> None: ...

    export = ExportPlan(
        opset=20,
        ir_version=9,
        exporter="auto",
        axes=(AxisPlan(name="sequence", min=1, typical=2, max=8),),
        inputs=None,
        outputs=None,
    )

    def greatest(found: Any) -> float:
        ((tensor,),) = candidates(found, "feature-extraction", export)
        assert tensor.range is not None
        return tensor.range[1]

    assert greatest(model("input_ids", forward, vocab_size=9)) == 8
    assert greatest(model("input_ids", forward, text_config=SimpleNamespace(vocab_size=5))) == 4
    assert greatest(model("input_ids", forward)) == 0x10FFFF, "without a vocabulary, characters"


def test_a_second_modality_comes_when_the_first_does_not_do() -> None:
    def forward(input_ids: Any = None, pixel_values: Any = None, decoder_input_ids: Any = None) -> None: ...

    parts = {
        "text_config": SimpleNamespace(vocab_size=9),
        "vision_config": SimpleNamespace(image_size=32, num_channels=3),
    }
    text, image = ("batch", "sequence"), ("batch", 3, 32, 32)
    assert shapes(model("input_ids", forward, **parts), "batch", "sequence") == [
        {"input_ids": text},
        {"input_ids": text, "pixel_values": image},
        {"input_ids": text, "pixel_values": image, "decoder_input_ids": ("batch", 8)},
    ]

    def strict(input_ids: Any, pixel_values: Any) -> None: ...

    (needed,) = shapes(model("input_ids", strict, **parts), "batch", "sequence")
    assert needed == {"input_ids": text, "pixel_values": image}


@pytest.mark.parametrize(
    ("config", "axes", "shape"),
    [
        ({"image_size": 32, "num_channels": 1}, ("batch",), ("batch", 1, 32, 32)),
        ({"image_size": [48, 64]}, ("batch",), ("batch", 3, 48, 64)),
        ({"image_size": {"height": 48, "width": 64}}, (), (1, 3, 48, 64)),
        ({"image_size": {"shortest_edge": 48}}, (), (1, 3, 48, 48)),
        ({"backbone_config": SimpleNamespace(image_size=96, num_channels=4)}, (), (1, 4, 96, 96)),
        ({}, ("batch", "height", "width"), ("batch", 3, "height", "width")),
        ({"image_size": 16, "num_frames": 4}, ("batch",), ("batch", 4, 3, 16, 16)),
        ({"image_size": 16, "frames_per_clip": 4}, ("frames",), (1, "frames", 3, 16, 16)),
    ],
)
def test_images(config: Any, axes: tuple[str, ...], shape: tuple[str | int, ...]) -> None:
    def forward(pixel_values: Any) -> None: ...

    assert shapes(model("pixel_values", forward, **config), *axes) == [{"pixel_values": shape}]


def test_sound() -> None:
    def wave(input_values: Any) -> None: ...

    assert shapes(model("input_values", wave), "batch", "samples") == [{"input_values": ("batch", "samples")}]
    spectrogram = model("input_values", wave, num_mel_bins=16, max_length=32)
    assert shapes(spectrogram, "batch") == [{"input_values": ("batch", 32, 16)}]
    assert shapes(spectrogram, "frames") == [{"input_values": (1, "frames", 16)}]
    with pytest.raises(StageError, match="the axis `samples`"):
        shapes(model("input_values", wave), "batch")

    def features(input_features: Any) -> None: ...

    # Which comes first, a trial tells.
    fixed = model("input_features", features, num_mel_bins=16, max_source_positions=20)
    assert shapes(fixed, "batch") == [{"input_features": ("batch", 40, 16)}, {"input_features": ("batch", 16, 40)}]
    free = model("input_features", features, feature_projection_input_dim=16)
    assert shapes(free, "batch", "frames")[0] == {"input_features": ("batch", "frames", 16)}
    with pytest.raises(StageError, match="does not say how many features"):
        shapes(model("input_features", features), "batch")


def test_what_is_not_known_is_to_be_declared() -> None:
    def forward(states: Any) -> None: ...

    with pytest.raises(StageError, match="whose main input is `states`") as caught:
        shapes(model("states", forward), *itertools.islice(("batch",), 1))
    assert caught.value.help == "declare them in `export.inputs`"
