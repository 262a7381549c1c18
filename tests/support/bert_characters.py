"""Characters as `BertNormalizer` and `BertPreTokenizer` of tokenizers tell them apart, asked of the library itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

BLOCK = 4096
SURROGATES = range(0xD800, 0xE000)
HEADER = """// Characters as tokenizers tells them apart, whose edition of Unicode is older than that of browsers.
// Made by `pytest tests/unit/runtime/test_web_characters.py --update-golden`.

/** Whether a code point is in a set that is written as the gaps and lengths of its ranges, in base 36. */
function within(written) {
  const starts = [];
  const ends = [];
  let last = 0;
  const numbers = written.split(" ").map((number) => parseInt(number, 36));
  for (let index = 0; index < numbers.length; index += 2) {
    starts.push(last + numbers[index]);
    ends.push((last += numbers[index] + numbers[index + 1]));
  }
  return (point) => {
    let [low, high] = [0, starts.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (starts[middle] <= point) low = middle + 1;
      else high = middle;
    }
    return low > 0 && point < ends[low - 1];
  };
}
"""
ABOUT = {
    "isControl": "What `clean_text` drops.",
    "isBlank": "What `clean_text` makes a space.",
    "isIdeograph": "What has spaces around it after `handle_chinese_chars`.",
    "isMark": "What `strip_accents` drops.",
    "isComposed": "What `strip_accents` takes apart.",
    "isCased": "What `lowercase` changes.",
    "isSpace": "Where words end.",
    "isPunctuation": "What is a word of its own.",
}


def module(blocks: Iterable[int]) -> str:
    """The JavaScript module with every set, of so many blocks."""
    parts = [HEADER]
    for name, found in sets(blocks).items():
        parts.append(f'\n/** {ABOUT[name]} */\nexport const {name} = within("{written(found)}");\n')
    return "".join(parts)


def points(block: int) -> list[int]:
    """Code points of a block, but those of surrogates."""
    return [point for point in range(block * BLOCK, (block + 1) * BLOCK) if point not in SURROGATES]


def sets(blocks: Iterable[int]) -> dict[str, list[int]]:
    """Code points of every set, rising."""
    asked = [found for block in blocks if (found := points(block))]
    clean, apart = _normalizer(clean_text=True), _normalizer(handle_chinese_chars=True)
    stripped, lower = _normalizer(strip_accents=True), _normalizer(lowercase=True)
    cleaned = [(point, text) for point, text in _each(clean, asked)]
    accents = [(point, text) for point, text in _each(stripped, asked)]
    words = _words(asked)
    return {
        "isControl": [point for point, text in cleaned if text == ""],
        "isBlank": [point for point, text in cleaned if text == " "],
        "isIdeograph": [point for point, text in _each(apart, asked) if len(text) == 3],
        "isMark": [point for point, text in accents if text == ""],
        "isComposed": [point for point, text in accents if text not in ("", chr(point))],
        "isCased": [point for point, text in _each(lower, asked) if text != chr(point)],
        "isSpace": [point for point, count in words if count == 2],
        "isPunctuation": [point for point, count in words if count == 3],
    }


def written(rising: list[int]) -> str:
    """Ranges as the gap before each and its length, in base 36."""
    ranges: list[tuple[int, int]] = []
    for point in rising:
        if ranges and ranges[-1][1] == point:
            ranges[-1] = ranges[-1][0], point + 1
        else:
            ranges.append((point, point + 1))
    last, numbers = 0, []
    for start, end in ranges:
        numbers += [_base36(start - last), _base36(end - start)]
        last = end
    return " ".join(numbers)


def _normalizer(**wanted: bool) -> Callable[[str], str]:
    off = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    return BertNormalizer(**(off | wanted)).normalize_str  # type: ignore[no-any-return]


def _each(normalize: Callable[[str], str], blocks: Sequence[list[int]]) -> Iterator[tuple[int, str]]:
    """Every character but `|` with what becomes of it; many are asked for at once, each between two of `|`."""
    for block in blocks:
        # A letter before each: marks are put in order where several follow one another.
        asked = [point for point in block if chr(point) != "|"]
        found = normalize("".join(f"|a{chr(point)}" for point in asked)).split("|")[1:]
        for point, text in zip(asked, found, strict=True):
            yield point, text[1:]


def _words(blocks: Sequence[list[int]]) -> list[tuple[int, int]]:
    """How many words a character makes of two letters that it stands between."""
    split, found = BertPreTokenizer().pre_tokenize_str, []
    for block in blocks:
        places = [0] * len(block)
        # Words begin and end at characters; each letter stands at a multiple of 3 or one before.
        for _, (start, end) in split("".join(f"a{chr(point)}b" for point in block)):
            for place in range(start // 3, -(-end // 3)):
                places[place] += 1
        found += list(zip(block, places, strict=True))
    return found


def _base36(number: int) -> str:
    digits = ""
    while True:
        number, left = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[left] + digits
        if not number:
            return digits
