"""Pairs of long texts, cut as tokenizers cuts them, without the parts that are cut off.

The library keeps what it cuts off: of two long texts every part of the one with every part of the other, which is
gigabytes for a hundred kilobytes of text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Encoding

FEW = 16
"""Combinations of parts that may be kept."""


def encode(tokenizer: Any, text: str, pair: str, limit: int, *, left: bool) -> Encoding:
    """The encoding of a pair of texts, special tokens included.

    Args:
        tokenizer: Cuts to `limit` tokens, the longer text first.
        text: The first text.
        pair: The second text.
        limit: The most tokens of the pair.
        left: Whether texts are cut at their beginnings.
    """
    if len(text) + len(pair) > limit:
        first, second = tokenizer.encode_batch([text, pair], add_special_tokens=False)
        if (1 + len(first.overflowing)) * (1 + len(second.overflowing)) > FEW:
            return _joined(tokenizer, (first, count(first)), second, limit, left=left, longest=True)
    (found,) = tokenizer.encode_batch([(text, pair)])
    return found  # type: ignore[no-any-return]


def encode_beside(
    tokenizer: Any, text: str, others: Sequence[str], limit: int, *, left: bool, longest: bool
) -> list[Encoding]:
    """The encodings of the pairs of one text with each of several others; a long text is encoded once.

    Args:
        tokenizer, text, limit, left: As those of `encode`.
        others: The second texts.
        longest: Whether the longer text is cut first; else the first one alone.
    """
    if len(text) <= limit:
        return list(tokenizer.encode_batch([(text, other) for other in others]))
    first, *seconds = tokenizer.encode_batch([text, *others], add_special_tokens=False)
    room = limit - int(tokenizer.num_special_tokens_to_add(True))
    counted = first, count(first)
    found = []
    for other, second in zip(others, seconds, strict=True):
        if longest or count(second) < room:
            found.append(_joined(tokenizer, counted, second, limit, left=left, longest=longest))
        else:
            found += tokenizer.encode_batch([(text, other)])  # which the library refuses, or knows how to cut
    return found


def _joined(
    tokenizer: Any, counted: tuple[Encoding, int], second: Encoding, limit: int, *, left: bool, longest: bool
) -> Encoding:
    """Two encodings without special tokens as a pair, the first with its tokens counted, cut to the limit."""
    room = limit - int(tokenizer.num_special_tokens_to_add(True))
    first, keep = counted
    keep_pair = count(second)
    if keep + keep_pair > room:
        keep, keep_pair = _kept(keep, keep_pair, room) if longest else (room - keep_pair, keep_pair)
    return tokenizer.post_process(  # type: ignore[no-any-return]
        _part(first, keep, left=left, kind=0), _part(second, keep_pair, left=left, kind=1), True
    )


def count(found: Encoding, stride: int = 0) -> int:
    """The tokens of a text, of which those beyond a limit were cut off into parts that overlap by `stride`."""
    return len(found.ids) + sum(len(part.ids) - stride for part in found.overflowing)


def _kept(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of each text are kept where the longer is cut first, as tokenizers has it."""
    short, long = sorted((first, second))
    long = short if short > room else max(short, room - short)
    if short + long > room:
        short = room // 2
        long = short + room % 2
    return (long, short) if first > second else (short, long)


def _part(found: Encoding, keep: int, *, left: bool, kind: int) -> Encoding:
    """So many tokens of a text from its beginning, or from its end, with nothing beside them."""
    from tokenizers import Encoding

    size = len(found.ids)
    place = slice(size - min(keep, size), None) if left else slice(0, keep)
    state = {
        "ids": found.ids[place],
        "type_ids": [kind] * len(found.ids[place]),
        "tokens": found.tokens[place],
        "words": found.word_ids[place],
        "offsets": found.offsets[place],
        "special_tokens_mask": found.special_tokens_mask[place],
        "attention_mask": found.attention_mask[place],
        "overflowing": [],
        "sequence_ranges": {},
    }
    part = Encoding()
    part.__setstate__(json.dumps(state).encode())
    return part
