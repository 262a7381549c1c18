"""What was recorded on some machine says nothing of where things lie there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PLACE = re.compile(r"(?<![\w.:/-])/(?:root|home|Users|work|tmp|var|check|mnt)/|site-packages")
RECORDS = sorted(
    path
    for folder in (*ROOT.glob("tests/*/data"), ROOT / "targets" / "data")
    for path in folder.rglob("*")
    if path.suffix in (".json", ".txt", ".csv", ".md", ".yaml")
)


def test_there_are_records() -> None:
    folders = {path.relative_to(ROOT).parts[:2] for path in RECORDS}
    assert {("tests", "architectures"), ("tests", "benchmarks"), ("targets", "data")} <= folders


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_record_names_no_place_of_the_machine_that_made_it(path: Path) -> None:
    found = PLACE.search(text := path.read_text("utf-8"))
    assert found is None, text[max(0, found.start() - 80) : found.end() + 80]
