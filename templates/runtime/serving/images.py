"""Images of requests: base64 of JSON, tensors of bytes and files of forms, to the inputs of a model of images."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any

from loading.errors import InputError

from serving.bounds import MOST_IMAGES
from serving.errors import RefusedError, bad
from serving.text_tensors import IMAGE
from serving.texts import TextModel

MOST_IMAGE_BYTES = 2**25
WINDOW = 4  # images that are held as the model takes them at once
DATA_URL = re.compile(r"data:image/[a-z0-9.+-]{1,32};base64,")


class ImageModel(TextModel):
    """Makes inputs of images for one model."""

    inputs = (IMAGE,)
    takes = IMAGE

    def _axes(self) -> tuple[object, object]:
        batch = next(tensor.shape[0] for tensor in self._model.inputs if len(tensor.shape) == 4)
        return batch, None

    def _window(self) -> int:
        return max(1, min(WINDOW, self.processing.most_rows))

    def is_per_token(self, tensor: Any) -> bool:
        """Images have no tokens."""
        return False

    def entries(self, given: Sequence[object]) -> Sequence[object]:
        """The bytes of files, of base64 or of {"image"} of base64; no string is the name of a file.

        Raises:
            RefusedError: 400, an entry is of another form.
        """
        return [_content(entry, index) for index, entry in enumerate(given)]

    def check_size(self, entries: Sequence[object]) -> int:
        """The bytes of the largest image.

        Raises:
            RefusedError: 400, there is none, or an entry is no image; 413, there are too many, or one is too large.
        """
        if not entries:
            raise bad("there is no image; send at least one")
        if len(entries) > MOST_IMAGES:
            raise RefusedError(413, "too-large", f"there are {len(entries)} images, at most {MOST_IMAGES} are taken")
        largest = 0
        for entry in entries:
            if not isinstance(entry, bytes | bytearray | memoryview):
                raise bad("an image is not the bytes of a file")
            largest = max(largest, len(entry))
        if largest > MOST_IMAGE_BYTES:
            raise RefusedError(413, "too-large", f"an image has {largest} bytes, at most {MOST_IMAGE_BYTES} are taken")
        return largest

    async def memory(self, entries: Sequence[object], longest: int, *, shaped: bool) -> int:
        """The bytes that reading some images takes: one is decoded at a time, and all are kept as the model takes them.

        Raises:
            RefusedError: 400, one cannot be read, or states too many pixels.
        """
        del shaped  # every image is one row
        images = self.processing.images
        if images is None:
            raise AssertionError
        try:
            most = await self.in_turn(lambda: max(images.memory(entry) for entry in entries))
        except InputError as error:
            raise RefusedError(400, "input", str(error)) from error
        return most + 2 * len(entries) * images.row_bytes

    def kept(self, rows: Sequence[Any]) -> int:
        """The bytes of the pixels, of rows and of the inputs that are made of them."""
        return 0 if self.processing.images is None else 2 * len(rows) * self.processing.images.row_bytes

    def tokens(self, rows: Sequence[Any]) -> int:
        """Images have no tokens."""
        return 0


def _content(entry: object, index: int) -> object:
    if isinstance(entry, Mapping) and set(entry) == {IMAGE}:
        entry = entry[IMAGE]
    if isinstance(entry, bytes | bytearray | memoryview):
        return entry
    if not isinstance(entry, str):
        raise bad(f'inputs[{index}] is neither base64 of an image nor {{"image"}} of it')
    return from_base64(entry, f"inputs[{index}]")


def from_base64(text: str, what: str) -> bytes:
    """The bytes of base64, or of a data URL of an image.

    Raises:
        RefusedError: 400, it is neither.
    """
    found = DATA_URL.match(text)
    try:
        return base64.b64decode(text[found.end() :] if found else text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise bad(f"{what} is not base64 of an image: {error}") from error
