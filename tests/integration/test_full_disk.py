"""A disk without room: a clear message, nothing lost, and the next build goes on when there is room again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.builds import CALIBRATED, Build, Compiler, snapshot

from ortc.common.units import format_bytes

pytestmark = pytest.mark.integration

SPEC = "specs/digits.yaml"
MOUNT = shutil.which("mount")


@dataclass(frozen=True)
class Disk:
    """A small file system of its own."""

    place: Path

    def leave(self, free: int) -> None:
        """Make it so large that this many bytes can still be written, to the page."""
        status = os.statvfs(self.place)
        used = (status.f_blocks - status.f_bfree) * status.f_frsize
        self._remount(used + free)

    def enlarge(self) -> None:
        self._remount(200 * 2**20)

    def _remount(self, size: int) -> None:
        subprocess.run([str(MOUNT), "-o", f"remount,size={size}", str(self.place)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    place = tmp_path / "disk"
    place.mkdir()
    if MOUNT is None:
        pytest.skip("no `mount` here")
    command = [MOUNT, "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"cannot mount a small file system: {done.stderr.strip() or done.returncode}")
    try:
        yield Disk(place)
    finally:
        subprocess.run([str(shutil.which("umount")), str(place)], check=True)


@pytest.fixture
def seeded(calibrated: Build, digits_compiler: Compiler) -> Callable[[Path], Compiler]:
    """A compiler that has done all but one cheap stage: the edge target's quantized graph, and what follows from it."""
    calibrated.succeeded()

    def seed(cache: Path) -> Compiler:
        shutil.copytree(digits_compiler.cache, cache, symlinks=True, dirs_exist_ok=True)
        found = 0
        for path in (cache / "actions").iterdir():
            record = json.loads(path.read_bytes())
            if record["stage"] == "variant" and "edge: int8-static" in record["subject"]:
                path.unlink()
                found += 1
        assert found
        return Compiler(cache)

    return seed


def bundles(calibrated: Build, output: Path) -> dict[str, tuple[str, int]]:
    """Bundles that were there before."""
    shutil.copytree(calibrated.output, output, dirs_exist_ok=True)
    return snapshot(output / "digits" / "1.0.0")


def assert_intact(output: Path, before: dict[str, tuple[str, int]]) -> None:
    assert snapshot(output / "digits" / "1.0.0") == before
    for bundle in (output / "digits" / "1.0.0").iterdir():
        if bundle.is_dir():
            check = [str(shutil.which("sha256sum")), "--check", "--strict", "--quiet", "SHA256SUMS"]
            subprocess.run(check, cwd=bundle, check=True)
    assert [*output.rglob(".*.new*"), *output.rglob(".*.old*")] == []


def told(build: Build) -> str:
    """All that a build said, in one line."""
    return " ".join((build.stderr + build.stdout).split())


def test_the_cache_is_full(calibrated: Build, seeded: Callable[[Path], Compiler], disk: Disk, tmp_path: Path) -> None:
    before, compiler = bundles(calibrated, tmp_path / "dist"), seeded(disk.place)
    disk.leave(100_000)
    build = compiler.build(SPEC, *CALIBRATED, output=tmp_path / "dist")
    assert "Traceback" not in build.failed(4)
    assert f"no room for the cache in {disk.place}" in told(build)
    assert "183.6 kB are needed" in told(build), "the graph that is to be quantized"
    assert "ortc cache prune" in told(build)
    assert_intact(tmp_path / "dist", before)
    disk.enlarge()
    build = compiler.build(SPEC, *CALIBRATED, output=tmp_path / "dist").succeeded()
    # All that was done before is there, and nothing was taken for a property of the model.
    ran = {entry["stage"] for entry in build.report("digits")["stages"] if not entry["cached"]}
    assert ran == {"fetch", "variant"}
    assert_intact(tmp_path / "dist", before)


@pytest.mark.parametrize(
    "free",
    [
        pytest.param(50_000, marks=pytest.mark.proof("test_the_place_of_bundles_is_full with more room")),
        # The graph alone would fit; what comes with it does not.
        160_000,
    ],
)
def test_the_place_of_bundles_is_full(
    calibrated: Build, seeded: Callable[[Path], Compiler], disk: Disk, tmp_path: Path, free: int
) -> None:
    before, compiler = bundles(calibrated, disk.place), seeded(tmp_path / "cache")
    options = (*CALIBRATED[:-1], "targets.edge.latency_budget.p99=61s")
    graph = format_bytes(calibrated.report("digits")["targets"][0]["model_bytes"])
    disk.leave(free)
    build = compiler.build(SPEC, *options, output=disk.place)
    build.failed(4)
    assert f"no room for bundles in {disk.place}/digits/1.0.0: {graph} are needed" in told(build)
    assert "what was there before is untouched" in told(build)
    assert_intact(disk.place, before)
    disk.enlarge()
    compiler.build(SPEC, *options, output=disk.place).succeeded()
    assert snapshot(disk.place / "digits" / "1.0.0") != before


LESS = pytest.mark.proof("test_the_place_of_temporary_files_is_full with more room")


@pytest.mark.parametrize("free", [pytest.param(4_096, marks=LESS), pytest.param(20_000, marks=LESS), 50_000])
def test_the_place_of_temporary_files_is_full(
    calibrated: Build, seeded: Callable[[Path], Compiler], disk: Disk, tmp_path: Path, free: int
) -> None:
    """Too small for anything, for what the quantizer writes, and for what ONNX Runtime's optimizer writes."""
    before, compiler = bundles(calibrated, tmp_path / "dist"), seeded(tmp_path / "cache")
    environment = {**compiler.environment(), "TMPDIR": str(disk.place)}
    disk.leave(free)
    build = compiler.build(SPEC, *CALIBRATED, output=tmp_path / "dist", env=environment)
    build.failed(4)
    assert f"no room for temporary files in {disk.place}" in told(build)
    assert "$TMPDIR" in told(build)
    assert_intact(tmp_path / "dist", before)
    assert list(disk.place.iterdir()) == []
    disk.enlarge()
    compiler.build(SPEC, *CALIBRATED, output=tmp_path / "dist", env=environment).succeeded()
    assert_intact(tmp_path / "dist", before)
