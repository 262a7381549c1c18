"""Real inputs from a directory of images and from a function of the user's."""

import importlib.metadata
import itertools
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ortc.common.errors import StageError
from ortc.frontend.samples.calibration import calibration_inputs
from ortc.frontend.samples.images import MAX_IMAGES, load_images
from ortc.frontend.samples.inputs import InputFactory
from ortc.frontend.samples.sources import MAX_GIVEN, load_samples, samples_digest, samples_key
from ortc.inspection.image_files import image_files
from ortc.plan.plan import AxisPlan, InputPlan
from ortc.spec.accuracy import SamplesFunction

BATCH = AxisPlan(name="batch", min=1, typical=1, max=16)
GREY = InputPlan(name="image", dtype="float32", shape=("batch", 1, 2, 4), range=(-1, 1))
COLOURS = InputPlan(name="image", dtype="float32", shape=("batch", 3, 2, 4))


def save(path: Path, value: int | tuple[int, ...], mode: str = "L", size: tuple[int, int] = (4, 2)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Images of two classes, and what is none."""
    save(tmp_path / "images" / "dog" / "1.png", 0)
    save(tmp_path / "images" / "cat" / "2.PNG", 255)
    save(tmp_path / "images" / "cat" / "10.bmp", 51)
    save(tmp_path / "images" / ".thumbnails" / "1.png", 9)
    (tmp_path / "images" / "labels.csv").write_text("1,dog\n")
    return tmp_path / "images"


def test_images_are_found_by_relative_path(images: Path) -> None:
    found = [path.relative_to(images).as_posix() for path in image_files(images)]
    assert found == ["cat/10.bmp", "cat/2.PNG", "dog/1.png"]


def test_images_take_the_declared_range_and_type(images: Path) -> None:
    values = load_images(images, None, (GREY,), (BATCH,))["image"]
    assert (values.shape, values.dtype) == ((3, 1, 2, 4), np.float32)
    assert values[:, 0, 0, 0].tolist() == pytest.approx([51 / 127.5 - 1, 1, -1])
    plain = GREY.model_copy(update={"range": None})
    assert load_images(images, None, (plain,), (BATCH,))["image"][:, 0, 0, 0].tolist() == pytest.approx([0.2, 1, 0])
    whole = GREY.model_copy(update={"range": None, "dtype": "uint8"})
    assert load_images(images, None, (whole,), (BATCH,))["image"][:, 0, 0, 0].tolist() == [51, 255, 0]
    levels = GREY.model_copy(update={"range": (0, 16), "dtype": "int64"})
    assert load_images(images, None, (levels,), (BATCH,))["image"][:, 0, 0, 0].tolist() == [3, 16, 0]
    narrow = GREY.model_copy(update={"range": None, "dtype": "int8"})
    with pytest.raises(StageError, match="int8 of the input `image` does not hold 0 to 255"):
        load_images(images, None, (narrow,), (BATCH,))


def test_colours_and_their_place(tmp_path: Path) -> None:
    save(tmp_path / "a.png", (255, 51, 0), "RGB")
    save(tmp_path / "b.png", (0, 0, 255, 0), "RGBA")
    first = load_images(tmp_path, None, (COLOURS,), (BATCH,))["image"]
    assert (first.shape, first.flags.c_contiguous) == ((2, 3, 2, 4), True)
    assert first[:, :, 0, 0].tolist() == [pytest.approx([1, 0.2, 0]), pytest.approx([0, 0, 1])]
    last = COLOURS.model_copy(update={"shape": ("batch", 2, 4, 3)})
    assert np.array_equal(load_images(tmp_path, None, (last,), (BATCH,))["image"], first.transpose(0, 2, 3, 1))


def test_images_are_upright_and_of_the_typical_size(tmp_path: Path) -> None:
    image = Image.new("L", (2, 4), 0)
    image.paste(255, (0, 0, 2, 2))
    exif = Image.Exif()
    # Taken by a camera that was turned: rows are columns, from the right.
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    turned = load_images(tmp_path, None, (GREY,), (BATCH,))["image"][0, 0]
    assert turned.tolist() == [[-1, -1, 1, 1], [-1, -1, 1, 1]]
    free = GREY.model_copy(update={"shape": ("batch", 1, "height", "width")})
    axes = (
        BATCH,
        AxisPlan(name="height", min=1, typical=6, max=32),
        AxisPlan(name="width", min=1, typical=8, max=32),
    )
    assert load_images(tmp_path, None, (free,), axes)["image"].shape == (1, 1, 6, 8)


def test_many_images_are_thinned_evenly(tmp_path: Path) -> None:
    dot = tmp_path / "0000.bmp"
    save(dot, 7, size=(1, 1))
    for index in range(1, MAX_IMAGES + 500):
        (tmp_path / f"{index:04}.bmp").hardlink_to(dot)
    save(tmp_path / "last.png", 255, size=(1, 1))
    small = GREY.model_copy(update={"shape": ("batch", 1, 1, 1), "range": (0, 255)})
    found = load_images(tmp_path, None, (small,), (BATCH,))["image"].ravel()
    assert (len(found), found[0], found[-1]) == (MAX_IMAGES, 7, 255)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"the image `cat/bad\.png` of the samples is no image"),
        (b"hello", r"`cat/bad\.png` of the samples is no image"),
        (None, r"`cat/bad\.png` of the samples cannot be read: .*truncated"),
    ],
)
def test_an_image_that_cannot_be_read(images: Path, content: bytes | None, message: str) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (64, 64), np.uint8)
    path = images / "cat" / "bad.png"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000] if content is None else content)
    with pytest.raises(StageError, match=message):
        load_images(images, None, (GREY,), (BATCH,))


def test_an_image_starts_no_program(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow has Ghostscript draw a file that begins as PostScript does, whatever it is called."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    (images / "cat" / "page.png").write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    )
    with pytest.raises(StageError, match=r"`cat/page\.png` of the samples is no image"):
        load_images(images, None, (GREY,), (BATCH,))
    assert not (tmp_path / "ran").exists()


def test_an_image_of_too_many_pixels(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ortc.frontend.samples.images.MOST_PIXELS", 7)
    with pytest.raises(StageError, match=r"`cat/10\.bmp` of the samples has 4 x 2 pixels, at most 7 are read"):
        load_images(images, None, (GREY,), (BATCH,))


def test_a_name_that_is_not_utf8(images: Path) -> None:
    odd = os.fsdecode(os.fsencode(images / "cat") + b"/\xff.png")
    save(images / "cat" / "plain.png", 3)
    (images / "cat" / "plain.png").rename(odd)
    with pytest.raises(StageError, match=r"the name of the image `cat/\\udcff\.png` of the samples is not UTF-8"):
        samples_digest("images", images.parent)


def test_images_of_more_bits(images: Path) -> None:
    Image.fromarray(np.full((2, 4), 40_000, np.uint16)).save(images / "deep.png")
    with pytest.raises(StageError, match=r"`deep\.png` of the samples has more than 8 bits a channel \(mode I;16\)"):
        load_images(images, None, (GREY,), (BATCH,))


def test_a_directory_without_images(images: Path) -> None:
    (images / "empty").mkdir()
    with pytest.raises(StageError, match="`empty` are a directory without images"):
        samples_key("images/empty", images.parent)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([("batch", 1, 2, 4)] * 2, "the model takes 2 inputs: x0, x1"),
        ([("batch", 2, 4)], r"the input `x0` is float32 \['batch', 2, 4\]"),
        ([("batch", 2, 8, 8)], "with 1 or 3 channels"),
    ],
)
def test_inputs_that_are_no_image(images: Path, shapes: list[tuple[str | int, ...]], message: str) -> None:
    inputs = tuple(InputPlan(name=f"x{index}", dtype="float32", shape=shape) for index, shape in enumerate(shapes))
    with pytest.raises(StageError, match=message) as caught:
        load_images(images, None, inputs, (BATCH,))
    assert "npz" in str(caught.value.help)


def test_without_pillow(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(StageError, match="Pillow is not installed") as caught:
        samples_key("images", images.parent)
    assert "ortc[images]" in str(caught.value.help)
    # A lock needs none.
    assert samples_digest("images", images.parent)


def test_the_digest_of_images_is_of_names_and_bytes(images: Path) -> None:
    root = images.parent
    digests = [samples_digest("images", root)]
    (images / "labels.csv").write_text("1,cat\n")
    assert samples_digest("images", root) == digests[0]
    (images / "cat" / "2.PNG").rename(images / "dog" / "2.PNG")
    digests.append(samples_digest("images", root))
    save(images / "dog" / "1.png", 1)
    digests.append(samples_digest("images", root))
    images.rename(root / "moved")
    assert samples_digest("moved", root) == digests[-1]
    assert len(set(digests)) == 3
    with pytest.raises(StageError, match="samples `images` do not exist"):
        samples_digest("images", root)


def test_images_are_split_and_judged(images: Path) -> None:
    samples = load_samples("images", images.parent, None, (GREY,), (BATCH,))
    judged, calibration = samples.split()
    factory = InputFactory((GREY,), (BATCH,), judged, calibration)
    (_, feeds), *_ = factory.real()
    assert feeds["image"][:, 0, 0, 0].tolist() == pytest.approx([51 / 127.5 - 1, -1])
    *_, last = calibration_inputs(factory)
    assert last["image"][:, 0, 0, 0].tolist() == [1]


NUMBERS = InputPlan(name="x", dtype="float32", shape=("batch", 2))
SCALE = InputPlan(name="scale", dtype="int64", shape=("batch",))
MODULE = """
import itertools
import numpy as np
from pathlib import Path

def rows():
    return [{"x": np.full(2, i, np.float32), "scale": np.int64(i)} for i in range(3)]

def batches(model_dir: Path):
    for i in range(3):
        yield {"x": np.full((1, 2), i, np.float32), "scale": np.array([len(model_dir.name)])}

def endless():
    return ({"x": np.full(2, i, np.float32), "scale": np.int64(i)} for i in itertools.count())

def several():
    yield {"x": np.zeros((2, 2), np.float32), "scale": np.zeros(2, np.int64)}

def doubles():
    yield {"x": np.zeros(2), "scale": np.int64(1)}

def uneven():
    yield {"x": np.zeros(2, np.float32), "scale": np.int64(1)}
    yield {"x": np.zeros(3, np.float32), "scale": np.int64(1)}

def lists():
    yield {"x": [[1.0], [1.0, 2.0]], "scale": np.int64(1)}

def fewer():
    yield {"x": np.zeros(2, np.float32)}

def more():
    yield {"x": np.zeros(2, np.float32), "scale": np.int64(1), "label": 3}

def arrays():
    yield np.zeros(2, np.float32)

def mapping():
    return {"x": np.zeros(2, np.float32)}

def nothing():
    return iter(())

def none():
    return None

def fails():
    yield {"x": np.zeros(2, np.float32), "scale": np.int64(1)}
    raise KeyError("column")

def demanding(path):
    return []

number = 3
"""
MODULES = (f"given_{index}" for index in itertools.count())


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module of functions, in the project `tmp_path`."""
    name = next(MODULES)
    (tmp_path / f"{name}.py").write_text(MODULE, "utf-8")
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield name
    sys.modules.pop(name, None)


def given(module: str, function: str, root: Path) -> dict[str, np.ndarray]:
    declared = SamplesFunction(entrypoint=f"{module}:{function}")
    return dict(load_samples(declared, root, Path("/models/seven"), (NUMBERS, SCALE), (BATCH,)).arrays)


def test_samples_of_a_function(module: str, tmp_path: Path) -> None:
    rows = given(module, "rows", tmp_path)
    assert rows["x"].tolist() == [[0, 0], [1, 1], [2, 2]]
    assert (rows["scale"].tolist(), rows["scale"].dtype) == ([0, 1, 2], np.int64)
    batches = given(module, "batches", tmp_path)
    assert np.array_equal(batches["x"], rows["x"])
    assert batches["scale"].tolist() == [5, 5, 5]
    assert len(given(module, "endless", tmp_path)["x"]) == MAX_GIVEN


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("several", "`x` of sample 0 of `MODULE:several` is float32 [2, 2]; the spec declares float32 ['batch', 2]"),
        ("doubles", "`x` of sample 0 of `MODULE:doubles` is float64 [2]"),
        ("uneven", "the samples `MODULE:uneven` give `x` in several shapes, such as [2] and [3]"),
        ("lists", "`x` of sample 0 of `MODULE:lists` is no array: ValueError"),
        ("fewer", "sample 0 of `MODULE:fewer` has x; the model's inputs are x, scale"),
        ("more", "sample 0 of `MODULE:more` has label, scale, x; the model's inputs are x, scale"),
        ("arrays", "sample 0 of `MODULE:arrays` is ndarray, not a mapping"),
        ("mapping", "`MODULE:mapping` gives dict, not an iterable of samples"),
        ("none", "`MODULE:none` gives NoneType, not an iterable of samples"),
        ("nothing", "the samples `MODULE:nothing` are empty"),
        ("fails", "the samples `MODULE:fails` fail: KeyError: 'column'"),
        ("demanding", "the samples `MODULE:demanding` fail: TypeError"),
        ("number", "`MODULE:number` is a value of the type `int`, and not a function"),
        ("missing", "the module `MODULE` has no `missing`"),
    ],
)
def test_functions_that_give_something_else(module: str, tmp_path: Path, function: str, message: str) -> None:
    with pytest.raises(StageError, match=re.escape(message.replace("MODULE", module))):
        given(module, function, tmp_path)


def test_the_key_of_a_function_is_its_code(module: str, tmp_path: Path) -> None:
    declared = SamplesFunction(entrypoint=f"{module}:rows")
    key = samples_key(declared, tmp_path)
    assert samples_key(SamplesFunction(entrypoint=f"{module}:batches"), tmp_path) != key
    (tmp_path / "data.csv").write_text("1,2\n")
    beside = samples_key(declared, tmp_path)
    assert beside != key
    (tmp_path / f"{module}.py").write_text(MODULE + "\nCOUNT = 3\n", "utf-8")
    assert samples_key(declared, tmp_path) not in (key, beside)
    with pytest.raises(StageError, match="cannot find the module `elsewhere`"):
        samples_digest(SamplesFunction(entrypoint="elsewhere:rows"), tmp_path)
