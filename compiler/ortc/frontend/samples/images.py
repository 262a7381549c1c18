"""Images as inputs of a model: a directory of them, by the model's own image processor or by what an input declares."""

from __future__ import annotations

import importlib.metadata
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ortc.common.arrays import Array, Arrays, read_arrays
from ortc.common.errors import StageError
from ortc.execution.worker import Worker
from ortc.frontend.samples.inputs import PIXEL_MASK
from ortc.inspection.image_files import FORMATS, image_files
from ortc.plan.plan import AxisPlan, InputPlan
from ortc.spec.vocabulary import STRING

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_IMAGES = 1024
"""Images that are read: half judges, half calibrates. Evenly spaced when there are more."""
PROCESSOR = "preprocessor_config.json"
"""The file that says how the model's images are prepared."""
MOST_PIXELS = 2**26
"""Of an image of samples: 200 MB once it is decoded."""
_CHANNELS = {1: "L", 3: "RGB"}
_MISSING = "install Pillow beside ortc: pip install 'ortc[images]'"


def pillow_version() -> str:
    """The version of what decodes images, for cache keys.

    Raises:
        StageError: Pillow is not installed.
    """
    try:
        return importlib.metadata.version("pillow")
    except importlib.metadata.PackageNotFoundError as error:
        raise StageError("the samples are images, and Pillow is not installed", help=_MISSING) from error


def load_images(
    directory: Path, model_directory: Path | None, inputs: tuple[InputPlan, ...], axes: tuple[AxisPlan, ...]
) -> Arrays:
    """The images of a directory as arrays by input, images along axis 0.

    Args:
        directory: holds the images.
        model_directory: the model's files; its image processor is taken where it has one.
        inputs: what the model takes; without a processor exactly one image of 1 or 3 channels.
        axes: the declared axes; a dynamic height or width is at its typical size.

    Raises:
        StageError: no images, one that cannot be read, or none that fit what the model takes.
    """
    pillow_version()
    files = image_files(directory)
    picked = sorted({round(i) for i in np.linspace(0, len(files) - 1, min(len(files), MAX_IMAGES))})
    chosen = [files[index] for index in picked]
    if model_directory is not None and (model_directory / PROCESSOR).is_file():
        arrays = dict(_processed(directory, chosen, model_directory))
    else:
        layout = _layout(tuple(tensor for tensor in inputs if tensor.name != PIXEL_MASK), axes)
        rows = [layout.array(open_image(path, directory, layout.channels)) for path in chosen]
        arrays = {layout.tensor.name: np.stack(rows)}
    for tensor in inputs:
        if tensor.name == PIXEL_MASK and PIXEL_MASK not in arrays and "pixel_values" in arrays:
            # Images that were brought to one size are whole.
            count, _, *sides = arrays["pixel_values"].shape
            arrays[PIXEL_MASK] = np.ones((count, *sides), dtype=tensor.dtype)
    return arrays


def _processed(directory: Path, files: Sequence[Path], model_directory: Path) -> Arrays:
    """By the model's processor, in a process of its own: transformers brings torch with it."""
    with tempfile.TemporaryDirectory(prefix="ortc-images-") as scratch, Worker.for_images() as worker:
        output = Path(scratch) / "images.npz"
        worker.call(
            "process",
            directory=str(directory),
            files=[str(path) for path in files],
            model=str(model_directory),
            output=str(output),
        )
        return read_arrays(output)


def open_image(path: Path, directory: Path, channels: int = 3) -> Image:
    """A decoded image, upright, in grey or in colours.

    Raises:
        StageError: it is none, is damaged, or holds more than 8 bits a channel.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    name = path.relative_to(directory).as_posix()
    try:
        with Image.open(path, formats=FORMATS) as opened:
            if math.prod(opened.size) > MOST_PIXELS:
                raise StageError(
                    f"the image `{name}` of the samples has {opened.size[0]} x {opened.size[1]} pixels, at most "
                    f"{MOST_PIXELS} are read",
                    help="give a smaller copy",
                )
            opened.load()
            if opened.mode.startswith(("I", "F")):
                raise StageError(
                    f"the image `{name}` of the samples has more than 8 bits a channel (mode {opened.mode})",
                    help="what its values mean is the model's affair: give such images as .npz or by an entry point",
                )
            return ImageOps.exif_transpose(opened).convert(_CHANNELS[channels])
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow's readers raise all of these for files that are damaged; the first says "cannot identify" with a path.
        reason = "is no image" if isinstance(error, UnidentifiedImageError) else f"cannot be read: {error}"
        raise StageError(f"the image `{name}` of the samples {reason}", help="repair or remove it") from error


@dataclass(frozen=True)
class _Layout:
    """How an input holds an image: sizes in pixels, and the values of black and white."""

    tensor: InputPlan
    channels: int
    height: int
    width: int
    channels_last: bool
    bounds: tuple[float, float]

    def array(self, image: Image) -> Array:
        """One image at the input's size, dtype and range."""
        from PIL.Image import Resampling

        if image.size != (self.width, self.height):
            image = image.resize((self.width, self.height), Resampling.BILINEAR)
        pixels = np.asarray(image, dtype=np.float64).reshape(self.height, self.width, self.channels)
        low, high = self.bounds
        values = low + pixels * ((high - low) / 255)
        dtype = np.dtype(self.tensor.dtype)
        values = (np.rint(values) if dtype.kind in "iu" else values).astype(dtype)
        return values if self.channels_last else np.ascontiguousarray(values.transpose(2, 0, 1))


def _layout(inputs: tuple[InputPlan, ...], axes: tuple[AxisPlan, ...]) -> _Layout:
    help_ = "give the samples as .npz with an array an input, or by an entry point"
    if len(inputs) != 1:
        names = ", ".join(tensor.name for tensor in inputs)
        raise StageError(f"the samples are images, but the model takes {len(inputs)} inputs: {names}", help=help_)
    tensor = inputs[0]
    typical = {axis.name: axis.typical for axis in axes}
    sizes = [entry if isinstance(entry, int) else typical[entry] for entry in tensor.shape]
    first = len(sizes) == 4 and tensor.shape[1] in _CHANNELS
    last = len(sizes) == 4 and not first and tensor.shape[3] in _CHANNELS
    if not (first or last) or tensor.dtype in ("bool", STRING):
        raise StageError(
            f"the samples are images, but the input `{tensor.name}` is {tensor.dtype} {list(tensor.shape)}; images are "
            "[batch, channels, height, width] or [batch, height, width, channels] with 1 or 3 channels",
            help=help_,
        )
    channels, height, width = sizes[1:] if first else (sizes[3], sizes[1], sizes[2])
    dtype = np.dtype(tensor.dtype)
    bounds = tensor.range or ((0.0, 1.0) if dtype.kind == "f" else (0.0, 255.0))
    if dtype.kind in "iu" and max(bounds) > np.iinfo(dtype).max:
        raise StageError(
            f"the samples are images, and {dtype} of the input `{tensor.name}` does not hold 0 to 255",
            help="declare its `range` in `export.inputs`",
        )
    return _Layout(tensor, channels, height, width, last, (float(bounds[0]), float(bounds[1])))
