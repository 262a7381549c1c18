"""What archives of exported programs may hold: torch runs what some of them carry, and evaluates their sizes."""

import json
import time
import zipfile
from pathlib import Path

import pytest
from tests.support.programs import archive, document, tensor, two_faced

from ortc.common.errors import StageError
from ortc.inspection.pt2_safety import _is_arithmetic, checked_copy, refuse_code


@pytest.mark.parametrize(
    "text",
    [
        "s77",
        "Symbol('s77', positive=True, integer=True)",
        "2*Symbol('u0', integer=True) + 1",
        "Max(1, Mod(s0, 8))",
        "(s0 // 2) ** 2 - 1",
        "Eq(s0, 3)",
        "-s0",
        "Pow(Integer(2), Integer(8))",
        "PowByNatural(Symbol('s0', integer=True), 2)",
        "LShift(s0, 3)",
    ],
)
def test_arithmetic(text: str) -> None:
    assert _is_arithmetic(text)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "Symbol('__import__(\\'os\\')')",
        "s0.__class__",
        "eval('1')",
        "Symbol('s0')(1)",
        "open('/etc/passwd')",
        "(lambda: 1)()",
        "[s for s in (1,)]",
        "Max(*print('x'))",
        "f'{s0}'",
        "__builtins__",
        "s0; s1",
        "",
        "(" * 1000,
        "7**9**9",
        "((2**64)**64)**64**1 * ((9**64)**64)**64",
        "(((2**64)**64)**64)**64",
        "Pow(7, Pow(9, 9))",
        "Pow(7, 999999999)",
        "1 << 10**10",
        "1 << 10000000000",
        "LShift(1, 10000000000)",
        "2**s0",
        "+".join(["s0"] * 10_000),
    ],
)
def test_code(text: str) -> None:
    assert not _is_arithmetic(text)


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def test_the_copy_holds_the_members_that_were_checked(tmp_path: Path) -> None:
    """torch finds the directory of an archive by its offset, Python by its size: a file can have two."""
    shown = members(archive(tmp_path / "plain.pt2"))
    evil = document(inputs={"ids": tensor(5, "__import__('os').system('true')")})
    hidden = shown | {"m/models/model.json": json.dumps(evil).encode()}
    assert b"system" in two_faced(tmp_path / "two.pt2", shown, hidden).read_bytes()
    checked_copy(tmp_path / "two.pt2", tmp_path / "copy.pt2")
    assert members(tmp_path / "copy.pt2") == {f"program/{name[2:]}": content for name, content in shown.items()}
    assert b"system" not in (tmp_path / "copy.pt2").read_bytes()
    two_faced(tmp_path / "turned.pt2", hidden, shown)
    with pytest.raises(StageError, match="which is no arithmetic"):
        checked_copy(tmp_path / "turned.pt2", tmp_path / "other.pt2")
    assert not (tmp_path / "other.pt2").exists()


def test_notes_of_an_archive_are_not_copied(tmp_path: Path) -> None:
    with zipfile.ZipFile(archive(tmp_path / "m.pt2"), "a") as file:
        file.writestr("m/extra/Models/MODEL.json", "{}")
    checked_copy(tmp_path / "m.pt2", tmp_path / "copy.pt2")
    assert sorted(members(tmp_path / "copy.pt2")) == [
        "program/data/weights/model_weights_config.json",
        "program/models/model.json",
    ]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("m/models/MODEL.JSON", b"{}", "it holds `models/MODEL.JSON`"),
        ("m/data/constants/model_constants_config.json", b"[]", "the list of its weights is no mapping"),
        ("m/data/constants/model_constants_config.json", b'{"config": {"a": 1}}', "its constant `a` is a pickled"),
        ("m/data/constants/model_constants_config.json", b"{", "is no .pt2 archive"),
        ("n/version", b"1", "it has more than one directory"),
    ],
)
def test_members_that_are_refused(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    with zipfile.ZipFile(archive(tmp_path / "m.pt2"), "a") as file:
        file.writestr(name, content)
    with pytest.raises(StageError, match=reason):
        refuse_code(tmp_path / "m.pt2")


def test_members_that_unfold_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(archive(tmp_path / "m.pt2"), "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("m/data/weights/weight_0", b"0" * 10_000_000)
    with pytest.raises(StageError, match="its member `data/weights/weight_0` is compressed"):
        refuse_code(tmp_path / "m.pt2")


def test_sizes_are_judged_at_once() -> None:
    begin = time.process_time()
    assert not _is_arithmetic("*".join(["9**9**9**9"] * 1000))
    assert time.process_time() - begin < 2
