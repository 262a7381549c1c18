"""How far two answers agree in what they name: entities, spans, labels, objects, words and transcripts.

The compiler judges a build by this module, too: it needs numpy alone.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shares = tuple[float, float, float]
"""What both answers name, what the expected one names, and what the found one names."""
F1, TOP1, ERRORS = "f1", "top1", "token_errors"
LABELS, TRANSCRIPT, DEPTH = "labels", "transcript", "depth"
MEASURES: Mapping[str, str] = {
    "entities": F1,
    "span": F1,
    "fill-mask": TOP1,
    LABELS: TOP1,
    "boxes": F1,
    "segments": F1,
    TRANSCRIPT: ERRORS,
}
"""Kinds of answers that agree or not, besides their scores, with the name of the limit."""
OBJECTS = ("boxes", "segments")
LEAST_OVERLAP = 0.75
"""Intersection over union from which two boxes or masks are of one object."""
FLAT = 1e-3
"""The share of the greatest depth that a picture of depths has to span for its mean not to count."""
TIE = 1e-6
"""Scores of labels that differ by less are equal."""


def shares(kind: str, expected: Any, found: Any) -> Shares:
    """What two answers of one kind name.

    Entities are the same where class and characters are. A span counts by the characters that it shares with the
    expected one, as 1 at most. Of a masked place the first candidate counts, and of classes the first label. Objects
    and segments are the same where the label is and most of their boxes or pixels are. Of transcripts the characters
    of the expected one count, less the edits between both: `f1` of them is 1 less the token error rate.
    """
    if kind == "entities":
        left, right = (Counter(map(_entity, answer)) for answer in (expected, found))
        return float((left & right).total()), float(left.total()), float(right.total())
    if kind == "span":
        return _overlap(expected, found), 1.0, 1.0
    if kind in OBJECTS:
        return float(len(_matched(expected, found))), float(len(expected)), float(len(found))
    if kind == TRANSCRIPT:
        return _spelled(str(expected["text"]), str(found["text"]))
    if kind == LABELS:
        return float(_same_first(expected, found)), 1.0, 1.0
    if kind == "fill-mask":
        left_, right_ = _firsts(expected), _firsts(found)
        same = sum(one == other for one, other in zip(left_, right_, strict=False))
        return float(same), float(len(left_)), float(len(right_))
    raise ValueError(f"answers of the kind {kind!r} are not compared by what they name")


def f1(found: Shares) -> float:
    """The harmonic mean of precision and recall; 1 where neither answer names anything."""
    both, expected, other = found
    return 1.0 if expected + other == 0 else 2 * both / (expected + other)


def common_scores(kind: str, expected: Any, found: Any) -> tuple[list[float], list[float]]:
    """Scores of what both answers name."""
    if kind == "span":
        return ([expected["score"]], [found["score"]]) if _overlap(expected, found) == 1 else ([], [])
    if kind in ("segments", TRANSCRIPT):
        return [], []
    if kind == "boxes":
        both = _matched(expected, found)
        return [float(one["score"]) for one, _ in both], [float(other["score"]) for _, other in both]
    left, right = (_scored(kind, answer) for answer in (expected, found))
    names = [name for name in left if name in right]
    return [left[name] for name in names], [right[name] for name in names]


def similar(kind: str, expected: Any, found: Any) -> float:
    """The cosine similarity of two answers of one kind; of named things, of the scores that both have, and 1.

    Of depths the mean of the expected ones is no part.
    """
    if kind == DEPTH:
        left_, right_ = _depths(expected), _depths(found)
        mean = left_.mean() if np.ptp(left_) > FLAT * np.abs(left_).max() else 0.0
        return compare(left_ - mean, right_ - mean)
    if kind not in MEASURES or kind == LABELS:
        return compare(expected, found)
    left, right = common_scores(kind, expected, found)
    return compare([*left, 1.0], [*right, 1.0])


def compare(expected: Any, found: Any) -> float:
    """The cosine similarity of two answers; -1 where they are of different shape, of other labels, or not finite.

    Scores of classes are compared in the order of their labels, a single score x as (x, 1).
    """
    if _labels(expected) != _labels(found):
        return -1.0
    left, right = _numbers(expected), _numbers(found)
    if left.shape != right.shape or not (np.isfinite(left).all() and np.isfinite(right).all()):
        return -1.0
    norms = float(np.linalg.norm(left) * np.linalg.norm(right))
    if norms == 0.0:
        return 1.0 if np.array_equal(left, right) else -1.0
    return min(1.0, float((left * right).sum()) / norms)


def _labels(answer: Any) -> list[str] | None:
    if isinstance(answer, list) and answer and isinstance(answer[0], dict):
        return sorted(str(entry["label"]) for entry in answer)
    return None


def _numbers(answer: Any) -> NDArray[Any]:
    if _labels(answer) is not None:
        scores = [entry["score"] for entry in sorted(answer, key=lambda entry: str(entry["label"]))]
        answer = scores[0] if len(scores) == 1 else scores
    return np.asarray([answer, 1.0] if isinstance(answer, float | int) else answer, dtype=np.float64)


def _entity(entry: Mapping[str, Any]) -> tuple[str, int, int]:
    return str(entry.get("entity_group", entry.get("entity"))), int(entry["start"]), int(entry["end"])


def _overlap(expected: Mapping[str, Any], found: Mapping[str, Any]) -> float:
    """F1 of the characters of two spans; 1 where both are empty."""
    lengths = [int(entry["end"]) - int(entry["start"]) for entry in (expected, found)]
    shared = min(expected["end"], found["end"]) - max(expected["start"], found["start"])
    return 1.0 if not any(lengths) else 2 * max(0, shared) / sum(lengths)


def _matched(expected: Any, found: Any) -> list[tuple[Any, Any]]:
    """Objects of two answers that are the same: of one label, with an overlap of at least LEAST_OVERLAP."""
    left, pairs = list(found), []
    for one in expected:
        alike = [(_overlap_of(one, other), place) for place, other in enumerate(left) if one["label"] == other["label"]]
        overlap, place = max(alike, default=(0.0, 0))
        if overlap >= LEAST_OVERLAP:
            pairs.append((one, left.pop(place)))
    return pairs


def _overlap_of(one: Any, other: Any) -> float:
    """The intersection of two boxes or masks over their union."""
    if "box" in one:
        return _iou(one["box"], other["box"])
    left, right = pixels(one["mask"]), pixels(other["mask"])
    if left.shape != right.shape:
        return 0.0
    return float((left & right).sum() / max(1, (left | right).sum()))


def pixels(mask: Mapping[str, Any]) -> NDArray[np.bool_]:
    """A mask of numbers of pixels outside and inside by turns as one boolean for each pixel."""
    return np.repeat(np.arange(len(mask["counts"])) % 2 == 1, mask["counts"])


def _depths(answer: Mapping[str, Any]) -> NDArray[np.float64]:
    """The depth of each pixel, [height, width]."""
    shares = np.frombuffer(base64.b64decode(answer["depth"]), np.uint8).reshape(answer["size"]) / 255
    return np.asarray(answer["minimum"] + shares * (answer["maximum"] - answer["minimum"]), np.float64)


def _iou(one: Mapping[str, int], other: Mapping[str, int]) -> float:
    """The intersection of two boxes over their union; pixels at the edges are of the box."""
    width = min(one["xmax"], other["xmax"]) - max(one["xmin"], other["xmin"]) + 1
    height = min(one["ymax"], other["ymax"]) - max(one["ymin"], other["ymin"]) + 1
    both = max(0, width) * max(0, height)
    sizes = [(box["xmax"] - box["xmin"] + 1) * (box["ymax"] - box["ymin"] + 1) for box in (one, other)]
    return both / (sum(sizes) - both)


def _spelled(expected: str, found: str) -> Shares:
    """The characters of a transcript, less the edits to another one; 1 where only the other one has any."""
    if not expected and not found:
        return 0.0, 0.0, 0.0
    count = max(1, len(expected))
    return float(count - edits(expected, found)), float(count), float(count)


def edits(expected: str, found: str) -> int:
    """Characters that are inserted, left out or exchanged, at least (Levenshtein)."""
    row = list(range(len(found) + 1))
    for index, sign in enumerate(expected, 1):
        corner, row[0] = row[0], index
        for place, other in enumerate(found, 1):
            corner, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, corner + (sign != other))
    return row[-1]


def _same_first(expected: Any, found: Any) -> bool:
    """Whether the expected first label is the found one, or has a score that is no further from it than TIE."""
    scores = {str(entry["label"]): float(entry["score"]) for entry in found}
    return scores.get(str(expected[0]["label"]), -1.0) >= float(found[0]["score"]) - TIE


def places(answer: Any) -> list[list[dict[str, Any]]]:
    return answer if answer and isinstance(answer[0], list) else [answer]


def _firsts(answer: Any) -> list[int]:
    return [int(place[0]["token"]) for place in places(answer)]


def _scored(kind: str, answer: Any) -> dict[Hashable, float]:
    """Scores by what they are of: an entity, or a word for a masked place."""
    if kind == "entities":
        return {_entity(entry): float(entry["score"]) for entry in answer}
    return {(at, entry["token"]): float(entry["score"]) for at, place in enumerate(places(answer)) for entry in place}
