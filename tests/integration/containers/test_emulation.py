"""`ortc verify --platform`: a bundle's own loader on an emulated processor."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support import bundles
from tests.support.builds import ROOT, Build, Compiler
from tests.support.containers import need

pytestmark = pytest.mark.integration

ARM64 = ("--platform", "linux/arm64", "--no-timing")


def verify(ortc: Compiler, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ortc", "verify", *map(str, arguments)],
        cwd=ROOT,
        env={**ortc.environment(), **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_a_bundle_is_judged_on_another_processor(built: Build, ortc: Compiler) -> None:
    need("qemu-aarch64-static", "mmdebstrap")
    done = verify(ortc, *ARM64, "--json", built.succeeded().bundle("digits", "edge"))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    selftest = found["verdicts"][0]
    assert (selftest["gate"], selftest["platform"], selftest["outcome"]) == ("self-test", "linux/arm64", "pass")
    assert "emulated by qemu-aarch64" in selftest["observed"]
    assert found["numbers"] is None


@pytest.mark.proof(
    "test_a_bundle_is_judged_on_another_processor; test_a_layer_that_is_one_percent_off_fails_the_golden_answers"
)
def test_wrong_answers_fail_there_too(built: Build, ortc: Compiler, copy_of: Callable[[Path], Path]) -> None:
    need("qemu-aarch64-static", "mmdebstrap")
    bundle = copy_of(built.succeeded().bundle("digits", "edge"))
    answers = bundle / json.loads((bundle / "manifest.json").read_bytes())["golden"][0]["outputs"]
    wrong = {name: -array for name, array in np.load(answers).items()}
    np.savez(answers, **wrong)
    shutil.rmtree(bundle / "measurements")
    done = verify(ortc, *ARM64, bundles.seal(bundle))
    assert done.returncode == 5, done.stdout + done.stderr
    assert "golden" in done.stdout


def test_what_is_missing_is_told(built: Build, ortc: Compiler, tmp_path: Path) -> None:
    """On a machine without an emulator: a PATH that has none."""
    bundle = built.succeeded().bundle("digits", "edge")
    done = verify(ortc, *ARM64, bundle, PATH=str(tmp_path))
    assert done.returncode == 4, done.stdout + done.stderr
    assert "qemu-aarch64 is not installed" in done.stderr
    assert "apt-get install qemu-user-static mmdebstrap" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_platform_that_the_bundle_is_not_for_is_refused(built: Build, ortc: Compiler) -> None:
    done = verify(
        ortc, "--platform", "linux/riscv64", built.succeeded().bundle("digits", "edge"), PATH=os.environ["PATH"]
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "not for linux/riscv64" in done.stderr
    assert "linux/arm64" in done.stderr
