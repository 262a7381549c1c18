"""Commits that no git command makes: `ortc diff` refuses them by name, in bounded memory, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ortc.common.errors import StageError
from ortc.diff import commit_files, git_process
from ortc.diff.git import Repository

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
GIT = str(shutil.which("git"))
IDENTITY = {f"GIT_{who}_{what}": "a@x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty repository, whose temporary files go to a directory of their own."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    place = tmp_path / "repository"
    place.mkdir()
    git(place, "init", "-q", "-b", "main")
    yield place
    # Deep trees are more than some tools can remove.
    shutil.rmtree(place / ".git")


def git(directory: Path, *arguments: str, stdin: bytes = b"") -> str:
    environment = {**os.environ, **IDENTITY, "GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run(
        [GIT, *arguments], cwd=directory, input=stdin, env=environment, capture_output=True, check=True
    )
    return done.stdout.decode().strip()


def blob(top: Path, content: bytes) -> str:
    return git(top, "hash-object", "-w", "--stdin", stdin=content)


def tree(top: Path, *entries: tuple[str, str, str]) -> str:
    """A tree of (mode, hash, name); git writes what it is given, sorted or not."""
    lines = [
        f"{mode} {'tree' if mode == '040000' else 'blob'} {sha}\t".encode() + os.fsencode(name) + b"\0"
        for mode, sha, name in entries
    ]
    return git(top, "mktree", "-z", stdin=b"".join(lines))


def commit(top: Path, root: str) -> str:
    return git(top, "commit-tree", "-m", "x", root)


def checkout(top: Path, root: str, place: Path) -> None:
    place.mkdir()
    Repository.around(top).checkout(commit(top, root), place)


def _nested(top: Path, depth: int) -> str:
    found = tree(top, ("100644", blob(top, b"hi"), "file"))
    for _ in range(depth):
        found = tree(top, ("040000", found, "d"))
    return found


ODD: dict[str, tuple[Callable[[Path], str], str]] = {
    "a link with a null byte": (lambda top: tree(top, ("120000", blob(top, b"a\0b"), "odd")), "`odd`"),
    "an empty link": (lambda top: tree(top, ("120000", blob(top, b""), "odd")), "`odd`"),
    "a long link": (lambda top: tree(top, ("120000", blob(top, b"a" * 5_000), "odd")), "`odd`"),
    "a link of long names": (lambda top: tree(top, ("120000", blob(top, b"a" * 4_096), "odd")), "`odd`"),
    "a long name": (lambda top: tree(top, ("100644", blob(top, b"hi"), "odd" + "b" * 297)), "`oddb"),
    "a long name of a directory": (
        lambda top: tree(top, ("040000", _nested(top, 0), "odd" + "b" * 297)),
        "`oddb",
    ),
    "a long name that is not UTF-8": (
        lambda top: tree(top, ("100644", blob(top, b"hi"), "odd" + "\udcff" * 297)),
        "`odd",
    ),
    "a file and a directory": (
        lambda top: tree(top, ("100644", blob(top, b"hi"), "odd"), ("040000", _nested(top, 0), "odd")),
        "`odd/file`",
    ),
    "a link and a directory": (
        lambda top: tree(top, ("120000", blob(top, b"/tmp"), "odd"), ("040000", _nested(top, 0), "odd")),
        "`odd/file`",
    ),
    "the same name twice": (
        lambda top: tree(top, ("100644", blob(top, b"hi"), "odd"), ("100644", blob(top, b"ho"), "odd")),
        "`odd`",
    ),
    "many directories": (lambda top: _nested(top, 150), "`d/d/d"),
    "a file that git lacks": (lambda top: _without(top, b"gone"), "`odd`"),
}


def _without(top: Path, content: bytes) -> str:
    sha = blob(top, content)
    found = tree(top, ("100644", sha, "odd"))
    (top / ".git" / "objects" / sha[:2] / sha[2:]).unlink()
    return found


@pytest.mark.parametrize("name", ODD)
def test_odd_names_are_refused_by_name(top: Path, tmp_path: Path, name: str) -> None:
    make, named = ODD[name]
    with pytest.raises(StageError) as caught:
        checkout(top, make(top), tmp_path / "tree")
    assert named in caught.value.message
    assert len(caught.value.message) < 400
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("name", ["..", ".git", ".GIT", "."])
def test_names_that_lead_elsewhere(top: Path, tmp_path: Path, name: str) -> None:
    # git refuses such names, so the tree is written as it is stored.
    content = b"100644 " + name.encode() + b"\0" + bytes.fromhex(blob(top, b"hi"))
    root = git(top, "hash-object", "-w", "--literally", "-t", "tree", "--stdin", stdin=content)
    with pytest.raises(StageError, match="it leads out of the work tree"):
        checkout(top, root, tmp_path / "tree")


def test_a_tree_of_trees_is_listed_up_to_the_bound(top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven small trees stand for ten million files."""
    monkeypatch.setattr(commit_files, "MOST_ENTRIES", 5_000)
    found = blob(top, b"hi")
    for level in range(7):
        mode = "100644" if level == 0 else "040000"
        found = tree(top, *((mode, found, f"f{number}") for number in range(10)))
    start = time.monotonic()
    with pytest.raises(StageError, match="it has more than 5,000 files"):
        checkout(top, found, tmp_path / "tree")
    assert time.monotonic() - start < 60
    assert not list((tmp_path / "tree").iterdir())


