"""Files of images, and arrays, to upright pictures of three channels of 8 bits, within bounds.

A file is read as transformers' pipelines read it: turned as its EXIF data says, then converted to RGB. What is behind
an alpha channel is kept, and of several frames the first.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from loading.errors import InputError, RuntimeVersionError
from numpy.typing import NDArray

from .structure import check_scans, check_structure

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = NDArray[np.uint8]
INSTALL = "pip install --no-deps --require-hashes -r requirements.txt"
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "WEBP")
MODES = frozenset(("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"))
"""Modes of Pillow with 8 bits a channel or less."""
MOST_BYTES = 2**25
MOST_PIXELS = 2**24
MOST_SIDE = 2**15
MOST_CHANNELS = 4


def check_package() -> None:
    """Raise RuntimeVersionError where Pillow is not installed."""
    _pillow()


def decoded(content: object) -> Pixels:
    """The picture of a file's bytes or of an array, [height, width, 3].

    Raises:
        InputError: it is no such image, it is damaged, it has more than 8 bits a channel, or it is too large.
    """
    if isinstance(content, np.ndarray):
        return _of_array(content)
    image = _opened(_bytes(content))
    from PIL import ImageOps

    try:
        # In place, and without a conversion that changes nothing: a copy takes four bytes for each pixel.
        ImageOps.exif_transpose(image, in_place=True)
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except MemoryError:
        raise
    except Exception as error:
        raise InputError(f"an image cannot be read: {_reason(error)}. Send a whole file.") from error


def size_of(content: object) -> tuple[int, int]:
    """Height and width of an array, or those that a file states in its first bytes.

    Raises:
        InputError: as `decoded`, as far as the first bytes tell.
    """
    if isinstance(content, np.ndarray):
        return _of_array(content).shape[:2]
    width, height = _opened(_bytes(content)).size
    return height, width


def check_size(height: int, width: int, what: str = "an image") -> None:
    """Refuse what has no pixels, or too many.

    Raises:
        InputError: it has.
    """
    if not (1 <= height <= MOST_SIDE and 1 <= width <= MOST_SIDE and height * width <= MOST_PIXELS):
        raise InputError(
            f"{what} has {width} x {height} pixels. Expected sides of 1 to {MOST_SIDE}, and at most {MOST_PIXELS} "
            "pixels."
        )


def _bytes(content: object) -> bytes | bytearray | memoryview:
    if not isinstance(content, bytes | bytearray | memoryview):
        raise InputError(f"an image is a {type(content).__name__}. Expected the bytes of a file, or an array.")
    return content


def _opened(content: bytes | bytearray | memoryview) -> Image:
    """A file whose first bytes were read, and nothing of its pixels."""
    if len(content) > MOST_BYTES:
        raise InputError(f"an image has {len(content)} bytes. At most {MOST_BYTES} are taken.")
    check_structure(content)
    module = _pillow()
    try:
        image: Image = module.open(io.BytesIO(content), formats=FORMATS)
    except MemoryError:
        raise
    except (module.DecompressionBombError, module.DecompressionBombWarning) as error:
        raise InputError(f"an image has too many pixels. At most {MOST_PIXELS} are taken.") from error
    except Exception as error:
        # Readers of damaged files raise whatever their code runs into.
        raise InputError(f"an image cannot be read: {_reason(error)}. Send one of {', '.join(FORMATS)}.") from error
    width, height = image.size
    check_size(height, width)
    check_scans(content, height * width)
    if image.mode not in MODES:
        raise InputError(
            f"an image has the mode {image.mode}, which is not one of 8 bits per channel. Send it in grey or in "
            "colours of 8 bits."
        )
    return image


def _of_array(values: NDArray[Any]) -> Pixels:
    """An array [height, width] or [height, width, channels] of 1, 3 or 4 channels, as RGB."""
    shape = values.shape
    if values.dtype != np.uint8 or len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
        raise InputError(
            f"an image is an array of {values.dtype} {list(shape)}. Expected uint8 [height, width] or "
            "[height, width, channels] with 1, 3 or 4 channels."
        )
    check_size(shape[0], shape[1])
    if len(shape) == 2:
        values = values[..., None]
    return np.ascontiguousarray(np.broadcast_to(values[..., :3], (*shape[:2], 3)))


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise RuntimeVersionError(f"Pillow cannot be imported: {error}. Install it: {INSTALL}") from error
    return Image


def _reason(error: Exception) -> str:
    """What a reader says, without the place in memory that it names."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "its format is not known"
    return str(error) or type(error).__name__
