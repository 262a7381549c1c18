"""What the arguments of `ortc diff` name, without a repository; tests/integration/test_diff.py has one."""

from __future__ import annotations

from pathlib import Path

import pytest

from ortc.common.errors import UsageError
from ortc.diff.sides import BundlePair, Bundles, SpecAt, SpecPair, side, sides


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """dist/bert/1.0.0 with two bundles and one that is being published, two specs, a file."""
    monkeypatch.chdir(tmp_path)
    for name in ("cpu", "edge", ".cpu.new-x1"):
        (tmp_path / "dist" / "bert" / "1.0.0" / name).mkdir(parents=True)
        (tmp_path / "dist" / "bert" / "1.0.0" / name / "manifest.json").write_text("{}")
    (tmp_path / "one.yaml").write_text("")
    (tmp_path / "with:colon.yaml").write_text("")
    return tmp_path


def test_a_directory_is_a_bundle_or_holds_some(place: Path) -> None:
    base = Path("dist/bert/1.0.0")
    assert side("dist/bert/1.0.0/cpu") == Bundles("dist/bert/1.0.0/cpu", {"cpu": base / "cpu"}, single=True)
    assert side("dist/bert/1.0.0") == Bundles(
        "dist/bert/1.0.0", {"cpu": base / "cpu", "edge": base / "edge"}, single=False
    )


def test_what_exists_is_a_path(place: Path) -> None:
    assert side("one.yaml") == SpecAt("one.yaml", Path("one.yaml"))
    assert side("with:colon.yaml") == SpecAt("with:colon.yaml", Path("with:colon.yaml"))


def test_pairs(place: Path) -> None:
    assert isinstance(sides("one.yaml", "with:colon.yaml", None), SpecPair)
    assert isinstance(sides("dist/bert/1.0.0", "dist/bert/1.0.0", None), BundlePair)


@pytest.mark.parametrize(
    ("before", "after", "message", "advice"),
    [
        ("none", "one.yaml", "there is no file or directory `none`", "`ortc diff none --spec PATH`"),
        ("none.yaml", "one.yaml", "there is no file or directory `none.yaml`", "REV:PATH"),
        ("dist", "dist", "dist is no bundle and holds none", "name one of dist/bert/1.0.0"),
        ("dist/bert", "dist", "dist/bert is no bundle and holds none", "name one of dist/bert/1.0.0"),
        ("one.yaml", None, "there is nothing to compare it with", "twice"),
        ("one.yaml", "dist/bert/1.0.0", "one.yaml is a spec, dist/bert/1.0.0 is no spec", "bundles with bundles"),
        (
            "dist/bert/1.0.0",
            "dist/bert/1.0.0/cpu",
            "dist/bert/1.0.0/cpu is one bundle, dist/bert/1.0.0 a directory of bundles",
            "name one of dist/bert/1.0.0/cpu, dist/bert/1.0.0/edge",
        ),
    ],
)
def test_refusals(before: str, after: str | None, message: str, advice: str, place: Path) -> None:
    with pytest.raises(UsageError) as caught:
        sides(before, after, None)
    assert caught.value.message.startswith(message)
    assert advice in str(caught.value.help)
    assert caught.value.exit_code == 2


def test_a_directory_without_bundles_says_where_builds_leave_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        side(str(tmp_path))
    assert caught.value.help == "`ortc build` leaves bundles in dist/NAME/VERSION"
