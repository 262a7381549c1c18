"""docs/performance.md says what the committed data says, and the renderer changes nothing that people wrote."""

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "performance.md"
PLOTS = ROOT / "docs" / "performance"


@pytest.fixture
def render(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "benchmarks"))
    return importlib.import_module("render")


def test_the_page_is_what_the_data_says(render: ModuleType) -> None:
    text = PAGE.read_text("utf-8")
    assert render.page(text) == text, "run `make bench ARGS=render`"
    assert text.count("<!-- bench: ") == text.count("<!-- /bench -->") >= 3


def test_the_plots_are_what_the_data_says_and_none_is_left_over(render: ModuleType) -> None:
    plots = render.plots()
    assert {path.name for path in PLOTS.iterdir()} == set(plots)
    for name, content in plots.items():
        assert (PLOTS / name).read_text("utf-8") == content, "run `make bench ARGS=render`"


def test_every_plot_is_shown_and_every_shown_one_is_there(render: ModuleType) -> None:
    shown = set(re.findall(r"\]\(performance/([^)]+)\)", PAGE.read_text("utf-8")))
    assert shown == set(render.plots())


def test_a_part_is_written_anew_and_the_rest_stays(render: ModuleType) -> None:
    text = PAGE.read_text("utf-8")
    marker = re.search(r"<!-- bench: latency .*? -->\n", text)
    assert marker is not None
    spoilt = text.replace(marker[0], marker[0] + "| an old row |\n")
    assert render.page(spoilt) == text
    written = "Before.\n\nAfter: `<!-- bench -->`.\n"
    assert render.page(written) == written


def test_a_marker_for_data_that_is_not_there_is_an_error(render: ModuleType) -> None:
    with pytest.raises(KeyError, match="no data for start 0000 bert-base"):
        render.page("<!-- bench: start 0000 bert-base -->\n<!-- /bench -->\n")


def test_answers_are_judged_by_what_was_promised(render: ModuleType) -> None:
    facts = {"problem": None, "max_abs": 2e-6, "cosine": 1.0}
    assert render._keeps(facts) == "max_abs 1e-4"
    assert render._keeps({**facts, "max_abs": 9e-4}) == "cosine 0.999"
    assert render._keeps({**facts, "max_abs": 0.4, "cosine": 0.99}) == "neither"
    assert render._keeps({**facts, "max_abs": 3.0, "cosine": 0.04}).startswith("**wrong**")
    assert "shape" in render._keeps({**facts, "problem": "shape [1] instead of [2]"})
