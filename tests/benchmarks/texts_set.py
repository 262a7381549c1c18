"""The texts of the race of embeddings: sentences to check answers by, and a seeded mix of lengths to race with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

SENTENCES = Path(__file__).parents[2] / "examples" / "bert" / "sentences.txt"
SHORTEST, LONGEST = 4, 250
"""Tokens of a text, special ones included."""
BLOCK = 64
BLOCKS = 16


@dataclass(frozen=True)
class Texts:
    """Texts, and how many tokens each has."""

    texts: tuple[str, ...]
    tokens: tuple[int, ...]


def halves() -> tuple[list[str], list[str]]:
    """The sentences that answers are compared on, and those that INT8 is calibrated on, as `ortc build` parts them."""
    lines = SENTENCES.read_text("utf-8").splitlines()
    return lines[0::2], lines[1::2]


def mixed(tokenizer: Path) -> Texts:
    """A mix of lengths, log-uniform from `SHORTEST` to `LONGEST` tokens: many short texts, some long ones.

    Each block of `BLOCK` texts has the same lengths in an order of its own, so that every part of a race has the same
    mix. A text is words of the sentences in a random order.
    """
    counter = Tokenizer.from_file(str(tokenizer))
    counter.no_truncation()
    counter.no_padding()
    random = np.random.default_rng(0)
    words = [word for half in halves() for line in half for word in line.split()]
    lengths = np.exp(np.linspace(np.log(SHORTEST), np.log(LONGEST), BLOCK)).round().astype(int)
    texts, tokens = [], []
    for _ in range(BLOCKS):
        for length in random.permutation(lengths).tolist():
            text, count = _text(counter, words, length, random)
            texts.append(text)
            tokens.append(count)
    return Texts(tuple(texts), tuple(tokens))


def _text(counter: Tokenizer, words: Sequence[str], length: int, random: np.random.Generator) -> tuple[str, int]:
    """A text of at most so many tokens, and as near to it as whole words come."""
    chosen: list[str] = []
    count = 2
    for index in random.integers(len(words), size=4 * length).tolist():
        more = len(counter.encode(words[index], add_special_tokens=False).ids)
        if count + more > length:
            continue
        chosen.append(words[index])
        count += more
        if count == length:
            break
    text = " ".join(chosen)
    return text, len(counter.encode(text).ids)
