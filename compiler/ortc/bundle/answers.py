"""What a bundle has around its tensors: its processing, and golden answers."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ortc.bundle.manifest import AnswerTolerance, GoldenAnswers, ProcessingInfo
from ortc.evaluation.accuracy_gates import agreement_limit, answer_limit
from ortc.evaluation.agreement import SPELLING, gate_of_kind
from ortc.evaluation.answers import TextAnswer
from ortc.plan.plan import AccuracyPlan, TargetPlan
from ortc.plan.processing import DIRECTORY, DOCUMENT, MEDIA, NEEDS, TOKENIZER, UNITS, Processing
from ortc.plan.texts import page_answers

GOLDEN = "golden/answers.json"


@dataclass(frozen=True)
class Answers:
    """What bundles of a build have around their tensors, and what they are judged by.

    `tokenizer` is the file that ships, of bundles that take texts; `golden` are texts with token ids, or images and
    sounds with what they become, and some with an answer; `judged` are samples with the answers of PyTorch; `odd` are
    requests whose token ids or features are compared; `key` is everything that decides them, for cache keys.
    `features` is a file with pixels of the odd images or features of the odd sounds, by their places.
    """

    processing: Processing
    tokenizer: Path | None
    golden: tuple[dict[str, Any], ...]
    judged: tuple[TextAnswer, ...]
    odd: tuple[dict[str, Any], ...]
    key: str
    features: Path | None = None

    @property
    def needs(self) -> str:
        """The end of the name of a set of pins that has what the processing needs."""
        return NEEDS[self.processing.takes]

    def of_target(self, target: TargetPlan) -> Answers | None:
        """What the bundles of a target have of this; None for loaders in JavaScript that give no such answers."""
        gives = not target.is_javascript or page_answers(self.processing.answer.kind, self.processing.takes)
        return self if gives else None

    @property
    def what(self) -> str:
        """The requests in a word."""
        return UNITS[self.processing.takes]


def write_answers(directory: Path, answers: Answers, precision: str, accuracy: AccuracyPlan) -> ProcessingInfo:
    """Write processing.json, the tokenizer and the golden answers of a bundle.

    Args:
        directory: of the bundle; `golden` is there.
        answers: what texts become, and PyTorch's answers.
        precision: of the variant.
        accuracy: the promises.
    """
    (directory / DIRECTORY).mkdir()
    document = json.dumps(answers.processing.model_dump(mode="json", exclude_none=True), indent=2, ensure_ascii=False)
    (directory / DOCUMENT).write_text(f"{document}\n", "utf-8")
    if answers.tokenizer is not None:
        shutil.copyfile(answers.tokenizer, directory / TOKENIZER)
    golden = json.dumps({"format_version": 1, "cases": answers.golden}, indent=None, ensure_ascii=True)
    (directory / GOLDEN).write_text(f"{golden}\n", "utf-8")
    return ProcessingInfo(
        document=DOCUMENT,
        takes=answers.processing.takes,
        tokenizer=None if answers.tokenizer is None else TOKENIZER,
        kind=answers.processing.answer.kind,
        golden=GoldenAnswers(file=GOLDEN, tolerance=_tolerance(answers, precision, accuracy)),
    )


def _tolerance(answers: Answers, precision: str, accuracy: AccuracyPlan) -> AnswerTolerance:
    takes = answers.processing.takes
    most = {MEDIA[takes].made: MEDIA[takes].most} if takes in MEDIA else {}
    found = AnswerTolerance(cosine=answer_limit(precision, accuracy), **most)
    if (gate := gate_of_kind(answers.processing.answer.kind)) is None:
        return found
    least = agreement_limit(gate, precision, accuracy)
    # The least agreement of transcripts is 1 less their errors.
    limit = round(1 - least, 12) if gate == SPELLING else least
    return found.model_copy(update={gate.removeprefix("answer_"): limit})
