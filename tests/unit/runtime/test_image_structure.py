"""Files of images whose metadata is large, or grows when it is unpacked: refused before Pillow reads them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from tests.support.bundles import runtime_module

decoding = runtime_module("processing.images.decoding")
InputError = runtime_module("loading.errors").InputError
PIXELS = np.random.default_rng(0).integers(0, 255, (8, 9, 3), np.uint8)


def encoded(form: str, **more: object) -> bytes:
    written = io.BytesIO()
    Image.fromarray(PIXELS).save(written, form, **more)
    return written.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes) -> bytes:
    """A picture with chunks behind its head."""
    whole = encoded("PNG")
    return whole[:33] + b"".join(chunks) + whole[33:]


def jpeg(*segments: tuple[int, bytes]) -> bytes:
    whole = encoded("JPEG")
    made = [bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data for marker, data in segments]
    return whole[:2] + b"".join(made) + whole[2:]


def gif(*comments: bytes) -> bytes:
    whole = encoded("GIF")
    start = 13 + (3 << ((whole[10] & 7) + 1))
    blocks = b"".join(bytes((len(comment),)) + comment for comment in comments)
    return whole[:start] + b"\x21\xfe" + blocks + b"\0" + whole[start:]


def webp(kind: bytes, data: bytes) -> bytes:
    whole = encoded("WEBP", exif=b"x" * 8)
    body = whole[12:] + kind + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def scanned(count: int) -> bytes:
    """A progressive JPEG whose last pass is there many times."""
    whole = encoded("JPEG", progressive=True)
    last = whole.rfind(b"\xff\xda")
    return whole[:last] + whole[last:-2] * count + whole[-2:]


ZEROS = zlib.compress(bytes(2**22), 9)
BOMBS: dict[str, Callable[[], bytes]] = {
    "texts that unpack to megabytes": lambda: png(chunk(b"zTXt", b"k\0\0" + ZEROS)),
    "international texts": lambda: png(chunk(b"iTXt", b"k\0\1\0\0\0" + ZEROS)),
    "a profile": lambda: png(chunk(b"iCCP", b"k\0\0" + ZEROS)),
    "many texts": lambda: png(*[chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**18)))] * 8),
    "EXIF data of a PNG": lambda: png(chunk(b"eXIf", bytes(2**17))),
    "EXIF data in parts": lambda: jpeg(*[(0xE1, b"Exif\0\0" + bytes(60_000))] * 3),
    "segments": lambda: jpeg(*[(0xE2, bytes(65_000))] * 40),
    "comments of a GIF": lambda: gif(*[b"x" * 255] * 1000),
    "EXIF data of a WebP": lambda: webp(b"EXIF", bytes(2**17)),
    "scans": lambda: scanned(300),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_what_grows_is_refused(bomb: str) -> None:
    content = BOMBS[bomb]()
    for read in (decoding.size_of, decoding.decoded):
        with pytest.raises(InputError, match=r"more than .* bytes of|scans over"):
            read(content)


def test_common_metadata_is_taken() -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Title", "a" * 1000, zip=True)
    texts.add_itxt("Comment", "ü" * 1000, zip=True)
    exif = Image.Exif()
    exif[0x0112] = 1
    profile = bytes(range(256)) * 12
    for form, more in (
        ("PNG", {"pnginfo": texts, "exif": exif, "icc_profile": profile}),
        ("JPEG", {"exif": exif, "icc_profile": profile, "progressive": True, "quality": 100, "subsampling": 0}),
        ("WEBP", {"exif": exif, "icc_profile": profile, "lossless": True}),
        ("GIF", {"comment": b"hello"}),
        ("BMP", {}),
    ):
        assert decoding.decoded(encoded(form, **more)).shape == PIXELS.shape
        assert decoding.size_of(encoded(form, **more)) == PIXELS.shape[:2]


def test_files_that_end_early_are_for_their_reader() -> None:
    for form in ("PNG", "JPEG", "GIF", "WEBP", "BMP"):
        whole = encoded(form)
        for length in range(0, len(whole), 7):
            try:
                decoding.decoded(whole[:length])
            except InputError:
                continue
