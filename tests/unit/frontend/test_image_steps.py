"""Image processors of transformers as steps: the pixels of a bundle are those of the model's own processor."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from numpy.typing import NDArray
from PIL import Image
from tests.support import bundles
from tests.support.odd_pictures import random_file

from ortc.common.errors import StageError
from ortc.frontend.reference.image_steps import steps_of
from ortc.frontend.reference.images import load_processor, opened
from ortc.frontend.samples.named_file import NamedFile
from ortc.frontend.samples.odd_images import odd_images, plain_images, thumbnail
from ortc.plan.processing import MEDIA

inputs = bundles.runtime_module("processing.images.inputs")
errors = bundles.runtime_module("loading.errors")
CASES: dict[str, dict[str, Any]] = {
    "ViT": {"size": {"height": 30, "width": 20}, "resample": 2},
    "CLIP": {"size": {"shortest_edge": 24}, "crop_size": {"height": 20, "width": 28}},
    "ConvNext": {"size": {"shortest_edge": 32}, "crop_pct": 0.875},
    "ConvNext-large": {"size": {"shortest_edge": 384}},
    "ConvNext-as-it-is": {"do_resize": False, "do_normalize": False},
    "Levit": {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}},
    "PoolFormer": {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}},
    "PoolFormer-square": {"size": {"height": 28, "width": 28}, "crop_size": {"height": 28, "width": 28}},
    "PoolFormer-oblong": {"size": {"height": 28, "width": 18}, "crop_size": {"height": 28, "width": 28}},
    "EfficientNet": {"size": {"height": 31, "width": 31}, "rescale_offset": True, "resample": 0},
    "EfficientNet-plain": {"size": {"height": 31, "width": 31}, "include_top": False, "do_center_crop": True},
    "MobileViT": {"size": {"shortest_edge": 24}, "crop_size": {"height": 20, "width": 20}},
    "Segformer": {"size": {"height": 32, "width": 32}, "do_reduce_labels": True},
    "Beit": {"size": {"height": 32, "width": 32}, "do_center_crop": True, "crop_size": {"height": 40, "width": 19}},
    "Siglip": {"size": {"height": 24, "width": 24}, "resample": 1},
    "DeiT": {"size": {"height": 26, "width": 26}, "crop_size": {"height": 24, "width": 24}, "resample": 4},
    "Bit": {"size": {"shortest_edge": 24, "longest_edge": 60}, "crop_size": {"height": 24, "width": 24}},
    "Detr": {"size": {"shortest_edge": 40, "longest_edge": 70}},
    "Detr-exact": {"size": {"height": 40, "width": 30}, "do_pad": False},
    "Yolos": {"size": {"shortest_edge": 40, "longest_edge": 900}},
    "DPT": {"size": {"height": 45, "width": 41}, "ensure_multiple_of": 14},
    "DPT-ratio": {"size": {"height": 45, "width": 41}, "ensure_multiple_of": 14, "keep_aspect_ratio": True},
    "GLPN": {"size_divisor": 32, "resample": 2, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.2] * 3},
    "ViT-within": {"size": {"max_height": 24, "max_width": 40}, "do_rescale": False, "resample": 5},
}


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    level = transformers.logging.get_verbosity()  # type: ignore[no-untyped-call]
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    yield
    transformers.logging.set_verbosity(level)  # type: ignore[no-untyped-call]


def processor_of(name: str, **settings: Any) -> Any:
    return getattr(transformers, f"{name.partition('-')[0]}ImageProcessorPil")(**settings)


def runtime_of(processor: Any) -> Any:
    """What reads images in a bundle, for a model that takes any size."""
    steps = [step.model_dump(mode="json") for step in steps_of(processor)]
    shapes = {"pixel_values": (("batch", 3, "height", "width"), np.dtype(np.float32))}
    bounds = dict.fromkeys(("batch", "height", "width"), (1, 2**15, 1))
    return inputs.Images({"input": "pixel_values", "steps": steps}, shapes, bounds)


def difference(processor: Any, runtime: Any, content: bytes, place: Path) -> float | None:
    """The greatest difference of a pixel; None where the bundle refuses the image with its reason."""
    place.write_bytes(content)
    try:
        found: NDArray[Any] = runtime.row(content).pixels
    except errors.InputError:
        return None
    wanted = processor(images=opened(place), return_tensors="np")["pixel_values"][0]
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max())


@pytest.mark.parametrize("name", CASES)
def test_pixels_are_those_of_the_models_own_processor(name: str, tmp_path: Path) -> None:
    processor = processor_of(name, **CASES[name])
    runtime = runtime_of(processor)
    refused = 0
    for file in (*odd_images(), *plain_images()[:2]):
        found = difference(processor, runtime, file.content, tmp_path / "image")
        refused += found is None
        assert found is None or found <= MEDIA["image"].most, file.name
    # These make an image of no height of one that is long and low; nothing else is refused.
    assert refused == 0 or name in ("ViT-within", "Detr", "Yolos", "DPT-ratio", "GLPN")


def compare(count: int, seed: int, place: Path) -> tuple[int, float]:
    """How many random images are read, and the greatest difference."""
    generator = np.random.default_rng(seed)
    processors = [(made := processor_of(name, **settings), runtime_of(made)) for name, settings in CASES.items()]
    read, worst = 0, 0.0
    for index in range(count):
        processor, runtime = processors[index % len(processors)]
        content = random_file(generator, 10**6 if count < 100 else 4000 * 3000)
        found = difference(processor, runtime, content, place)
        read += found is not None
        worst = max(worst, found or 0.0)
    return read, worst


def test_random_images_become_the_same_pixels(tmp_path: Path) -> None:
    read, worst = compare(40, 1, tmp_path / "image")
    assert read >= 36
    assert worst <= MEDIA["image"].most


@pytest.mark.proof("test_random_images_become_the_same_pixels, with 40 of them")
def test_a_thousand_random_images_become_the_same_pixels(tmp_path: Path) -> None:
    read, worst = compare(1000, 2, tmp_path / "image")
    assert read >= 900
    assert worst <= MEDIA["image"].most


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("RTDetr", {}, "the image processor RTDetrImageProcessorPil is not reproduced"),
        ("Detr", {"pad_size": {"height": 900, "width": 900}}, "`pad_size: {'height': 900, 'width': 900}` is not"),
        ("Perceiver", {}, "the image processor PerceiverImageProcessorPil is not reproduced"),
        ("DPT", {"do_pad": True, "size_divisor": 14}, "`do_pad: true` is not reproduced"),
        ("DPT", {"ensure_multiple_of": 1000}, "`ensure_multiple_of: 1000` is not reproduced"),
        ("ViT", {"do_pad": True, "pad_size": {"height": 300, "width": 300}}, "`do_pad: true` is not reproduced"),
        ("ViT", {"image_mean": [0.5]}, "a mean or a deviation of 1 channels is not reproduced"),
        ("ViT", {"resample": 9}, "`resample: 9` is not reproduced"),
        ("ConvNext", {"size": {"height": 9, "width": 9}}, "`size: {'height': 9, 'width': 9}` is not reproduced"),
    ],
)
def test_what_has_no_steps_is_refused_by_name(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(StageError) as raised:
        steps_of(processor_of(name, **settings))
    assert message in raised.value.message
    assert "interface: tensors" in str(raised.value.help)


def test_a_processor_of_another_form_is_refused(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "NoneSuch"}', "utf-8")
    with pytest.raises(StageError, match="the model's image processor cannot be made"):
        load_processor(tmp_path)


def test_seeded_images_are_the_same_each_time_and_a_copy_is_small() -> None:
    first: tuple[NamedFile, ...] = (*plain_images(), *odd_images())
    assert first == (*plain_images(), *odd_images())
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((400, 900, 3), np.uint8)).save(buffer, "JPEG")
    with Image.open(io.BytesIO(thumbnail(buffer.getvalue()))) as made:
        assert made.size == (160, 71)
