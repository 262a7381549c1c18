"""What the pages tell readers to run is run, or at least understood by the program that it names."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from tests.support.builds import ROOT, Build
from tests.support.pages import commands
from tests.support.serving import read_until_serving

from ortc.cli import main as ortc

pytestmark = pytest.mark.integration
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md"])
FILES = (".pem", ".pub")
OURS = [
    pytest.param(command, id=f"{page.name}-{number}")
    for page in PAGES
    for number, command in enumerate(commands(page))
    if command.startswith("ortc ")
]


@pytest.mark.parametrize("command", OURS)
def test_ortc_understands_its_commands(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each option exists and takes such a value; places that a reader would have are made."""
    words = shlex.split(command.partition(" > ")[0].partition(" | ")[0])[1:]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORTC_REGISTRY", str(tmp_path))  # as an `export` before them says
    # Copies: what is made below must not be made in the project.
    for name in ("specs", "targets", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for word in words:
        place = tmp_path / word.rpartition("=")[2]
        if place.suffix in (*FILES, ".yaml") and not place.exists():
            place.touch()
        elif "/" in word and "://" not in word and not Path(word).is_absolute() and not place.exists():
            place.mkdir(parents=True)
    command_, context = ortc, click.Context(ortc, info_name="ortc")
    while isinstance(command_, click.Group):
        _, found, words = command_.resolve_command(context, words)
        assert found is not None
        command_ = found
    try:
        command_.make_context(command_.name, words, parent=context)
    except click.UsageError as error:
        pytest.fail(f"{command}: {error.format_message()}")


def test_the_commands_for_a_board_run_as_they_stand(
    built: Build, fresh_python: Callable[[Path], Path], tmp_path: Path
) -> None:
    """Without containers: its environment, the self-test, the server."""
    bundle = built.succeeded().bundle("digits", "edge")
    found = commands("docs/deploy.md")
    at = found.index("python3 -m venv venv")
    install, selftest, serve = found[at + 1 : at + 4]
    (tmp_path / "edge").symlink_to(bundle)
    # Another test has made one of the same requirements; what is here, pip need not install again.
    python = fresh_python(bundle)
    (tmp_path / "venv").symlink_to(python.parents[1])
    # It was made without pip, which `python3 -m venv` brings: this one installs into it.
    pip = python.with_name("pip")
    pip.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pip --python "{python}" "$@"\n', "utf-8")
    pip.chmod(0o755)
    for command in (install, selftest):
        done = subprocess.run(
            shlex.split(command), cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"]["golden"]
    # The port of the page may be somebody's here.
    words = shlex.split(serve.replace("8080", "0"))
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        try:
            running = read_until_serving(process)
            assert running.request("GET", "/v2/health/ready") == (200, {"ready": True})
            running.stop()
        finally:
            process.kill()
