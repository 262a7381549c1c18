"""Files that are replaced in one step."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ortc.common.atomic_files import PRIVATE, replace_file


def test_a_file_is_replaced_whole_with_its_mode_and_time(tmp_path: Path) -> None:
    place = tmp_path / "record.json"
    place.write_bytes(b"before")
    replace_file(place, b"after", mode=PRIVATE, stamp=1_700_000_000)
    assert place.read_bytes() == b"after"
    assert place.stat().st_mode & 0o777 == PRIVATE
    assert place.stat().st_mtime == 1_700_000_000
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_what_is_there_stays_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "record.json"
    place.write_bytes(b"before")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(place, b"after")
    assert place.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_the_umask_bounds_the_mode(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        replace_file(tmp_path / "report.json", b"{}")
    finally:
        os.umask(before)
    assert (tmp_path / "report.json").stat().st_mode & 0o777 == 0o640
