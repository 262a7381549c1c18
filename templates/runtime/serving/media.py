"""Images and sounds of requests: base64 of JSON, tensors of bytes and files of forms, to the inputs of a model."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from loading.arrays import Arrays
from loading.errors import InputError

from serving.bounds import MOST_FILES
from serving.errors import RefusedError, bad
from serving.texts import TextModel

MOST_FILE_BYTES = 2**25
WINDOW = 4  # files that are held as the model takes them at once
DATA_URL = re.compile(r"data:(?:image|audio)/[a-z0-9.+-]{1,32};base64,")
WORDS = {"image": "an image", "audio": "a sound"}


class MediaModel(TextModel):
    """Makes inputs of images, or of sounds, for one model."""

    def __init__(self, processing: Any, model: Any, threads: int) -> None:
        self.takes = str(processing.takes)
        self.inputs = (self.takes,)
        super().__init__(processing, model, threads)

    @property
    def join(self) -> None:
        """Files become arrays of the same shape, which batches of rows hold."""

    def _is_quick(self, size: int) -> bool:
        """Files are always read by a thread."""
        return False

    def _axes(self) -> tuple[object, object]:
        return self._model.inputs[0].shape[0], None

    def _window(self) -> int:
        return max(1, min(WINDOW, self.processing.most_rows))

    def is_per_token(self, tensor: Any) -> bool:
        """Whether an output has as many rows for a sound as the sound has moments."""
        return self.processing.kind == "transcript" and len(tensor.shape) > 2 and not isinstance(tensor.shape[1], int)

    def of_row(self, outputs: Arrays, index: int, row: Any) -> Arrays:
        """What the outputs of a run have for one of its rows, copied: nothing of a run is padding."""
        del row
        return Arrays((name, np.array(array[index])) for name, array in outputs.items())

    def entries(self, given: Sequence[object]) -> Sequence[object]:
        """The bytes of files, of base64 or of {"image"} or {"audio"} of them; no string is the name of a file.

        Raises:
            RefusedError: 400, an entry is of another form.
        """
        return [_content(entry, index, self.takes) for index, entry in enumerate(given)]

    def check_size(self, entries: Sequence[object]) -> int:
        """The bytes of the largest file.

        Raises:
            RefusedError: 400, there is none, or an entry is no file; 413, there are too many, or one is too large.
        """
        if not entries:
            raise bad(f"there is no {self.takes}; send at least one")
        if len(entries) > MOST_FILES:
            raise RefusedError(413, "too-large", f"there are {len(entries)} files, at most {MOST_FILES} are taken")
        largest = 0
        for entry in entries:
            content = self._file(entry)
            if not isinstance(content, bytes | bytearray | memoryview):
                raise bad(f"{WORDS[self.takes]} is not the bytes of a file")
            largest = max(largest, len(content))
        if largest > MOST_FILE_BYTES:
            said = f"{WORDS[self.takes]} has {largest} bytes, at most {MOST_FILE_BYTES} are taken"
            raise RefusedError(413, "too-large", said)
        return largest

    async def memory(self, entries: Sequence[object], longest: int, *, shaped: bool) -> int:
        """The bytes that reading some files takes: one is decoded at a time, and all are kept as the model takes them.

        Raises:
            RefusedError: 400, one cannot be read, or states more than is taken.
        """
        del shaped  # every file is one row
        media = self.processing.media
        if media is None:
            raise AssertionError
        try:
            most = await self.in_turn(lambda: max(media.memory(self._file(entry)) for entry in entries))
        except InputError as error:
            raise RefusedError(400, "input", str(error)) from error
        return most + 2 * len(entries) * media.row_bytes

    def _file(self, entry: object) -> object:
        """The file of an entry that may have settings beside it."""
        return entry[self.takes] if isinstance(entry, Mapping) else entry

    def kept(self, rows: Sequence[Any]) -> int:
        """The bytes of rows and of the inputs that are made of them."""
        return 0 if self.processing.media is None else 2 * len(rows) * self.processing.media.row_bytes

    def tokens(self, rows: Sequence[Any]) -> int:
        """Neither images nor sounds have tokens."""
        return 0


def _content(entry: object, index: int, takes: str) -> object:
    if isinstance(entry, Mapping) and takes in entry:
        content = _content(entry[takes], index, takes)
        # Which settings there may be beside a file is for the kind of answers to say.
        return content if len(entry) == 1 else {**entry, takes: content}
    if isinstance(entry, bytes | bytearray | memoryview):
        return entry
    if not isinstance(entry, str):
        raise bad(f'inputs[{index}] is neither base64 of {WORDS[takes]} nor {{"{takes}"}} of it')
    return from_base64(entry, f"inputs[{index}]")


def from_base64(text: str, what: str) -> bytes:
    """The bytes of base64, or of a data URL of an image or a sound.

    Raises:
        RefusedError: 400, it is neither.
    """
    found = DATA_URL.match(text)
    try:
        return base64.b64decode(text[found.end() :] if found else text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise bad(f"{what} is not base64 of a file: {error}") from error
