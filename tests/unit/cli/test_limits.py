"""Limits of the system that a command reaches: an error with a way out, and never a bug."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.whole_bundles import whole_bundle

from ortc.__main__ import run
from ortc.cli import report


def _raise(error: Exception) -> Callable[..., object]:
    def fail(*_: object, **__: object) -> object:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EFBIG, os.strerror(errno.EFBIG)), "ulimit -f"),
        (OSError(errno.EFBIG, os.strerror(errno.EFBIG), "bundle/model.onnx"), "ulimit -f"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "ulimit -n"),
        (OSError(errno.ENFILE, os.strerror(errno.ENFILE)), "this machine"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "memory"),
        (MemoryError(), "memory"),
        (OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)), "ulimit -u"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (OSError(errno.EIO, os.strerror(errno.EIO)), "device"),
        (UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "surrogates not allowed"), "`a\\udcff`"),
    ],
)
def test_what_the_system_refuses(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("ortc.cli.check.check_spec", _raise(error))
    spec = tmp_path / "spec.yaml"
    spec.write_text("api_version: ortc/v1alpha1\n", "utf-8")
    assert run(["check", str(spec)]) == 4
    output = capsys.readouterr().err
    assert said in output
    assert "help: " in output
    assert "This is a bug" not in output


def test_other_errors_are_bugs() -> None:
    for error in (OSError(errno.EBADF, os.strerror(errno.EBADF)), RuntimeError("no thread"), ValueError("x")):
        assert report.reached_limit(error) is None


@pytest.mark.parametrize("most", [0, 100])
@pytest.mark.parametrize("command", ["pack {bundle} -o {place}/packed", "emit {bundle}"])
def test_files_that_may_not_grow(
    command: str, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = whole_bundle(tmp_path / "bundle")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    arguments = command.format(bundle=bundle, place=tmp_path).split()
    monkeypatch.chdir(tmp_path)
    # SIGXFSZ is ignored by Python: a write that goes beyond is an error.
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        code = run(arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 4
    assert "This is a bug" not in capsys.readouterr().err
