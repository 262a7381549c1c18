"""The page of a difference: its verdict, and texts and numbers that are those of its document."""

from __future__ import annotations

import json

import pytest
from tests.support.diff_values import bundles, interval, race, specs, target, timed
from tests.unit.pages.test_report_page import HOSTILE, Read, look_up

from ortc.cli.diff import _show_bundles, _show_specs
from ortc.diff.report import BundleDiff, SpecDiff
from ortc.pages.diff_page import bundles_page, specs_page
from ortc.pages.facts import FORMS

DIFFS: dict[str, BundleDiff | SpecDiff] = {
    "bundles": bundles(),
    "a race": bundles(targets=(target(race=race()),)),
    "not measured": bundles(targets=(target(timings=()),)),
    "the same": bundles(same=True, added=(), targets=()),
    "specs": specs(),
    "the same spec": specs(same=True, sections=(), stages=()),
    "hostile bundles": bundles(HOSTILE),
    "hostile specs": specs(HOSTILE),
}


def page_of(found: BundleDiff | SpecDiff) -> bytes:
    return bundles_page(found) if isinstance(found, BundleDiff) else specs_page(found)


@pytest.mark.parametrize("name", DIFFS)
def test_a_page_shows_the_numbers_of_its_document_and_runs_nothing(name: str) -> None:
    page = Read(page_of(DIFFS[name]))
    assert page.document == DIFFS[name].model_dump(mode="json")
    for attributes, text in page.numbers:
        value = look_up(page.document, str(attributes["data-at"]))
        assert json.loads(str(attributes["value"])) == value
        assert FORMS[attributes["data-form"]](value) == text  # type: ignore[index]
    scripts = [attributes for tag, attributes in page.tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "document"}]
    assert not [tag for tag, _ in page.tags if tag in ("img", "link", "iframe")]
    assert "\u202e" not in page.seen
    assert page_of(type(DIFFS[name]).model_validate_json(DIFFS[name].model_dump_json())) == page_of(DIFFS[name])


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            bundles(),
            "Worse in part cpu is worse in accuracy, better in p50 latency, p99 latency and size; web was added.",
        ),
        (
            bundles(added=(), targets=(target(timings=timed(interval(1, 0.9, 1.1), interval(1, 0.9, 1.1))),)),
            "Worse in part cpu is worse in accuracy, better in size, cannot tell in p50 latency and p99 latency.",
        ),
        (bundles(same=True, targets=()), "Same dist/reviews/1.1.0 is dist/reviews/1.0.0, byte for byte."),
        (specs(), "Changed 1 field changed, 1 of 2 stages would run anew."),
        (specs(same=True), "Same no difference."),
    ],
)
def test_the_verdict_comes_first(found: BundleDiff | SpecDiff, said: str) -> None:
    assert f" {said} A is " in " ".join(Read(page_of(found)).seen.split())


def test_secrets_are_masked_in_the_page_that_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    _show_specs(specs(" https://user:hunter2@host/x"), "--html")
    _show_bundles(bundles(" https://user:hunter2@host/x"), "--html")
    page = capsys.readouterr().out
    assert "hunter2" not in page
    assert page.count("https://************@host/x") >= 4
