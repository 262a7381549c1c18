"""Seeded images: plain ones for models without samples, and odd ones that show whether two image processors agree.

They are the same on every machine, as files: small, and without loss but for JPEG's own.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ortc.frontend.samples.named_file import NamedFile
from ortc.inspection.image_files import FORMATS

if TYPE_CHECKING:
    from PIL.Image import Image

_SEED = 21
_PLAIN_SIZES = ((96, 96), (120, 80), (64, 100), (150, 60), (48, 48), (90, 130), (33, 71), (111, 55))
_ORIENTATION = 0x0112
"""The tag of EXIF that says how an image is turned."""
THUMBNAIL = 160
"""The longest side of a small copy of a sample."""


def plain_images() -> tuple[NamedFile, ...]:
    """Return seeded pictures of a few sizes: a gradient with shapes on it and some noise."""
    generator = np.random.default_rng(_SEED)
    return tuple(
        NamedFile(f"plain-{index}.png", _encoded(_picture(generator, height, width), "PNG"))
        for index, (height, width) in enumerate(_PLAIN_SIZES)
    )


def odd_images() -> tuple[NamedFile, ...]:
    """Return images of all modes, ratios, formats and orientations that are read."""
    return tuple(NamedFile(name, content) for name, content in _odd(np.random.default_rng(_SEED + 1)))


def thumbnail(content: bytes) -> bytes:
    """Return a small copy of an image, as PNG."""
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return _encoded(image, "PNG")


def _odd(generator: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    picture = _picture(generator, 60, 90)
    for height, width in ((1, 1), (1, 40), (40, 1), (2, 3), (300, 4), (5, 260), (37, 53), (256, 256)):
        yield f"noise-{width}x{height}.png", _encoded(_noise(generator, height, width), "PNG")
    for mode in ("1", "L", "P"):
        yield f"mode-{mode}.png", _encoded(picture.convert(mode), "PNG")
    seen_through = picture.convert("RGBA")
    seen_through.putalpha(_noise(generator, 60, 90).convert("L"))
    yield "mode-RGBA.png", _encoded(seen_through, "PNG")
    yield "mode-LA.png", _encoded(seen_through.convert("LA"), "PNG")
    yield "palette-transparency.png", _encoded(picture.convert("P"), "PNG", transparency=3)
    yield "mode-CMYK.jpg", _encoded(picture.convert("CMYK"), "JPEG")
    yield "mode-L.jpg", _encoded(picture.convert("L"), "JPEG")
    for orientation in range(1, 9):
        yield f"orientation-{orientation}.jpg", _turned(picture, orientation)
    for form in ("GIF", "BMP", "WEBP"):
        more = {"lossless": True} if form == "WEBP" else {}
        yield f"format.{form.lower()}", _encoded(picture, form, **more)


def _turned(picture: Image, orientation: int) -> bytes:
    from PIL import Image

    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    return _encoded(picture, "JPEG", exif=exif)


def _encoded(image: Image, form: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **settings)
    return buffer.getvalue()


def _noise(generator: np.random.Generator, height: int, width: int) -> Image:
    from PIL import Image

    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def _picture(generator: np.random.Generator, height: int, width: int) -> Image:
    """A gradient between two colours, three rectangles on it, and noise of a few steps."""
    from PIL import Image

    first, last = generator.integers(0, 256, (2, 3))
    share = (np.linspace(0, 1, height)[:, None] + np.linspace(0, 1, width)[None]) / 2
    values = first + share[..., None] * (last - first)
    for _ in range(3):
        top, left = generator.integers(0, height), generator.integers(0, width)
        values[top : top + height // 3 + 1, left : left + width // 3 + 1] = generator.integers(0, 256, 3)
    values = values + generator.integers(-6, 7, values.shape)
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
