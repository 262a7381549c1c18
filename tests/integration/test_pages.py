"""Pages in headless Chromium: they ask for nothing, read well in both schemes and sizes, and run nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.browser_pages import SCHEMES, FilePage, bottom_of
from tests.support.builds import ROOT
from tests.support.report_values import detailed
from tests.unit.pages.test_diff_page import DIFFS, page_of
from tests.unit.pages.test_report_page import ENDS, HOSTILE, Read, hostile

from ortc.__main__ import run
from ortc.execution.browser.chromium import INSTALL, Browser, find_chromium
from ortc.execution.npm_package import CLIENT
from ortc.pages.report_page import report_page

pytestmark = pytest.mark.integration
PAGES = {
    **{f"difference, {name}": page_of(found) for name, found in DIFFS.items()},
    **{f"report, {end}": report_page(found) for end, found in ENDS.items()},
    "hostile": report_page(hostile()),
    "hostile details": report_page(detailed(HOSTILE)),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    lacking = [what for what, is_here in ((INSTALL, find_chromium()), ("npm", shutil.which(CLIENT))) if not is_here]
    if lacking and os.environ.get("ORTC_REQUIRE_TOOLS") == "1":
        pytest.fail(f"pages need: {'; '.join(lacking)}", pytrace=False)
    if lacking:
        pytest.skip(f"pages need: {'; '.join(lacking)}")
    chromium = find_chromium()
    assert chromium is not None
    with Browser(chromium) as opened:
        yield opened


@pytest.fixture(scope="module", params=[1280, 400])
def page(request: pytest.FixtureRequest, browser: Browser) -> FilePage:
    return FilePage(browser, width=request.param)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_asks_for_nothing_and_is_accessible(name: str, page: FilePage, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_bytes(PAGES[name])
    for scheme in SCHEMES:
        page.open(file, scheme)
        assert page.requests == [file.as_uri()]
        assert page.logged == []
        assert page.violations() == []
        assert page.value("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the window"


@pytest.mark.parametrize("name", list(PAGES))
def test_the_first_screen_has_the_verdict_and_the_numbers(name: str, browser: Browser, tmp_path: Path) -> None:
    page = FilePage(browser, width=1280)
    file = tmp_path / "page.html"
    file.write_bytes(PAGES[name])
    page.open(file)
    assert page.value(bottom_of(".verdict")) <= 720
    if name == "report, published":
        assert page.value(bottom_of(".tiles")) <= 720
        assert page.value(bottom_of("tr[data-verdict]")) <= 720


def test_plots_are_in_the_page_in_its_own_colours(browser: Browser, tmp_path: Path) -> None:
    page = FilePage(browser, width=1280)
    file = tmp_path / "page.html"
    file.write_bytes(report_page(detailed()))
    inks = []
    for scheme in SCHEMES:
        page.open(file, scheme)
        assert page.value("document.querySelectorAll('figure svg').length") == 3
        assert page.value("document.querySelectorAll('figure [style], figure style').length") == 0
        inks.append(page.value("getComputedStyle(document.querySelector('figure svg text')).fill"))
    assert inks == ["rgb(27, 31, 36)", "rgb(230, 237, 243)"]


def test_the_same_report_is_drawn_to_the_same_bytes_in_another_process() -> None:
    program = (
        "from tests.support.report_values import detailed; from ortc.pages.report_page import report_page; "
        "import sys; sys.stdout.buffer.write(report_page(detailed()))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["compiler", "."]), "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, cwd=ROOT, env=environment)
    assert done.stdout == report_page(detailed())


def test_the_command_prints_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    examples = ROOT / "examples"
    shutil.copytree(examples, tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "pyproject.toml").touch()
    spec = (ROOT / "specs" / "digits.yaml").read_text("utf-8")
    before, after = tmp_path / "a.yaml", tmp_path / "b.yaml"
    before.write_text(spec, "utf-8")
    after.write_text(spec.replace("version: 1.0.0", "version: 1.0.1"), "utf-8")
    assert run(["diff", str(before), str(after), "--html"]) == 0
    page = Read(capsys.readouterr().out.encode())
    assert "version 1.0.0 1.0.1" in " ".join(page.seen.split())
    assert run(["diff", str(before), str(after), "--html", "--json"]) == 2
    assert "give either --html or --json" in capsys.readouterr().err
    assert run(["diff", "main", "--spec", str(before), "--spec", str(after), "--html"]) == 2
