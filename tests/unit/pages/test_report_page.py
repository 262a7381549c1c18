"""The page of a build: its numbers are those of its document, and texts of others do nothing in it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tests.support import report_values
from tests.support.report_values import (
    BROKEN,
    COSINE,
    LATENCY,
    NUMBERS,
    UNMEASURED,
    detailed,
    failed,
    not_built,
    report,
    target,
)

from ortc.__main__ import run
from ortc.common.errors import StageError
from ortc.evaluation.report import BuildReport, Decision
from ortc.pages import drawing
from ortc.pages.cases import heat
from ortc.pages.document import MOST_BYTES
from ortc.pages.facts import FORMS
from ortc.pages.margins import margin_text, used_share
from ortc.pages.report_page import report_page

VOID = {"meta", "br", "rect", "path", "use", "img", "link"}


class Read(HTMLParser):
    """What a page has: tags with attributes, its document, the texts of `data`, and the text that a reader sees."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.numbers: list[tuple[dict[str, str | None], str]] = []
        self.document: Any = None
        self.seen = ""
        self._inside: list[str] = []
        self.feed(page.decode())
        assert not self._inside, "an element is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "data":
            self.numbers.append((dict(attrs), ""))
        if tag not in VOID:
            self._inside.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._inside.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._inside[-1:] == ["data"]:
            attributes, text = self.numbers[-1]
            self.numbers[-1] = attributes, text + data
        if self._inside[-1:] == ["script"]:
            self.document = json.loads(data)
        elif self._inside[-1:] != ["style"]:
            self.seen += f"{data} "


def look_up(document: Any, at: str) -> Any:
    for part in at.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        document = document[int(name)] if isinstance(document, list) else document[name]
    return document


ENDS = {
    "published": report(),
    "two targets": report(target(), target(target="edge", status="provisional", verdicts=(COSINE, UNMEASURED))),
    "failed": failed(),
    "not built": not_built(),
    "detailed": detailed(),
    "unfit": report(unfit_reason="the weights are random"),
}


@pytest.mark.parametrize("end", ENDS)
def test_numbers_are_those_of_the_document(end: str) -> None:
    page = Read(report_page(ENDS[end]))
    assert page.document == ENDS[end].model_dump(mode="json")
    assert page.numbers
    for attributes, text in page.numbers:
        value = look_up(page.document, str(attributes["data-at"]))
        assert json.loads(str(attributes["value"])) == value
        assert FORMS[attributes["data-form"]](value) == text  # type: ignore[index]


def test_numbers_of_the_first_screen_are_there() -> None:
    page = Read(report_page(report()))
    shown = {attributes["data-at"] for attributes, _ in page.numbers}
    numbers = "/targets/0/numbers"
    bounds = {
        f"{numbers}/{name}/{part}" for name in ("p50_ms", "p99_ms", "speedup") for part in ("value", "low", "high")
    }
    assert shown >= bounds | {"/targets/0/model_bytes"}
    assert "3.42 ms" in page.seen
    assert "4.49x" in page.seen


@pytest.mark.parametrize("end", ENDS)
def test_equal_reports_have_equal_pages(end: str) -> None:
    again = BuildReport.model_validate_json(ENDS[end].model_dump_json())
    assert report_page(again) == report_page(ENDS[end])


@pytest.mark.parametrize("end", ENDS)
def test_nothing_of_a_page_asks_for_anything(end: str) -> None:
    page = Read(report_page(ENDS[end]))
    scripts = [attributes for tag, attributes in page.tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "document"}]
    for tag, attributes in page.tags:
        assert tag not in ("img", "link", "iframe", "object", "form", "base")
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "srcset", "style")]
        assert (attributes.get("href") or "#").startswith("#")
    (policy,) = [attributes["content"] for _, attributes in page.tags if "http-equiv" in attributes]
    assert str(policy).startswith("default-src 'none'; style-src 'sha256-")


