"""Odd texts that show whether two tokenizers are the same: seeded, and the same on every machine."""

from __future__ import annotations

import random
from collections.abc import Sequence

ODD_TEXTS = 500
"""As many odd texts as every tokenizer is compared by."""
LONG = 100_000
"""Characters of the longest text."""
_SEED = 20
_FIXED = (
    "",
    " ",
    "\n",
    "\t \t",
    "a",
    "A" * 300,
    "\u0000",
    "\u0001\u0007\u001b[0m",
    "\ufeffbyte order mark",
    "\ufffd\ufffe",
    "e\u0301te\u0301 ete\u0300 \u0300",
    "\u0928\u092e\u0938\u094d\u0924\u0947",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645",
    "\u202eabc\u202c \u2066def\u2069",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f1e9\U0001f1ea",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002",
    "\uff21\uff22\uff23 \u2460 \ufb01 \u00bd \u2126",
    "\u0130stanbul \u0131 \u00df \u1e9e \u01c5",
    "don't won\u2019t it's I'm",
    "1,234.56 -7e-3 0x1F 2026-11-30T10:30Z",
    "https://example.org/a?b=c&d=%20#e user@example.org",
    "no\u00a0break thin\u2009space zero\u200bwidth soft\u00adhyphen",
    "[CLS] [SEP] [MASK] [PAD] [UNK]",
    "<s> </s> <pad> <unk> <mask> <|endoftext|>",
    "##ing \u2581word \u0120word",
    "  leading and trailing  ",
)
_RANGES = (
    (0x20, 0x7E),
    (0x00, 0x1F),
    (0x7F, 0xFF),
    (0x100, 0x24F),
    (0x300, 0x36F),
    (0x370, 0x52F),
    (0x590, 0x6FF),
    (0x900, 0xDFF),
    (0x2000, 0x206F),
    (0x2190, 0x27BF),
    (0x3040, 0x30FF),
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A3),
    (0xE000, 0xF8FF),
    (0x1F300, 0x1FAFF),
    (0x20000, 0x2A6DF),
    (0xE0000, 0xE007F),
)
"""Blocks of Unicode that texts are drawn from; none holds surrogates."""


def odd_texts(special: Sequence[str] = (), count: int = ODD_TEXTS) -> tuple[str, ...]:
    """Return odd texts: fixed ones, special tokens in all places, one of 100,000 characters, and drawn ones.

    Args:
        special: texts of the tokenizer's own special tokens.
        count: how many.
    """
    generator = random.Random(_SEED)  # noqa: S311  # the same texts everywhere, and no secret
    marked = [text for token in special for text in (token, f"before {token} after", f"{token}{token}x")]
    words = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "Zürich", "naïve", "CO2", "x86-64"]
    long = " ".join(generator.choice(words) for _ in range(LONG))[:LONG]
    found = [*_FIXED, *marked, long]
    while len(found) < count:
        found.append(_drawn(generator))
    return tuple(found[:count])


def _drawn(generator: random.Random) -> str:
    """A text of characters of one to three blocks, with spaces between."""
    blocks = generator.sample(_RANGES, generator.randint(1, 3))
    characters = []
    for _ in range(generator.choice((1, 3, 8, 20, 60, 200))):
        low, high = generator.choice(blocks)
        characters.append(chr(generator.randint(low, high)))
        if generator.random() < 0.15:
            characters.append(" ")
    return "".join(characters)


PLAIN_TEXTS = (
    "A man is playing a guitar on the stage.",
    "The invoice is due at the end of the month.",
    "Where is the nearest railway station?",
    "Berlin is the capital of Germany, and Paris that of France.",
    "I was not happy with the service: the room was cold and the breakfast late.",
    "El perro duerme debajo de la mesa.",
    "The committee agreed to publish its report before the summer, although two members voted against it.",
    "Great value!",
)
"""Plain sentences, for specs that name no texts as samples."""
