"""Every argument that takes a path, at names and places that no file can have: an exit code, and never a bug."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.examples import examples
from tests.support.keys import write_keys
from tests.support.whole_bundles import whole_bundle

from ortc.__main__ import run

ROOT = Path(__file__).parents[3]
DIGITS = str(ROOT / "specs" / "digits.yaml")

PLACES: dict[str, Callable[[Path], str]] = {
    "a long name": lambda _: "a" * 300,
    "a long name of a file": lambda _: "b" * 300 + ".yaml",
    "a long path": lambda place: str(place.joinpath(*["c" * 100] * 50)),
    "no UTF-8": lambda place: os.fsdecode(os.fsencode(place) + b"/\xff\xfe"),
    "/proc": lambda _: "/proc/x",
    "below /proc": lambda _: "/proc/x/y.yaml",
    "below a device": lambda _: "/dev/full/x",
    "an endless device": lambda _: "/dev/zero",
    "an empty device": lambda _: "/dev/null",
    "a file": lambda place: _file(place / "file"),
    "below a file": lambda place: f"{_file(place / 'another')}/x",
    "a directory": lambda place: str(place),
    "a pipe": lambda place: _pipe(place / "pipe"),
    "a link to a pipe": lambda place: _link(place / "link", _pipe(place / "piped.yaml")),
    "a circle of links": lambda place: _link(place / "circle", str(place / "circle")),
    "a dead link": lambda place: _link(place / "dead", str(place / "none" / "at all")),
    "a socket": lambda place: _socket(place / "s"),
    "an unreadable file": lambda place: _closed(Path(_file(place / "closed"))),
    "below a directory that is read-only": lambda place: f"{_closed(_made(place / 'closed-directory'))}/x",
    "nothing": lambda _: "",
    "a line break": lambda place: f"{place}/x\ny",
    "an option": lambda place: f"{place}/--help",
    "an archive": lambda _: "x::y",
}

COMMANDS = (
    "check {odd}",
    "check {odd} --output-format json",
    "check {odd} --output-format sarif",
    "check {odd} --output-format github",
    "plan {odd}",
    "plan {digits} -o {odd}",
    "plan {digits} --cache-url {odd}",
    "plan {digits} --cache-url file://{odd}",
    "build {odd}",
    "build --plan {odd}",
    "lock {odd}",
    "verify {odd} --key {public}",
    "verify {odd}",
    "verify {bundle} --key {odd}",
    "attach {odd} {measurement}",
    "attach {bundle} {odd}",
    "sign {odd} --key {private}",
    "sign {bundle} --key {odd}",
    "pack {odd}",
    "pack {bundle} --format tar -o {odd}",
    "pack {bundle} --format oci -o {odd}/x",
    "pack {bundle} -o {out} --base {odd}",
    "pack {bundle} -o {out} --key {odd}",
    "emit {odd}",
    "emit {bundle} -o {odd}",
    "emit {bundle} -o {odd}/x",
    "emit {bundle} -o {out} --key {odd}",
    "bench {odd}",
    "run {odd} hello",
    "run {bundle} {odd}",
    "migrate {odd}",
    "migrate {odd} --check",
    "diff {odd} {bundle}",
    "diff {bundle} {odd}",
    "diff {digits} {odd}",
    "diff {bundle} {bundle} --no-run --key {odd}",
    "registry add {odd} --registry {out}",
    "registry add {bundle} --registry {odd}",
    "registry add {bundle} --registry file://{odd}",
    "registry add {bundle} --registry {out} --key {odd}",
    "registry ls --registry {odd}",
    "registry show {odd} --registry {registry}",
    "registry show linear --registry {odd}",
    "registry get linear --registry {registry} -o {odd}",
    "registry get linear --registry {registry} -o {odd}/x",
    "registry get linear --registry {registry} -o {out} --key {odd}",
    "registry promote linear@1.0.0 {odd} --registry {registry}",
    "registry promote linear@1.0.0 production --registry {registry} --key {odd}",
    "registry rollback {odd} production --registry {registry}",
    "registry gc --registry {odd}",
    "init {odd}",
    "init {odd} -o {out}/spec.yaml",
    "init {onnx} -o {odd}",
    "init {onnx} --force -o {odd}",
    "init {onnx} -o {odd}/x.yaml",
)


def _file(place: Path) -> str:
    place.write_text("text")
    return str(place)


def _made(place: Path) -> Path:
    place.mkdir()
    return place


def _pipe(place: Path) -> str:
    os.mkfifo(place)
    return str(place)


def _link(place: Path, to: str) -> str:
    place.symlink_to(to)
    return str(place)


def _closed(place: Path) -> str:
    place.chmod(0o500 if place.is_dir() else 0)
    return str(place)


def _socket(place: Path) -> str:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(place))
    return str(place)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Arguments that are right."""
    place = tmp_path_factory.mktemp("given")
    bundle = whole_bundle(place / "cpu")
    private, public = write_keys(place / "keys")
    (place / "measurement.json").write_text("{}")
    assert run(["registry", "add", str(bundle), "--registry", str(place / "registry")]) == 0
    return {
        "bundle": str(bundle),
        "digits": DIGITS,
        "measurement": str(place / "measurement.json"),
        "onnx": str(bundle / "model" / "model.onnx"),
        "private": str(private),
        "public": str(public),
        "registry": str(place / "registry"),
    }


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short place to work in, which holds the odd one and takes all that is written."""
    monkeypatch.setenv("ORTC_CACHE_DIR", str(tmp_path / "cache"))
    place = tmp_path / "odd"
    place.mkdir()
    monkeypatch.chdir(place)
    before = _devices()
    yield place
    assert _devices() == before
    for closed in tmp_path.rglob("closed*"):
        closed.chmod(0o700)


def _devices() -> list[bool]:
    return [stat.S_ISCHR(Path(name).stat().st_mode) for name in ("/dev/null", "/dev/zero", "/dev/full")]


@pytest.mark.parametrize("name", PLACES)
def test_odd_paths(
    name: str, given: dict[str, str], work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every place meets every command in `make proofs`, and elsewhere a share: each command meets some places."""
    odd = PLACES[name](work)
    step = len(COMMANDS) // examples(len(COMMANDS))
    first = list(PLACES).index(name) % step
    for number, command in list(enumerate(COMMANDS))[first::step]:
        out = tmp_path / f"out{number}"
        words = [word.format(odd=odd, out=out, **given) for word in command.split(" ")]
        if any(word.startswith("/x") for word in words):
            # Whoever runs the tests may be allowed to write there.
            continue
        if words[0] == "diff" and "::" in str(odd):
            # A revision, about which git is asked: unit tests start no process.
            continue
        code = run(words)
        told = capsys.readouterr()
        assert "This is a bug in ortc" not in told.err, (command, told.err)
        assert code in (0, 2, 3, 4, 5, 6, 7), (command, code)
        assert code == 0 or told.err or told.out, command