@pytest.mark.parametrize(("bound", "match"), [("MOST_BLOB", "the file `large` has"), ("MOST_BYTES", "its files have")])
def test_large_files_are_refused_before_anything_is_written(
    top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, match: str
) -> None:
    monkeypatch.setattr(commit_files, bound, 1_000_000)
    large = blob(top, bytes(600_000 if bound == "MOST_BYTES" else 1_000_001))
    root = tree(top, ("100644", large, "large"), ("100644", large, "more"), ("100644", blob(top, b"hi"), "a"))
    with pytest.raises(StageError, match=match):
        checkout(top, root, tmp_path / "tree")
    assert not list((tmp_path / "tree").iterdir())


def test_files_are_streamed(top: Path, tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * 64
    root = tree(top, ("100755", blob(top, content), "large"), ("100644", blob(top, b"hi"), "small"))
    tracemalloc.start()
    try:
        checkout(top, root, tmp_path / "tree")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20
    assert (tmp_path / "tree" / "large").read_bytes() == content
    assert (tmp_path / "tree" / "large").stat().st_mode & 0o111
    assert (tmp_path / "tree" / "small").read_bytes() == b"hi"


@pytest.mark.parametrize("place", ["included", "config"])
def test_a_pipe_in_the_configuration_does_not_hang(
    top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(git_process, "PATIENCE", 1.0)
    os.mkfifo(tmp_path / "pipe")
    config = top / ".git" / "config"
    if place == "included":
        with config.open("a") as stream:
            stream.write(f"[include]\n\tpath = {tmp_path / 'pipe'}\n")
    else:
        config.unlink()
        config.symlink_to(tmp_path / "pipe")
    with pytest.raises(StageError, match="git gave no answer for 1 s"):
        Repository.around(top)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_no_files(top: Path, tmp_path: Path, number: signal.Signals) -> None:
    for name in ("specs", "examples"):
        shutil.copytree(ROOT / name, top / name, ignore=shutil.ignore_patterns("__pycache__"))
    for count in range(3_000):
        (top / "examples" / f"f{count}").write_text("x")
    git(top, "add", "-A")
    git(top, "commit", "-qm", "one")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with subprocess.Popen(
        [sys.executable, "-m", "ortc", "diff", "main", "main", "--spec", "specs/digits.yaml"],
        cwd=top,
        env={**os.environ, "TMPDIR": str(scratch), "ORTC_CACHE_DIR": str(tmp_path / "cache")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # A runner in the background ignores interrupts, one under nohup hang-ups, and so would all its children.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    ) as process:
        deadline = time.monotonic() + 120
        while not any(scratch.glob("ortc-diff-*/tree/*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(number)
        # Whoever is impatient sends it again.
        process.send_signal(number)
        _, told = process.communicate(timeout=120)
    assert process.returncode == (130 if number == signal.SIGINT else 128 + number), told.decode()
    assert not list(scratch.iterdir())
