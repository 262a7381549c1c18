"""The page of a difference: what is better, worse, the same or not to be told, and then every change."""

from __future__ import annotations

from typing import Any

from ortc.common.suggest import joined
from ortc.diff import wording
from ortc.diff.judgement import Judgement, judgements
from ortc.diff.report import BundleDiff, Section, SpecDiff, TargetDiff
from ortc.pages.document import render_page
from ortc.pages.drawing import INSTALL, can_draw
from ortc.pages.facts import Fact, Facts, Form
from ortc.pages.plots import pair_plot
from ortc.pages.sentences import Sentence

_WORDS = {"worse": "bad", "better": "good", "same": "soft", "cannot tell": "open"}
"""What may become of a quantity, and how a page shows it."""
_MOST_CHANGES = 400
_TIMES: tuple[tuple[str, str, Form], ...] = (
    ("Latency, p50", "p50_ms", "milliseconds"),
    ("Latency, p90", "p90_ms", "milliseconds"),
    ("Latency, p99", "p99_ms", "milliseconds"),
    ("Requests per second", "requests_per_second", "rate"),
)
_SINGLE: tuple[tuple[str, str, Form], ...] = (
    ("Start to first answer", "start_seconds", "seconds"),
    ("Most resident memory", "peak_rss_bytes", "bytes"),
)


def bundles_page(found: BundleDiff) -> bytes:
    """Render the page of two bundles, or of two directories of them: equal differences give equal bytes.

    Raises:
        StageError: the page is larger than a page may be.
    """
    document = found.model_dump(mode="json")
    facts = Facts(document)
    judged = [judgements(target) for target in found.targets]
    fields: dict[str, object] = {
        "title": f"{found.before} and {found.after}",
        "before": found.before,
        "after": found.after,
        "sentence": _bundles_sentence(found, judged),
        "added": found.added,
        "removed": found.removed,
        "targets": [_target(facts, index, target, judged[index]) for index, target in enumerate(found.targets)],
        "missing": INSTALL if not can_draw() else None,
    }
    return render_page("diff_bundles.html.j2", fields, document)


def specs_page(found: SpecDiff) -> bytes:
    """Render the page of two states of a spec.

    Raises:
        StageError: the page is larger than a page may be.
    """
    anew = [stage for stage in found.stages if stage.anew]
    fields: dict[str, object] = {
        "title": f"{found.before} and {found.after}",
        "before": found.before,
        "after": found.after,
        "sentence": Sentence(
            "good" if found.same else "open", "Same" if found.same else "Changed", f"{wording.spec_summary(found)}."
        ),
        "sections": _sections(found.sections),
        "stages": [(stage.target or "model", stage.stage, stage.subject, ", ".join(stage.because)) for stage in anew],
        "reused": len(found.stages) - len(anew),
        "unknown": found.stages_unknown,
    }
    return render_page("diff_specs.html.j2", fields, found.model_dump(mode="json"))


def _bundles_sentence(found: BundleDiff, judged: list[list[Judgement]]) -> Sentence:
    if found.same:
        return Sentence("good", "Same", f"{found.after} is {found.before}, byte for byte.")
    parts = []
    for target, entries in zip(found.targets, judged, strict=True):
        if not target.same:
            parts.append(f"{target.target} is {_said(entries)}")
    parts += [f"{name} was added" for name in found.added] + [f"{name} was removed" for name in found.removed]
    words = {entry.judged for entries in judged for entry in entries}
    if "worse" in words:
        return Sentence("bad", "Worse in part" if "better" in words else "Worse", f"{'; '.join(parts)}.")
    if "better" in words:
        return Sentence("good", "Better", f"{'; '.join(parts)}.")
    return Sentence("open", "Cannot tell" if "cannot tell" in words else "Changed", f"{'; '.join(parts)}.")


def _said(entries: list[Judgement]) -> str:
    """What became of which quantities: `worse: latency p50; same: accuracy and size`."""
    by_word: dict[str, list[str]] = {}
    for entry in entries:
        by_word.setdefault(entry.judged, []).append(entry.quantity)
    return ", ".join(f"{word} in {joined(names, 'and')}" for word in _WORDS if (names := by_word.get(word)))