@pytest.mark.parametrize(
    ("found", "word", "text"),
    [
        (report(), "Published", "reviews 1.0.0 for cpu keeps all 2 promises with int8."),
        (failed(), "Failed", "no variant passes every gate (failed: cosine)"),
        (not_built(), "Not built", "reviews 1.0.0 was not built: the graph of the ONNX file is not valid"),
        (
            report(target(status="failed", verdicts=(LATENCY, BROKEN), exit_code=5)),
            "Failed",
            "cosine is 0.97120 and must be >= 0.995.",
        ),
        (
            report(target(status="provisional", verdicts=(COSINE, UNMEASURED))),
            "Provisional",
            "1 promise of 2 was not measured (latency p99 on linux/arm64).",
        ),
        (
            report(
                target(status="failed", verdicts=(LATENCY.model_copy(update={"outcome": "inconclusive"}),), exit_code=7)
            ),
            "Not measured",
            "this machine was too busy to measure latency p99 on linux/amd64.",
        ),
        (report(unfit_reason="random weights"), "Unfit to serve", "but it is not fit to serve: random weights."),
        (
            report(target(target="edge"), target(status="failed", verdicts=(BROKEN,), exit_code=5)),
            "Failed",
            "reviews 1.0.0 is not published: promises are broken for cpu; every promise is kept for edge.",
        ),
    ],
)
def test_the_verdict_comes_first_in_one_sentence(found: BuildReport, word: str, text: str) -> None:
    seen = " ".join(Read(report_page(found)).seen.split())
    heading = "reviews 1.0.0: build report "
    verdict = seen[seen.rindex(heading) + len(heading) :]
    assert verdict.startswith(f"{word} ")
    assert text in verdict[:400]


def test_a_failed_page_has_all_of_the_error_and_calls_nothing_measured() -> None:
    seen = " ".join(Read(report_page(not_built())).seen.split())
    assert "help: export it again" in seen
    seen = " ".join(Read(report_page(failed())).seen.split())
    assert "p99 latency not measured" in seen
    assert "No time was measured" in seen


HOSTILE = "</script></style><script>alert(1)</script><img src=//e.vil onerror=alert(1)>\u202e\x07'\"&{{ 7 * 7 }}"


def hostile() -> BuildReport:
    decision = Decision(variant=HOSTILE, graph_level=HOSTILE, outcome="rejected", reason=HOSTILE)
    verdict = COSINE.model_copy(update={"gate": HOSTILE, "platform": HOSTILE, "where": HOSTILE, "said": HOSTILE})
    bad = target(
        target=HOSTILE,
        variant=HOSTILE,
        decisions=(decision,),
        verdicts=(verdict,),
        operators={HOSTILE: 3},
        bundle=HOSTILE,
    )
    values = {"name": HOSTILE, "version": HOSTILE, "exporter_reason": HOSTILE, "notes": (HOSTILE,), "error": HOSTILE}
    return report(bad, **values)


@pytest.mark.parametrize("found", [hostile(), detailed(HOSTILE)])
def test_hostile_text_is_inert_and_visible(found: BuildReport) -> None:
    page = Read(report_page(found))
    assert page.document == found.model_dump(mode="json")
    assert [attributes for tag, attributes in page.tags if tag == "script"] == [
        {"type": "application/json", "id": "document"}
    ]
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert "\u202e" not in page.seen
    assert "\\u202e\\u0007" in page.seen
    assert "{{ 7 * 7 }}" in page.seen


def test_details_are_shown_with_both_answers_and_the_error_of_each_case() -> None:
    seen = " ".join(Read(report_page(detailed())).seen.split())
    assert "Not bad at all." in seen
    assert '"label": "positive"' in seen
    assert '"label": "negative"' in seen
    assert "Shape matrix: batch down, sequence across; output last_hidden_state" in seen
    assert "batch \\ sequence 16 128 1 0.989 1.9e-06 0.989 1.9e-06 8 0.982" in seen
    assert "samples 1-8 NaN" in seen
    assert "75 weights: int8 21.0 MB , float 2.1 MB ." in seen
    assert "MatMul CPUExecutionProvider 36 2.9 ms , 96.0%" in seen
    assert "Other operators took 28 µs" in seen
    # What is close to 1 is not called 1.
    assert "1 - 6e-08" in seen


