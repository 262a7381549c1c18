"""Run the real command line, and look at what it built."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.shared import shared

from ortc.common.resources import cache_root
from ortc.execution.runtime_environment import environment

ROOT = Path(__file__).parents[2]
QUIET = Path(__file__).parent / "quiet"
NO_HUB = Path(__file__).parent / "no-hub"
"""There is nothing of the name."""
SET_BY_LIBRARIES = frozenset(
    {
        *("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK"),  # scikit-learn
        "TORCHINDUCTOR_CACHE_DIR",
        "TORCH_FORCE_WEIGHTS_ONLY_LOAD",  # ortc itself, before it reads what somebody else pickled
    }
)
"""Variables that are set in this process when a test imports PyTorch or scikit-learn; a build sets its own."""
TIMEOUT = 900
"""Seconds: a build that takes longer hangs."""

BERT = "tests/support/specs/bert.yaml"
"""The specs' text model with smaller bounds."""

TEXT = "tests/support/specs/text.yaml"
"""The same for the target `cpu` alone, with fewer samples and without a task metric; any machine keeps its budget."""

DIGITS = "tests/support/specs/digits.yaml"
"""The specs' digits, as `PATIENT` changes them."""

PATIENT = ("--set", "targets.cpu.latency_budget.p99=60s", "--set", "targets.edge.latency_budget.p99=60s")
"""For builds of the repository's specs that must succeed: a machine that runs other tests too may miss real budgets."""

QUICK = ("--search", "quick")
"""For builds whose test is not about the whole shape matrix or long races."""

PLAIN = ("--search", "none")
"""For builds whose test is not about the search: the first variant, at the corners of the shape matrix."""

CALIBRATED = ("-t", "edge", *PLAIN, "--variant", "int8-static", *PATIENT[2:])
"""For builds of the digits that are calibrated."""


@dataclass(frozen=True)
class Build:
    """What one `ortc build` did."""

    exit_code: int
    stdout: str
    stderr: str
    output: Path
    seconds: float

    def bundle(self, name: str, target: str, version: str = "1.0.0") -> Path:
        return self.output / name / version / target

    def report(self, name: str, version: str = "1.0.0") -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.output / name / f"{version}.report.json").read_bytes())
        return document

    def bundles(self) -> list[str]:
        """Every directory below the output that holds a manifest, hidden ones too."""
        return sorted(str(path.parent.relative_to(self.output)) for path in self.output.rglob("manifest.json"))

    def succeeded(self) -> Build:
        """The same, when the build did succeed."""
        assert self.exit_code == 0, f"exit code {self.exit_code}\n{self.stderr}\n{self.stdout}"
        return self

    def failed(self, exit_code: int) -> str:
        """What a build that failed told on stderr."""
        assert self.exit_code == exit_code, f"exit code {self.exit_code}\n{self.stderr}\n{self.stdout}"
        assert "Traceback" not in self.stderr
        return self.stderr


@dataclass(frozen=True)
class Compiler:
    """The command line with a cache of its own, from a checkout, without a hub."""

    cache: Path
    root: Path = ROOT
    url: str = ""
    """Of a remote cache."""
    is_quiet: bool = True
    """Measure briefly, without waiting for others, and as if the machine were quiet, see tests/support/quiet."""

    def environment(self) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if name not in SET_BY_LIBRARIES},
            "ORTC_CACHE_DIR": str(self.cache),
            "ORTC_CACHE_URL": self.url,
            # Neither a hub nor what a developer's hub cache happens to hold.
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(NO_HUB),
            "NO_COLOR": "1",
            # Threads of PyTorch that have nothing to do let others compute.
            "OMP_WAIT_POLICY": "PASSIVE",
            # Tests run beside each other.
            **({"ORTC_MEASURE_LOCK_HELD": "1"} if self.is_quiet else {}),
            "PYTHONPATH": os.pathsep.join([str(self.root / "compiler"), *([str(QUIET)] if self.is_quiet else [])]),
        }

    def command(self, *arguments: str | Path, output: Path) -> list[str]:
        return [sys.executable, "-m", "ortc", "build", "-v", *map(str, arguments), "-o", str(output)]

    def build(self, *arguments: str | Path, output: Path, **options: Any) -> Build:
        """`ortc build` to its end; `options` are those of subprocess.run."""
        begin = time.monotonic()
        command = self.command(*arguments, output=output)
        # The environment goes through `env` alone, so that no test changes that of the others.
        done = subprocess.run(
            command,
            **{"cwd": self.root, "env": self.environment(), **options},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        return Build(done.returncode, done.stdout, done.stderr, output, time.monotonic() - begin)


def checkout(place: Path) -> Path:
    """The files that git knows, as they are now."""
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    for name in listed.stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / name)
    return place


def snapshot(directory: Path) -> dict[str, tuple[str, int]]:
    """Path to sha256 and modification time, in nanoseconds, of every file below a directory."""
    return {
        str(path.relative_to(directory)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


TOLD = ("manifest.json", "Dockerfile", "sbom.cdx.json")
"""Files of a bundle that tell of the plan, and of what became of other variants."""


def python_of(bundle: Path) -> Path:
    """The interpreter of a cached environment that holds a bundle's requirements."""
    return environment((bundle / "requirements.txt").read_text("utf-8"), cache_root() / "environments")


def project_with(factory: pytest.TempPathFactory, name: str, command: Sequence[str], specs: Mapping[str, str]) -> Path:
    """A project with what a program of tests/support makes of a directory, made once per session, and with specs."""

    def make(root: Path) -> None:
        subprocess.run([sys.executable, *command, str(root)], check=True, capture_output=True, cwd=ROOT)
        for file, text in specs.items():
            (root / file).write_text(text, "utf-8")
        (root / ".git").mkdir()

    return shared(factory, name, make)


def what_runs(bundle: Path) -> list[str]:
    """The lines of SHA256SUMS that are of what is run and measured."""
    lines = (bundle / "SHA256SUMS").read_text("utf-8").splitlines()
    return [line for line in lines if line.split("  ", 1)[1] not in TOLD]


def loader(
    python: Path, bundle: Path, *arguments: str | Path, program: str = "loader.py"
) -> subprocess.CompletedProcess[str]:
    """A bundle's own program in an environment; nothing of this process's environment reaches its imports."""
    return subprocess.run(
        [str(python), "-E", "-s", "-B", str(bundle / "runtime" / program), *map(str, arguments)],
        cwd=bundle,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    """The result on stdout of a loader that succeeded."""
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["ok"] is True
    return document["result"]


def refusal(done: subprocess.CompletedProcess[str], code: str) -> str:
    """The message of a loader that refused."""
    assert done.returncode != 0, done.stdout
    document = json.loads(done.stdout)
    assert document["ok"] is False
    assert document["error"]["code"] == code, document
    return str(document["error"]["message"])
