"""Options and guards for all tests."""

import gc
import os
import socket
import subprocess
import sys
from pathlib import Path
from shutil import disk_usage
from typing import Any, NoReturn

import pytest
from hypothesis import settings
from tests.support.examples import examples
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from ortc.common.permissions import withdraw

TESTS = Path(__file__).parent

gc.disable()  # until all tests are imported; see pytest_collection_finish

MEMORY = Path("/dev/shm")  # noqa: S108  # files of tests alone, in directories of pytest's own
ENOUGH = 2 * 2**30
if os.environ.get("ORTC_TESTS") == "fast" and os.access(MEMORY, os.W_OK) and disk_usage(MEMORY).free > ENOUGH:
    # ext4 gives nobody the inode of a file deleted in the last five seconds, and looks through all of those for a free
    # one: thousands of tests that make a hundred small files each and delete them take twice the time.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

# How long an example takes says more of the machine's other work than of the code.
settings.register_profile("ortc", deadline=None, max_examples=examples(100))
settings.load_profile("ortc")

# jsonschema imports it for formats that no schema here has; to compile its grammars takes six seconds.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


TOGETHER = {
    "test_full_disk.py",
    "test_incremental.py",
    "test_plan_file.py",
    "test_registry.py",
    "test_samples.py",
    "test_supply_chain.py",
}
"""Files of tests/integration that build into one output with one cache: one process runs them all."""

LONG = (
    "test_fusion.py",
    "test_stale_models.py",
    "test_answers.py",
    "test_architectures.py",
    "test_images.py",
    "test_diff.py",
    "test_sources.py",
    "test_sensitivity.py",
    "test_gpu_bundles.py",
    "test_search.py",
    "test_web.py",
    "test_interrupted.py",
    "test_gates.py",
    "test_export.py",
    "test_bundles_run.py",
)
"""Files of tests/integration that take longest. The first ones need no build that the files above make for all."""


class ByFile(LoadScopeScheduling):
    """A worker takes all tests of a file, or of the files that belong together."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "together" if file.rpartition("/")[2] in TOGETHER else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile | None:
    return ByFile(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the proofs or all others; run the slow tests first, so that no worker waits for another at the end.

    Of files that take longest, the ones that belong together come first.
    """
    wanted, others = [], []
    for item in items:
        mark = item.get_closest_marker("proof")
        if mark is not None and not (mark.args and str(mark.args[0]).strip()):
            raise pytest.UsageError(f"{item.nodeid}: `proof` needs the test of `make test` that proves the same")
        (wanted if (mark is not None) == config.getoption("--proofs") else others).append(item)
    if others:
        config.hook.pytest_deselected(items=others)
    items[:] = sorted(wanted, key=lambda item: ("integration" not in item.path.parts, _turn(item.path.name)))


def _turn(file: str) -> int:
    """When a file of tests/integration has its turn: those of one turn in the order of their names."""
    if file in TOGETHER:
        return 0
    return 1 + (LONG.index(file) if file in LONG else len(LONG))


def pytest_collection_finish() -> None:
    """Whatever importing has made stays: no search for garbage needs to look through it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="Rewrite the expected files of golden tests.")
    parser.addoption("--proofs", action="store_true", help="Run the tests that are marked `proof`, and no others.")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether expected files are rewritten instead of compared."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(autouse=True)
def _nothing_granted() -> None:
    """What one test allows specs, the next does not."""
    withdraw()


@pytest.fixture(autouse=True)
def _alone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unit tests touch no network and start no process: what they prove holds on any machine."""
    if TESTS / "unit" not in request.path.parents:
        return

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise RuntimeError("unit tests may not use the network or start processes; see tests/conftest.py")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    monkeypatch.setattr(os, "system", refuse)
    monkeypatch.setattr(os, "posix_spawn", refuse)