@pytest.mark.parametrize(("error", "colour"), [(None, None), (0.0, 0), (1e-8, 0), (1e-4, 3), (0.2, 6), (1e9, 6)])
def test_the_colour_of_a_case_is_that_of_its_error(error: float | None, colour: int | None) -> None:
    assert heat(error) == colour


def test_a_page_without_plots_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "find_spec", lambda _: None)
    page = Read(report_page(detailed()))
    assert "This page has no plots: install the extra `plots`" in page.seen
    assert not [tag for tag, _ in page.tags if tag == "figure"]


def test_noisy_times_are_marked() -> None:
    noisy = NUMBERS.model_copy(update={"noise": ("the control workload got 50% of its 2 cores",)})
    seen = " ".join(Read(report_page(report(target(numbers=noisy)))).seen.split())
    assert "3.42 ms noisy" in seen
    assert "the control workload got 50% of its 2 cores" in seen
    assert "noisy" not in Read(report_page(report())).seen


@pytest.mark.parametrize(
    ("values", "share", "text"),
    [
        ({}, 0.0053512 / 0.006, "11% left"),
        ({"interval": (0.001, None)}, 0.0041087 / 0.006, "32% left"),
        ({"value": 0.009, "interval": None}, 1.5, "50% beyond"),
        ({"value": 0.018, "interval": None}, 3, "3.0 times the limit"),
        (
            {"gate": "cosine", "unit": "", "comparison": ">=", "value": 0.9991, "bound": 0.995, "interval": None},
            0.18,
            "82% left",
        ),
        (
            {"gate": "speed-up", "unit": "times", "comparison": ">=", "value": 4.0, "bound": 2.0, "interval": None},
            0.5,
            "50% left",
        ),
        (
            {"gate": "metric", "unit": "", "comparison": ">=", "value": 0.99, "bound": 0.98, "interval": None},
            None,
            "+0.01",
        ),
        ({"value": None, "interval": None}, None, ""),
        ({"value": 0.0, "bound": 0.0, "interval": None}, None, "+0"),
    ],
)
def test_margins_are_shares_of_the_allowance(values: dict[str, Any], share: float | None, text: str) -> None:
    verdict = LATENCY.model_copy(update=values)
    assert used_share(verdict) == (None if share is None else pytest.approx(share))
    assert margin_text(verdict) == text


def test_a_page_that_would_be_too_large_is_refused() -> None:
    with pytest.raises(StageError, match=r"the page would have .* more than 1.0 MB"):
        report_page(report(notes=("x" * MOST_BYTES,)))


def test_the_command_makes_the_page_of_a_report_and_of_a_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "reviews" / "1.0.0.report.json"
    (tmp_path / "reviews" / "1.0.0" / "cpu").mkdir(parents=True)
    place.write_text(json.dumps(report().model_dump(mode="json"), indent=1), "utf-8")
    assert run(["report", str(place)]) == 0
    page = tmp_path / "reviews" / "1.0.0.report.html"
    assert capsys.readouterr().out == f"{page}\n"
    assert page.read_bytes() == report_page(report())
    other = tmp_path / "other.html"
    assert run(["report", str(tmp_path / "reviews" / "1.0.0" / "cpu"), "-o", str(other)]) == 0
    assert other.read_bytes() == page.read_bytes()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not a report that this ortc reads"),
        ("[]", "is not a report that this ortc reads"),
        ('{"name": 3}', "is not a report that this ortc reads: name: Input should be a valid string"),
        ("\udcff", "is not a report that this ortc reads"),
    ],
)
def test_what_is_no_report_is_refused(
    content: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "x.report.json"
    place.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert run(["report", str(place)]) == 4
    assert said in capsys.readouterr().err
    assert not place.with_suffix(".html").exists()


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = report_values.report().model_dump(mode="json")
    document["targets"][0]["decisions"][0]["p50_ms"] = float("inf")
    place = tmp_path / "x.report.json"
    place.write_text(json.dumps(document), "utf-8")
    assert run(["report", str(place)]) == 4
    assert re.search("finite", capsys.readouterr().err)


def test_a_bundle_elsewhere_has_no_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(tmp_path)]) == 4
    assert "there is no report of the bundle" in capsys.readouterr().err
