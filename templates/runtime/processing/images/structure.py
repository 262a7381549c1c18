"""What a file of an image holds besides its pixels, looked at before Pillow reads it: readers of it know few bounds."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from loading.errors import InputError

Content = bytes | bytearray | memoryview
MOST_EXIF = 2**16
MOST_METADATA = 2**20
"""Bytes of profiles, texts and comments, unpacked."""
MOST_SCANS, MOST_SCANNED = 100, 2**28
"""Passes over a JPEG's pixels, and pixels of all passes."""
SIGNATURES = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8": "JPEG", b"GIF8": "GIF", b"RIFF": "WEBP"}


def check_structure(content: Content) -> None:
    """Refuse a file whose metadata is large, or would be once it is unpacked.

    Raises:
        InputError: it is. What is damaged otherwise is left to the reader.
    """
    view = memoryview(content).cast("B")
    form = next((name for start, name in SIGNATURES.items() if bytes(view[: len(start)]) == start), "")
    try:
        {"PNG": _png, "JPEG": _jpeg, "GIF": _gif, "WEBP": _webp}.get(form, _nothing)(view)
    except (struct.error, IndexError):
        return  # it ends too early, which its reader says


def scans(content: Content) -> int:
    """How often a JPEG goes over its pixels; 1 for other files."""
    return max(1, bytes(content).count(b"\xff\xda")) if bytes(content[:2]) == b"\xff\xd8" else 1


def check_scans(content: Content, pixels: int) -> None:
    """Refuse a JPEG that goes over its pixels too often.

    Raises:
        InputError: it does.
    """
    count = scans(content)
    if count > MOST_SCANS or (count > 1 and count * pixels > MOST_SCANNED):
        raise InputError(
            f"an image is a JPEG of {count} scans over {pixels} pixels. At most {MOST_SCANS} scans, and {MOST_SCANNED} "
            "pixels of all scans, are taken."
        )


def _refuse(what: str, most: int) -> None:
    raise InputError(f"an image has more than {most} bytes of {what}. Send it without.")


def _png(view: memoryview) -> None:
    total = 0
    for kind, data in _png_chunks(view):
        if kind == b"eXIf" and len(data) > MOST_EXIF:
            _refuse("EXIF data", MOST_EXIF)
        if kind[:1].islower():
            total += _unpacked(kind, data)
        if total > MOST_METADATA:
            _refuse("profiles and texts", MOST_METADATA)


def _png_chunks(view: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    at = 8
    while at + 12 <= len(view):
        (length,) = struct.unpack_from(">I", view, at)
        yield bytes(view[at + 4 : at + 8]), view[at + 8 : at + 8 + length]
        at += 12 + length


def _unpacked(kind: bytes, data: memoryview) -> int:
    """The bytes of a chunk once it is unpacked, as far as the bound; those of the frames of an animation are pixels."""
    if kind in (b"fdAT", b"fcTL", b"acTL"):
        return 0
    if kind not in (b"zTXt", b"iTXt", b"iCCP"):
        return len(data)
    text = bytes(data[: MOST_METADATA + 1])
    packed = text.partition(b"\0")[2]
    if kind == b"iTXt":
        if packed[:1] != b"\1":
            return len(data)
        packed = packed[2:].split(b"\0", 2)[-1]
    else:
        packed = packed[1:]
    try:
        return len(zlib.decompressobj().decompress(packed, MOST_METADATA + 1))
    except zlib.error:
        return len(data)


def _jpeg(view: memoryview) -> None:
    at, exif, others = 2, 0, 0
    while view[at] == 0xFF:
        marker = view[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0xDA:
            return
        if 0xD0 <= marker <= 0xD9 or marker == 0x01:
            at += 2
            continue
        (length,) = struct.unpack_from(">H", view, at + 2)
        is_exif = marker == 0xE1 and bytes(view[at + 4 : at + 8]) == b"Exif"
        exif, others = (exif + length, others) if is_exif else (exif, others + length)
        if exif > MOST_EXIF:
            _refuse("EXIF data", MOST_EXIF)
        if others > MOST_METADATA:
            _refuse("profiles and texts", MOST_METADATA)
        at += 2 + length


def _gif(view: memoryview) -> None:
    at, total = 13, 0
    if view[10] & 0x80:
        at += 3 << ((view[10] & 7) + 1)
    while view[at] == 0x21:
        at += 2
        while size := view[at]:
            at, total = at + 1 + size, total + size
            if total > MOST_EXIF:
                _refuse("comments", MOST_EXIF)
        at += 1


def _webp(view: memoryview) -> None:
    at = 12
    while at + 8 <= len(view):
        kind = bytes(view[at : at + 4])
        (length,) = struct.unpack_from("<I", view, at + 4)
        if kind == b"EXIF" and length > MOST_EXIF:
            _refuse("EXIF data", MOST_EXIF)
        if kind in (b"ICCP", b"XMP ") and length > MOST_METADATA:
            _refuse("profiles and texts", MOST_METADATA)
        at += 8 + length + (length & 1)


def _nothing(_: memoryview) -> None:
    pass
