"""Lines of text as token ids, in the frame of special tokens that the model's own tokenizer puts around them."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ortc.common.errors import StageError
from ortc.common.plain_files import read_plain

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

_PADS = ("[PAD]", "<pad>", "<|endoftext|>")
_LEFT_BY_DEFAULT = frozenset({"XLNetTokenizer", "XLNetTokenizerFast"})
"""Classes of transformers that pad on the left unless a configuration says otherwise."""
_COMPARED = 64
"""Lines that a frame is derived from."""
MOST_SECONDS = 300
"""For all lines of a file of samples."""
Found = TypeVar("Found")


@dataclass(frozen=True)
class Frame:
    """Special tokens before and after a text, and the token types of the three parts."""

    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    prefix_types: tuple[int, ...] = ()
    text_type: int = 0
    suffix_types: tuple[int, ...] = ()

    def types(self, length: int) -> tuple[int, ...]:
        """Return the token types of `length` tokens; without room for the frame, the text's."""
        room = length - len(self.prefix) - len(self.suffix)
        if room < 0 or length == 1:
            return (self.text_type,) * length
        return (*self.prefix_types, *(self.text_type,) * room, *self.suffix_types)


@dataclass(frozen=True)
class Padding:
    """The id and the token type of what fills a row, and on which side."""

    token: int = 0
    type: int = 0
    left: bool = False


def read_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer.json.

    Raises:
        StageError: it is not one.
    """
    from tokenizers import Tokenizer

    return _library(lambda: Tokenizer.from_file(str(path)), f"`{path.name}` of the model is not a tokenizer")


def encode(tokenizer: Tokenizer, lines: Sequence[str], *, special: bool = True) -> list[Encoding]:
    """The encodings of lines of text, in a frame of special tokens or without.

    Raises:
        StageError: the tokenizer makes nothing of them, or takes too long.
    """
    return _library(
        lambda: tokenizer.encode_batch(list(lines), add_special_tokens=special),
        "the model's tokenizer.json makes nothing of the samples",
    )


def _library(work: Callable[[], Found], failed: str) -> Found:
    """What tokenizers answers, within a bound of time: patterns of a tokenizer may go back for ever.

    Raises:
        StageError: it fails, or takes too long.
    """
    found: queue.SimpleQueue[Found | BaseException] = queue.SimpleQueue()

    def run() -> None:
        try:
            found.put(work())
        except BaseException as error:  # noqa: BLE001  # raised again; what the library did not foresee is no Exception
            found.put(error)

    # Nothing ends a thread that the library holds; as a daemon it ends with the process.
    threading.Thread(target=run, daemon=True).start()
    try:
        answer = found.get(timeout=MOST_SECONDS)
    except queue.Empty:
        raise StageError(
            f"{failed}: no answer in {MOST_SECONDS} s",
            help="look at the patterns of its `pre_tokenizer` and `normalizer`",
        ) from None
    if isinstance(answer, BaseException):
        raise StageError(f"{failed}: {answer}") from answer
    return answer


def padding(tokenizer: Tokenizer, directory: Path) -> Padding:
    """Return how a tokenizer pads: as tokenizer.json says, then tokenizer_config.json, then the class of transformers.

    Args:
        tokenizer: as it was read; `no_padding()` forgets what it says.
        directory: the model's files.
    """
    declared: dict[str, Any] = tokenizer.padding or {}
    config = _config(directory / "tokenizer_config.json")
    side = declared.get("direction") or config.get("padding_side")
    if side is None:
        side = "left" if config.get("tokenizer_class") in _LEFT_BY_DEFAULT else "right"
    named = config.get("pad_token")
    named = named.get("content") if isinstance(named, dict) else named
    names = (declared.get("pad_token"), named, *_PADS)
    found = (tokenizer.token_to_id(name) for name in names if isinstance(name, str))
    token = next((identity for identity in found if identity is not None), declared.get("pad_id", 0))
    kind = declared.get("pad_type_id", config.get("pad_token_type_id", 0))
    return Padding(int(token), int(kind or 0), str(side).lower() == "left")


def _config(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_plain(path))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def frame(tokenizer: Tokenizer, lines: Sequence[str], name: str) -> Frame:
    """Return the special tokens that a tokenizer puts around real lines: those beside the line's own tokens.

    Raises:
        StageError: they are not the same around every line.
    """
    picked = lines[:: -(-len(lines) // _COMPARED)]
    bare = encode(tokenizer, picked, special=False)
    whole = encode(tokenizer, picked)
    pairs = [(one.ids, other) for one, other in zip(bare, whole, strict=True) if one.ids]
    if not pairs:
        return Frame()
    shared = set.intersection(*(_places(ids, encoding.ids) for ids, encoding in pairs))
    frames = {_frame(ids, encoding, start) for ids, encoding in pairs for start in [_start(shared, encoding)] if shared}
    if len(frames) != 1:
        raise StageError(
            f"the tokenizer puts other special tokens around some lines of `{name}` than around others",
            help="give the samples as .npz with an array an input, or by an entry point",
        )
    return frames.pop()


def _places(text: list[int], whole: list[int]) -> set[int]:
    """Where a text stands in the whole, which has it once, with special tokens on both sides."""
    return {start for start in range(len(whole) - len(text) + 1) if whole[start : start + len(text)] == text}


def _start(shared: set[int], encoding: Encoding) -> int:
    """Of several places, the one that the tokenizer itself marks: text of special tokens fits in several."""
    marked = next((index for index, special in enumerate(encoding.special_tokens_mask) if not special), 0)
    return marked if marked in shared else min(shared)


def _frame(text: list[int], encoding: Encoding, start: int) -> Frame:
    end = start + len(text)
    ids, types = encoding.ids, encoding.type_ids
    return Frame(
        prefix=tuple(ids[:start]),
        suffix=tuple(ids[end:]),
        prefix_types=tuple(types[:start]),
        text_type=types[start],
        suffix_types=tuple(types[end:]),
    )
