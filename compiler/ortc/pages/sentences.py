"""The verdict on a target, and on a build, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ortc.common.suggest import joined
from ortc.common.units import count
from ortc.evaluation.gates import EXIT_UNMEASURED
from ortc.evaluation.report import BuildReport, TargetReport, Verdict

Tone = Literal["good", "bad", "open"]
"""How a page shows a verdict: kept, broken, or not known."""
_SHOWN_GATES = 3
_IN_WORDS = {
    "Failed": "promises are broken",
    "Not measured": "promises were not measured",
    "Unfit to serve": "the bundle is not fit to serve",
    "Provisional": "promises were not all measured, as the spec allows",
    "Kept": "every promise is kept",
    "Published": "every promise is kept",
}
"""What the word of a target's sentence means, worst first."""
TONES: dict[str, Tone] = {"pass": "good", "fail": "bad", "inconclusive": "open", "unmeasured": "open"}


@dataclass(frozen=True, slots=True)
class Sentence:
    """A verdict in one word and in one sentence."""

    tone: Tone
    word: str
    text: str


def build_sentence(report: BuildReport) -> Sentence:
    """The verdict on a whole build."""
    name = f"{report.name} {report.version}"
    if report.error is not None:
        first = report.error.strip().splitlines()[0] if report.error.strip() else "no reason is known"
        return Sentence("bad", "Not built", f"{name} was not built: {first}")
    if not report.targets:
        return Sentence("open", "No targets", f"{name} was built for no target.")
    sentences = [target_sentence(report, target) for target in report.targets]
    if len(sentences) == 1:
        return sentences[0]
    by_word: dict[str, list[str]] = {}
    for sentence, target in zip(sentences, report.targets, strict=True):
        by_word.setdefault(sentence.word, []).append(target.target)
    parts = [f"{_IN_WORDS[word]} for {joined(by_word[word], 'and')}" for word in _IN_WORDS if word in by_word]
    text = f"{name} is {'published' if report.exit_code == 0 else 'not published'}: {'; '.join(parts)}."
    if report.unfit_reason is not None:
        text = f"{text.removesuffix('.')} ({report.unfit_reason})."
    tones = {sentence.tone for sentence in sentences}
    tone: Tone = "bad" if "bad" in tones else "open" if "open" in tones else "good"
    word = next(word for word in _IN_WORDS if word in by_word)
    return Sentence(tone, word, text)


def target_sentence(report: BuildReport, target: TargetReport) -> Sentence:
    """The verdict on one target of a build."""
    name = f"{report.name} {report.version} for {target.target}"
    if target.status == "published":
        kept = f"{name} keeps {_all(len(target.verdicts))}{_with(target)}"
        if report.exit_code:
            return Sentence("good", "Kept", f"{kept}, and is not published because another target failed.")
        found = Sentence("good", "Published", f"{kept}.")
    elif target.status == "provisional":
        unknown = [verdict for verdict in target.verdicts if verdict.outcome != "pass"]
        text = f"{name} is provisional: {count(len(unknown), 'promise')} of {len(target.verdicts)} {_were(unknown)}"
        found = Sentence("open", "Provisional", f"{text} not measured ({_names(unknown)}).")
    elif target.exit_code == EXIT_UNMEASURED and not _of(target, "fail"):
        unknown = [*_of(target, "inconclusive"), *_of(target, "unmeasured")]
        busy = "this machine was too busy to measure" if _of(target, "inconclusive") else "nothing here could measure"
        found = Sentence("open", "Not measured", f"{name} is not published: {busy} {_names(unknown)}.")
    else:
        found = Sentence("bad", "Failed", f"{name} is not published: {_against(target)}.")
    if report.unfit_reason is None or found.tone == "bad":
        return found
    text = f"{found.text.removesuffix('.')}, but it is not fit to serve: {report.unfit_reason}."
    return Sentence("open", "Unfit to serve", text)


def _all(gates: int) -> str:
    return "its only promise" if gates == 1 else f"all {gates} promises" if gates else "every promise: it makes none"


def _with(target: TargetReport) -> str:
    return "" if target.variant is None else f" with {target.variant}"


def _were(verdicts: Sequence[Verdict]) -> str:
    return "was" if len(verdicts) == 1 else "were"


def _of(target: TargetReport, outcome: str) -> list[Verdict]:
    return [verdict for verdict in target.verdicts if verdict.outcome == outcome]


def _names(verdicts: Sequence[Verdict]) -> str:
    """Gates by name and platform, the first few of them."""
    names = list(dict.fromkeys(f"{verdict.gate} on {verdict.platform}" for verdict in verdicts))
    more = len(names) - _SHOWN_GATES
    return joined([*names[:_SHOWN_GATES], *([f"{more} more"] if more > 0 else [])], "and")


def _against(target: TargetReport) -> str:
    """What stands against a target: the gate that failed, with its numbers, or the error."""
    failed = _of(target, "fail")
    if target.error is not None:
        text = target.error.strip().splitlines()[0] if target.error.strip() else "no reason is known"
        gates = list(dict.fromkeys(verdict.gate for verdict in failed))
        return text if not gates else f"{text} (failed: {joined(gates[:_SHOWN_GATES], 'and')})"
    if not failed:
        return f"the build ended with exit code {target.exit_code}"
    first, more = failed[0], len(failed) - 1
    text = f"{first.gate} is {first.observed} and must be {first.limit}"
    return text if more == 0 else f"{text}, and {count(more, 'more gate')} failed"
