"""Random image files of all modes, formats, sizes and orientations that are read."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

MODES = ("RGB", "L", "RGBA", "CMYK", "P", "LA", "1")
FORMATS = {"CMYK": ("JPEG",), "RGBA": ("PNG", "WEBP"), "P": ("PNG", "GIF"), "LA": ("PNG",), "1": ("PNG", "BMP")}
WIDEST, HIGHEST = 4000, 3000


def random_file(generator: np.random.Generator, most: int = WIDEST * HIGHEST) -> bytes:
    """A file of a random mode, format, size and orientation; sizes have equal chances in every power of two."""
    while True:
        width, height = (int(2 ** generator.uniform(0, np.log2(side))) for side in (WIDEST, HIGHEST))
        if width * height <= most:
            break
    mode = MODES[generator.integers(len(MODES))]
    choices = FORMATS.get(mode, ("PNG", "JPEG", "BMP", "WEBP"))
    form = choices[generator.integers(len(choices))]
    # A few colours over large areas, or noise: the one for edges and the other for filters.
    size = (height, width) if generator.random() < 0.5 else (min(height, 7), min(width, 5))
    pixels = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST).convert(mode)
    settings: dict[str, Any] = {}
    if form in ("JPEG", "PNG", "WEBP") and generator.random() < 0.5:
        exif = Image.Exif()
        exif[0x0112] = int(generator.integers(0, 10))
        settings["exif"] = exif
    buffer = io.BytesIO()
    image.save(buffer, form, **settings)
    return buffer.getvalue()
