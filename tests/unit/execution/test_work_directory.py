"""Directories of builds: in use they stay, left behind they go."""

from pathlib import Path

from ortc.execution.work_directory import workplace


def test_it_is_empty_and_gone_afterwards(tmp_path: Path) -> None:
    with workplace(tmp_path) as place:
        assert [path.name for path in place.iterdir()] == [".held"]
        (place / "model").mkdir()
        (place / "model" / "weights").write_bytes(b"1")
    assert not place.exists()


def test_what_a_killed_build_left_is_cleared_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    left = tmp_path / "work" / "left"
    left.mkdir(parents=True)
    (left / ".held").touch()
    (left / "weights").write_bytes(b"1")
    unheld = tmp_path / "work" / "unheld"
    unheld.mkdir()
    with workplace(tmp_path) as first:
        assert not left.exists()
        assert not unheld.exists()
        with workplace(tmp_path) as second:
            assert first.exists()
            assert second != first
        assert first.exists()
