"""Golden answers: texts with their token ids, images or sounds with what becomes of them, and the answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from loading.arrays import plain
from loading.errors import FormatError, GoldenError, InputError

from .agreement import ERRORS, LABELS, MEASURES, f1, shares, similar
from .answers import Processing
from .forms import Arrays

SHOWN = 60
WORDS = {"text": "text", "image": "image", "audio": "sound"}
Cases = list[tuple[Any, Any, Any]]
"""Names of golden cases with their requests and answers."""


def check(processing: Processing, path: Path, limits: Mapping[str, Any], run: Callable[[Arrays], Arrays]) -> float:
    """Answer every golden text again.

    Args:
        processing: Of the bundle.
        path: The file of golden answers.
        limits: How far answers may be off: `cosine`; `f1`, `top1` or `token_errors` for kinds that name something;
            `pixels` for images and `features` for sounds.
        run: Runs the model on checked inputs.

    Returns:
        The least similarity of an answer to the recorded one.

    Raises:
        FormatError: the file is malformed.
        GoldenError: token ids, pixels, features or an answer differ; the message names the text or the file.
    """
    try:
        cases = json.loads(path.read_bytes())["cases"]
        known = _READERS[processing.takes](processing, cases, limits)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"{path} cannot be read as golden answers: {error!r}") from error
    # Texts without an answer show how texts are cut, and cost no run.
    answered = [(name, request, answer) for name, request, answer in known if answer is not None]
    answers = processing.answer([request for _, request, _ in answered], run)
    pairs = [(text, expected, plain(found)) for (text, _, expected), found in zip(answered, answers, strict=True)]
    what = WORDS[processing.takes]
    # Bundles of older compilers have no limit for the first label.
    if processing.kind in MEASURES and (processing.kind != LABELS or limits.get(MEASURES[LABELS]) is not None):
        _check_agreement(processing.kind, what, pairs, limits)
    worst = 1.0
    sizes = getattr(processing.form, "dimensions", ())
    for text, expected, found in pairs:
        similarity = similar(processing.kind, expected, found)
        for size in sizes:
            similarity = min(similarity, similar(processing.kind, expected[:size], found[:size]))
        if not similarity >= float(limits["cosine"]):
            raise GoldenError(
                f"the answer to the golden {what} {_shown(text)} has cosine {similarity:.6f} to the recorded one, "
                f"expected at least {float(limits['cosine']):g}"
            )
        worst = min(worst, similarity)
    return worst


def _texts(processing: Processing, cases: Sequence[Mapping[str, Any]], _: Mapping[str, Any]) -> Cases:
    """Golden texts with their answers, once each has become the token ids that are recorded.

    Raises:
        GoldenError: one has not, or there is none.
    """
    wanted = [(case["text"], [list(case["ids"]), list(case["types"])], case["answer"]) for case in cases]
    if not wanted:
        raise GoldenError("there is no golden answer, so that nothing shows that texts are read as they should be")
    for text, ids, _ in wanted:
        try:
            rows = processing.rows([text])
        except InputError as error:
            raise GoldenError(f"the golden text {_shown(text)} is refused: {error}") from error
        tokens = [token for row in rows for token in row.ids]
        if [tokens, [kind for row in rows for kind in row.types]] != ids:
            raise GoldenError(
                f"the golden text {_shown(text)} becomes other token ids than the model's own tokenizer gave: "
                f"{_difference(ids[0], tokens)}"
            )
    return [(text, text, answer) for text, _, answer in wanted]


def _files(processing: Processing, cases: Sequence[Mapping[str, Any]], limits: Mapping[str, Any]) -> Cases:
    """Golden images or sounds by name with their answers, once each has become what is recorded.

    Raises:
        GoldenError: one has not, or there is none.
    """
    from .golden_files import WORDS, case_of, check_file

    words = WORDS[processing.takes]
    wanted = [case_of(case, words) for case in cases]
    if not wanted or processing.media is None:
        raise GoldenError(
            f"there is no golden answer, so that nothing shows that {words.file}s are read as they should be"
        )
    for case in wanted:
        check_file(processing.media, case, words, float(limits[words.made]))
    return [(case.name, case.content, case.answer) for case in wanted]


_READERS: Mapping[str, Callable[[Processing, Sequence[Mapping[str, Any]], Mapping[str, Any]], Cases]] = {
    "text": _texts,
    "image": _files,
    "audio": _files,
}


def _check_agreement(kind: str, what: str, pairs: Sequence[tuple[Any, Any, Any]], limits: Mapping[str, Any]) -> None:
    """Check that golden answers name what the recorded ones name.

    Raises:
        GoldenError: they agree less than the limit says.
    """
    measure = MEASURES[kind]
    found = [(shares(kind, expected, answer), text) for text, expected, answer in pairs]
    both, expected, other = (sum(counts[place] for counts, _ in found) for place in range(3))
    total, limit = f1((both, expected, other)), float(limits[measure])
    if not (1 - total <= limit if measure == ERRORS else total >= limit):
        _, text = min(found, key=lambda pair: f1(pair[0]))
        value, bound = (1 - total, "most") if measure == ERRORS else (total, "least")
        raise GoldenError(
            f"the answers to the golden {what}s have {measure} {value:.4f} to the recorded ones, expected at {bound} "
            f"{limit:g}; {_shown(text)} is furthest off"
        )


def _shown(text: object) -> str:
    content = text if isinstance(text, str) else repr(text)
    return ascii(content if len(content) <= SHOWN else f"{content[:SHOWN]}…")


def _difference(expected: list[int], found: list[int]) -> str:
    place = next(
        (index for index, (left, right) in enumerate(zip(expected, found, strict=False)) if left != right),
        min(len(expected), len(found)),
    )
    return f"expected {expected[place : place + 4]} at token {place}, found {found[place : place + 4]}"
