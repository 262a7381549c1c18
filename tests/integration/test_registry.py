"""The registry with real builds, real processes and the bundle's own loader."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.builds import PATIENT, PLAIN, ROOT, TIMEOUT, Build, Compiler, answer, loader

pytestmark = pytest.mark.integration

Fresh = Callable[[Path], Path]


def ortc(compiler: Compiler, *arguments: str | Path) -> Any:
    """The JSON that a command of `ortc registry` prints."""
    command = [sys.executable, "-m", "ortc", "registry", *map(str, arguments), "--json"]
    done = subprocess.run(
        command, cwd=ROOT, env=compiler.environment(), capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["format_version"] == 1
    return document


def test_writers_that_are_killed_and_writers_at_once(tmp_path: Path, digits_compiler: Compiler) -> None:
    """A smaller number than the evidence in docs/registry.md; the program itself checks what must hold."""
    program = [sys.executable, str(ROOT / "tests" / "support" / "registry_writers.py"), str(tmp_path)]
    done = subprocess.run(
        [*program, "--kills", "20", "--writers", "6"],
        cwd=ROOT,
        env=digits_compiler.environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert sum(found["outcomes"].values()) == 20
    assert found["outcomes"]["killed, not visible"] > 0, "no writer was killed before it had ended"
    assert found["events"] == 30


def test_one_command_builds_and_registers(
    digits_compiler: Compiler, digits: Build, fresh_python: Fresh, tmp_path: Path
) -> None:
    digits.succeeded()
    url = f"file://{tmp_path}/registry"
    options = [*PATIENT, *PLAIN, "--register", url, "--emit", "k8s,triton", "--json"]
    done = digits_compiler.build("specs/digits.yaml", *options, output=digits.output).succeeded()
    document = json.loads(done.stdout)
    for target in ("cpu", "edge"):
        place = digits.output / "digits" / "1.0.0" / f"{target}.deploy"
        for name in ("k8s.yaml", "triton/digits/config.pbtxt"):
            assert str(place / name) in document["emitted"]
            assert (place / name).is_file()
        # Others look at this output, too.
        shutil.rmtree(place)
    registered = document["registered"]
    assert [(entry["name"], entry["version"], entry["target"], entry["new"]) for entry in registered] == [
        ("digits", "1.0.0", "cpu", True),
        ("digits", "1.0.0", "edge", True),
    ]
    at = ("--registry", url)
    ortc(digits_compiler, "promote", "digits@1.0.0", "production", *at)
    (model,) = ortc(digits_compiler, "ls", *at)["models"]
    assert model["aliases"] == {"latest": "1.0.0", "production": "1.0.0"}

    shown = {entry["record"]["target"]: entry for entry in ortc(digits_compiler, "show", "digits", *at)["bundles"]}
    numbers = {entry["target"]: entry["numbers"] for entry in digits.report("digits")["targets"]}
    for target, entry in shown.items():
        # What the build measured on this hardware, as the report has it.
        (performance,) = entry["performance"]
        assert performance["numbers"] == numbers[target]
        assert "torch" in entry["record"]["provenance"]["tools"]

    got = ortc(digits_compiler, "get", "digits@production", "-t", "cpu", "-o", tmp_path / "out", *at)
    (place,) = map(Path, got["bundles"])
    result = answer(loader(fresh_python(place), place, "selftest", "--verify", "full"))
    assert (result["name"], result["version"], result["target"]) == ("digits", "1.0.0", "cpu")


def test_a_registry_out_of_reach_is_told_before_the_build(digits_compiler: Compiler, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = digits_compiler.build(
        "specs/digits.yaml", "--register", tmp_path / "file" / "below", output=tmp_path / "dist"
    )
    assert "the registry" in done.failed(4)
    assert not (tmp_path / "dist").exists()
