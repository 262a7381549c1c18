"""The tutorial, as somebody follows it: every command of the page, from an empty folder to an answer over HTTP."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from tests.support.builds import ROOT, Compiler

pytestmark = pytest.mark.integration

PAGE = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ON_PATH = 'export PATH="$PWD/.venv/bin:$PATH"'
SECONDS = 720
"""For the whole page, of machine time and of a person's patience."""


def blocks() -> list[tuple[str, str]]:
    """Languages and texts of the page's fenced blocks."""
    return [(found[1], found[2]) for found in BLOCK.finditer(PAGE.read_text("utf-8"))]


def test_every_block_is_run_or_shown() -> None:
    languages = [language for language, _ in blocks()]
    assert languages.count("python") == languages.count("yaml") == 1
    # The only block without a language is the summary that a build prints.
    assert languages.count("") == 1
    assert set(languages) == {"sh", "python", "yaml", ""}


class Reader:
    """Somebody who follows the page in a terminal."""

    def __init__(self, place: Path, environment: dict[str, str]) -> None:
        self.place, self.environment = place, environment
        self.said = ""

    def run(self, command: str) -> None:
        """Run a block of the page; a comment in it may say how it exits."""
        if command.startswith(ON_PATH):
            return
        codes = [int(code) for code in re.findall(r"# exits with (\d+)", command)]
        done = subprocess.run(
            ["/bin/bash", "-ec", command],
            cwd=self.place,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == (codes[0] if codes else 0), f"{command}\n{done.stdout}\n{done.stderr}"
        self.said = done.stdout
        if moved := re.search(r"^cd (\S+)$", command, re.MULTILINE):
            self.place /= moved[1]


@pytest.mark.proof("test_the_demo_answers_over_http, of a project with a classifier like this one")
def test_a_reader_gets_an_answer(ortc: Compiler, tmp_path: Path) -> None:
    environment = ortc.environment()
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    reader, server, began = Reader(tmp_path, environment), None, time.monotonic()
    text = PAGE.read_text("utf-8")
    port = 20_000 + os.getpid() % 10_000
    try:
        for language, block in blocks():
            if language == "python":
                assert "save this as `train.py`" in text
                (reader.place / "train.py").write_text(block, "utf-8")
            elif language == "yaml":
                spec = reader.place / "specs" / "tickets.yaml"
                before, _, _ = spec.read_text("utf-8").partition("\naccuracy:\n")
                spec.write_text(f"{before}\n{block}", "utf-8")
            elif "runtime/server.py" in block:
                command = block.strip().replace("8080", str(port)).split()
                # Nothing of the compiler is on the path of a bundle's environment.
                alone = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
                server = subprocess.Popen(command, cwd=reader.place, env=alone, stderr=subprocess.DEVNULL)
                wait_until_ready(port, server)
            elif language == "sh":
                reader.run(block.replace("8080", str(port)))
                if "runtime" not in block and "ortc run" in block:
                    assert reader.said.split()[-6] == "delivery", reader.said
                if block.startswith("curl"):
                    (answer,) = json.loads(reader.said)["outputs"]
                    assert answer[0]["label"] == "delivery"
            else:
                names = [line.split()[0] for line in block.splitlines() if not line.startswith(" ")]
                assert names == ["tickets", "gates", "bundles", "report", "next"]
    finally:
        if server is not None:
            server.terminate()
            server.wait(60)
    assert time.monotonic() - began < SECONDS


def wait_until_ready(port: int, server: subprocess.Popen[bytes]) -> None:
    """Wait until a server has checked its bundle."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert server.poll() is None
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the server is not ready")