def _target(facts: Facts, index: int, target: TargetDiff, judged: list[Judgement]) -> dict[str, Any]:
    at = f"/targets/{index}"
    return {
        "id": f"target-{index}",
        "name": target.target,
        "same": target.same,
        "judged": [(entry.quantity, _WORDS[entry.judged], entry.judged, entry.why) for entry in judged],
        "variant": wording.variant(target),
        "sizes": (
            ("Model", *(facts.known(f"{at}/sizes/model_{side}", "bytes") for side in ("before", "after"))),
            ("All files", *(facts.known(f"{at}/sizes/total_{side}", "bytes") for side in ("before", "after"))),
        ),
        "race": _race(facts, at, index, target),
        "hosts": [
            _host(facts, f"{at}/timings/{number}", f"d{index}-{number}", target, number)
            for number in range(len(target.timings))
        ],
        "outputs": _outputs(facts, at, target),
        "not_run": target.numerics.skipped or "; ".join(target.numerics.failed) or None,
        "golden": _golden(facts, at, target),
        "operators": [
            (entry.operator, *(facts.known(f"{at}/operators/{number}/{side}", "count") for side in ("before", "after")))
            for number, entry in enumerate(target.operators)
        ],
        "sections": _sections(target.sections),
    }


def _race(facts: Facts, at: str, index: int, target: TargetDiff) -> dict[str, Any] | None:
    race = target.race
    if race is None:
        return None
    plot = None
    if race.latencies is not None and can_draw():
        plot = pair_plot(f"d{index}", race.latencies)
    return {
        "said": wording.faster(race),
        "where": None if race.cpu is None else f"{race.cpu}, {race.shape}, {race.threads} threads",
        "plot": plot,
        "rows": [
            (name, *(facts.estimate(f"{at}/race/{side}_{key}", "milliseconds") for side in ("before", "after")))
            for name, key in (("p50", "p50_ms"), ("p99", "p99_ms"))
            if race.speedup is not None
        ],
        "speedup": facts.estimate(f"{at}/race/speedup", "times"),
    }


def _host(facts: Facts, at: str, name: str, target: TargetDiff, number: int) -> dict[str, Any]:
    """Both measurements on one kind of hardware."""
    entry = target.timings[number]
    rows = []
    if entry.before is not None or entry.after is not None:
        for label, key, form in _TIMES:
            pair = [
                None if side is None else facts.estimate(f"{at}/{where}/{key}", form)
                for where, side in (("before", entry.before), ("after", entry.after))
            ]
            if any(pair):
                rows.append((label, *pair))
    singles = [
        (
            label,
            *(
                None if side is None else facts.known(f"{at}/{where}/{key}", form)
                for where, side in (("before", entry.before), ("after", entry.after))
            ),
        )
        for label, key, form in _SINGLE
    ]
    plot = None
    if entry.latencies is not None and can_draw():
        plot = pair_plot(name, entry.latencies)
    return {
        "machine": wording.machine(entry),
        "comparable": entry.comparable,
        "rows": rows,
        "singles": singles,
        "plot": plot,
    }


def _outputs(facts: Facts, at: str, target: TargetDiff) -> list[dict[str, Any]]:
    """B against A on the golden inputs of both."""
    rows = []
    for number, case in enumerate(target.numerics.cases):
        if case.problem is not None:
            rows.append({"case": case.case, "golden_of": case.golden_of, "output": "", "problem": case.problem})
        for position, output in enumerate(case.outputs):
            place = f"{at}/numerics/cases/{number}/outputs/{position}"
            rows.append(
                {
                    "case": case.case,
                    "golden_of": case.golden_of,
                    **_distance(facts, place, output.output, output.problem),
                }
            )
    return rows[:_MOST_CHANGES]


def _golden(facts: Facts, at: str, target: TargetDiff) -> list[dict[str, Any]]:
    """Each bundle against PyTorch's outputs of its own."""
    return [
        {
            "case": case.case,
            "side": side,
            **_distance(facts, f"{at}/numerics/{key}/{number}/outputs/{position}", output.output, output.problem),
        }
        for side, key in (("A", "golden_before"), ("B", "golden_after"))
        for number, case in enumerate(getattr(target.numerics, key))
        for position, output in enumerate(case.outputs)
    ][:_MOST_CHANGES]


def _distance(facts: Facts, at: str, output: str, problem: str | None) -> dict[str, Any]:
    found: dict[str, Fact | str | None] = {
        "output": output,
        "problem": problem,
        "max_abs": facts.number(f"{at}/max_abs", "error"),
        "cosine": facts.number(f"{at}/cosine", "accuracy"),
    }
    return found


def _sections(sections: tuple[Section, ...]) -> list[dict[str, Any]]:
    return [
        {
            "name": section.name,
            "rows": [(change.dotted, *wording.values(change)) for change in section.changes[:_MOST_CHANGES]],
            "more": max(0, len(section.changes) - _MOST_CHANGES),
        }
        for section in sections
    ]
