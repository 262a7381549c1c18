"""README.md: short, without dead links, and with a spec that builds when it is copied."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.support.builds import PATIENT, PLAIN, ROOT, Compiler, checkout

pytestmark = pytest.mark.integration

TEXT = (ROOT / "README.md").read_text("utf-8")
PAGES = ("README.md", "docs/tutorial.md", "docs/commands.md", "docs/models.md")
LINK = re.compile(r"\]\(\s*([^)\s]+)\s*\)")


def test_it_is_short() -> None:
    lines = TEXT.splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 100 and not line.startswith("|")] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    place = (ROOT / page).parent
    found = [link for link in LINK.findall((ROOT / page).read_text("utf-8")) if "://" not in link]
    for link in found:
        file, _, anchor = link.partition("#")
        target = place / file if file else ROOT / page
        assert target.is_file(), link
        if anchor:
            assert anchor in anchors(target), link


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_reached_from_it() -> None:
    linked = {link.partition("#")[0] for link in LINK.findall(TEXT)}
    pages = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    assert pages <= linked


def test_its_spec_builds_when_it_is_copied(digits_compiler: Compiler, tmp_path: Path) -> None:
    (spec,) = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    place = checkout(tmp_path / "checkout")
    (place / "specs" / "mine.yaml").write_text(spec, "utf-8")
    output = tmp_path / "dist"
    build = digits_compiler.build("specs/mine.yaml", *PLAIN, *PATIENT[:2], output=output, cwd=place).succeeded()
    assert build.bundles() == ["mine/1.0.0/cpu", "mine/1.0.0/edge"]
