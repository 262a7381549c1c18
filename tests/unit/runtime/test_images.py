"""Images as a bundle reads them: their bounds, what they take of memory, and settings that are not understood."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.support.bundles import runtime_module
from tests.support.image_bundles import STEPS, encoded, noise

from ortc.build.image_answers import MOST_GOLDEN_BYTES, sample_images
from ortc.bundle.render import runtime_files

decoding, inputs, steps = (runtime_module(f"processing.images.{name}") for name in ("decoding", "inputs", "steps"))
segments, forms = (runtime_module(f"processing.images.{name}") for name in ("segments", "forms"))
errors, answering = runtime_module("loading.errors"), runtime_module("loading.answering")
SHAPES = {"pixel_values": (("batch", 3, 8, 8), np.dtype(np.float32))}


def images(*made: dict[str, Any], shape: tuple[Any, ...] = ("batch", 3, 8, 8)) -> Any:
    """What reads images with some steps."""
    shapes = {"pixel_values": (shape, np.dtype(np.float32))}
    return inputs.Images({"input": "pixel_values", "steps": made or STEPS}, shapes, {"batch": (1, 4, 1)})


def test_arrays_are_read_as_files_are() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    assert np.array_equal(decoding.decoded(pixels), decoding.decoded(encoded(pixels)))
    grey = pixels[..., 0]
    assert np.array_equal(decoding.decoded(grey), decoding.decoded(encoded(grey)))
    assert np.array_equal(decoding.decoded(grey[..., None]), decoding.decoded(grey))
    opaque = np.concatenate([pixels, pixels[..., :1]], axis=2)
    assert np.array_equal(decoding.decoded(opaque), pixels)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((4, 4, 3), np.float32), "array of float32 [4, 4, 3]. Expected uint8"),
        (np.zeros((4, 4, 2), np.uint8), "[4, 4, 2]. Expected uint8"),
        (np.zeros((0, 4), np.uint8), "has 4 x 0 pixels"),
        (np.zeros((1, 2**15 + 1), np.uint8), "has 32769 x 1 pixels"),
        (7, "an image is a int"),
        (b"\0" * (2**25 + 1), "has 33554433 bytes"),
        (encoded(np.zeros((4, 4), np.int32), "TIFF"), "its format is not known"),
        (encoded(np.zeros((4, 4), np.uint16)), "mode I;16"),
        (noise(1, 30, 30)[:-60], "cannot be read"),
    ],
)
def test_what_is_no_image_is_refused(given: Any, said: str) -> None:
    with pytest.raises(errors.InputError) as raised:
        decoding.decoded(given)
    assert said in str(raised.value)


def test_sides_that_differ_too_much_are_refused_before_anything_is_made() -> None:
    long = encoded(np.zeros((2, 32000, 3), np.uint8))
    resize = {"op": "resize", "size": {"shortest_edge": 600}, "filter": "nearest"}
    with pytest.raises(errors.InputError, match=r"of 32000 x 2 pixels becomes one of 9600000 x 600\. Expected 1 to"):
        images(resize, *STEPS[1:]).row(long)
    low = {"op": "resize", "size": {"max_height": 8, "max_width": 8}, "filter": "nearest"}
    with pytest.raises(errors.InputError, match="becomes one of 8 x 0"):
        images(low, *STEPS[1:]).row(long)
    with pytest.raises(errors.InputError, match="the model takes a width of 8 to 8"):
        images({"op": "resize", "size": {"height": 8, "width": 9}, "filter": "nearest"}).row(long)


def test_memory_is_what_decoding_and_the_largest_step_take() -> None:
    made = images()
    # A megabyte of metadata, and 24 bytes of a pixel that is decoded; a shorter side of 10 makes 100 x 10 of 200 x 20.
    assert made.memory(encoded(np.zeros((20, 200, 3), np.uint8))) == 2**20 + 24 * 200 * 20 + 48 * 100 * 10
    assert made.memory(encoded(np.zeros((200, 20, 3), np.uint8))) == 2**20 + 24 * 200 * 20 + 48 * 100 * 10
    with pytest.raises(errors.InputError):
        made.memory(b"no image")


def test_pictures_of_one_size_share_a_run() -> None:
    made = images({"op": "rescale", "factor": 1.0, "offset": 0.0}, shape=("batch", 3, None, None))
    rows = [made.row(np.zeros(size, np.uint8)) for size in ((4, 4), (4, 5), (4, 4), (4, 4))]
    assert list(made.runs(rows, 2)) == [[0, 2], [3], [1]]
    assert made.inputs([rows[0], rows[2]])["pixel_values"].shape == (2, 3, 4, 4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"op": "sharpen"},
        {"op": "normalize", "mean": [0.5], "std": [0.5]},
    ],
)
def test_a_step_that_is_not_understood_is_a_format_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(errors.FormatError):
        images(wrong)


@pytest.mark.parametrize("wrong", [{}, {"image": {"input": "pixel_values"}}, {"image": {"input": "x", "steps": []}}])
def test_a_malformed_document_is_a_format_error(wrong: dict[str, Any]) -> None:
    document = {"format_version": 1, "task": "t", "answer": {"kind": "labels", "output": "y", "labels": []}, **wrong}
    with pytest.raises(errors.FormatError):
        runtime_module("processing.answers").Processing(document, None, SHAPES, {"batch": (1, 4, 1)}, together=True)


def test_a_mask_is_in_the_input_that_the_model_has_for_it() -> None:
    shapes = SHAPES | {"pixel_mask": (("batch", 8, 8), np.dtype(np.int64))}
    settings = {"input": "pixel_values", "mask": "pixel_mask", "steps": STEPS}
    made = inputs.Images(settings, shapes, {"batch": (1, 4, 1)})
    found = made.inputs([made.row(noise(3, 9, 9))])["pixel_mask"]
    assert (found.shape, found.dtype, found.min()) == ((1, 8, 8), np.int64, 1)


def test_masks_say_each_pixel_once() -> None:
    classes = np.array([[0, 0, 2], [0, 1, 2]], np.uint16)
    found = segments.segments_of(classes, ("a", "b", "c"))
    assert [(entry["label"], entry["mask"]["counts"]) for entry in found] == [
        ("a", [0, 3, 3]),
        ("b", [3, 1, 2]),
        ("c", [4, 2]),
    ]
    for number, entry in enumerate(found):
        counts = entry["mask"]["counts"]
        flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
        assert np.array_equal(flat.reshape(3, 2).T, classes == number)


def test_boxes_are_in_pixels_of_the_image_that_was_sent() -> None:
    settings = {"output": "p", "boxes": "b", "threshold": 0.5, "labels": ["cat", "dog"]}
    form = forms.Boxes(settings, images())
    row = inputs.Picture(np.zeros((3, 8, 8), np.float32), (100, 200))
    scores = np.array([[[0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.9, 0.0, 0.1]]], np.float32)
    places = np.array([[[0.5, 0.5, 0.5, 0.5], [0, 0, 0, 0], [0.1, 0.2, 0.4, 0.2]]], np.float32)
    (found, other) = form.answer(None, [row], [form.values({"p": scores, "b": places}, 0, row)])
    assert found == {
        "score": pytest.approx(0.8),
        "label": "dog",
        "box": {"xmin": 50, "ymin": 25, "xmax": 150, "ymax": 75},
    }
    assert other["box"] == {"xmin": -20, "ymin": 10, "xmax": 60, "ymax": 30}


def test_files_stand_for_their_paths(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"content")
    assert answering.with_files([str(tmp_path / "a.png"), tmp_path / "a.png", b"x"]) == [b"content", b"content", b"x"]
    for wrong in (str(tmp_path), str(tmp_path / "none"), "a\0b"):
        with pytest.raises(errors.InputError, match="cannot be read"):
            answering.with_files(wrong)


def test_bundles_carry_the_code_that_they_need() -> None:
    assert not [name for name in runtime_files() if name.startswith("processing/")]
    texts = runtime_files(takes="text")
    assert "processing/texts.py" in texts
    assert not [name for name in texts if name.startswith("processing/images/")]
    assert "processing/images/steps.py" in runtime_files(takes="image")


def test_samples_of_a_directory_are_judged_or_calibrated_on(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / f"{name}.png").write_bytes(noise(ord(name), 12, 12))
    assert [file.name for file in sample_images(tmp_path, halved=False)] == ["a.png", "b.png", "c.png", "d.png"]
    assert [file.name for file in sample_images(tmp_path, halved=True)] == ["a.png", "c.png"]


def test_large_samples_have_small_copies(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(noise(1, 200, 300))
    large, small = sample_images(tmp_path, halved=False)
    assert len(large.content) > MOST_GOLDEN_BYTES > len(small.content)
    with Image.open(io.BytesIO(small.content)) as image:
        assert (small.name, image.size) == ("large.png (small)", (160, 107))


def test_a_request_may_have_its_own_threshold() -> None:
    settings = {"output": "probabilities", "boxes": "boxes", "threshold": 0.5, "labels": ["cat"]}
    made = forms.Boxes(settings, images())
    picture = images().row(np.zeros((8, 8, 3), np.uint8))
    scores = np.array([[0.9, 0.1], [0.4, 0.6], [0.1, 0.9]], np.float32)
    values = [(scores, np.full((3, 4), 0.5, np.float32))]
    for entry, count in ((b"", 1), ({"image": b"", "threshold": 0.3}, 2), ({"image": b"", "threshold": 0}, 3)):
        assert len(made.answer(entry, [picture], values)) == count
    pixels = np.zeros((8, 8, 3), np.uint8)
    assert len(made.rows({"image": pixels, "threshold": 0.3}, None)) == 1
    for wrong in (2, -0.1, "0.5", True, None, float("nan")):
        with pytest.raises(errors.InputError, match="Expected a score from 0 to 1"):
            made.rows({"image": pixels, "threshold": wrong}, None)
    with pytest.raises(errors.InputError, match=r"has \['image', 'threshold'\]. Expected image\."):
        forms.ImageLabels(settings, images()).rows({"image": pixels, "threshold": 0.3}, None)


def test_a_path_may_have_settings_beside_it(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"content")
    given = {"image": str(tmp_path / "a.png"), "threshold": 0.3}
    assert answering.with_files(given) == {"image": b"content", "threshold": 0.3}
    assert answering.with_files([given])[0]["image"] == b"content"
