"""Attaching measurements of devices: their memory, and the nodes that they left to the CPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.bundles import edit_json, runtime_module, seal
from tests.support.measurements import NAME, Write
from tests.support.whole_bundles import whole_bundle

from ortc.__main__ import run
from ortc.bundle.attach import attach
from ortc.common.errors import StageError

measure, nvml = runtime_module("measure"), runtime_module("nvml")


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this host has what the test wants missing")
def test_without_a_driver_nothing_is_said_of_device_memory() -> None:
    assert nvml.used_bytes() is None
    peak = measure.DevicePeak()
    peak.look()
    assert peak.bytes is None


def test_the_most_device_memory_that_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = iter([100, 700, 400])
    monkeypatch.setattr(nvml, "used_bytes", lambda: next(seen))
    peak = measure.DevicePeak()
    for _ in range(2):
        peak.look()
    assert peak.bytes == 600


@pytest.mark.parametrize(
    ("peak", "limit"),
    [(None, None), (0, None), (1, 64 * 2**20), (64 * 2**20, 128 * 2**20), (1_000_000_000, 17 * 64 * 2**20)],
)
def test_the_limit_that_follows_from_device_memory(
    bundle: Path, write: Write, capsys: pytest.CaptureFixture[str], peak: int | None, limit: int | None
) -> None:
    file = write(peak_device_bytes=peak, copies=None if peak is None else {"MemcpyToHost": 2, "MemcpyFromHost": 1})
    assert run(["attach", str(bundle), str(file)]) == 0
    said = capsys.readouterr().out
    assert ("gpu_mem_limit" in said) == (limit is not None)
    if limit is not None:
        assert f'gpu_mem_limit: "{limit}"' in said
    assert ("1 MemcpyFromHost, 2 MemcpyToHost" in said) == (peak is not None)
    kept = json.loads((bundle / NAME).read_bytes())
    assert kept["numbers"]["peak_device_bytes"] == kept["attached"]["peak_device_bytes"] == peak


def test_a_measurement_of_an_older_bundle_says_nothing_of_devices(bundle: Path, write: Write) -> None:
    """What bundles wrote before they looked at device memory."""
    document = json.loads(write().read_bytes())
    assert not {"peak_device_bytes", "copies"} & document.keys()
    done = attach(bundle, write())
    assert (done.gpu_mem_limit, done.copies) == (None, None)


CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


@pytest.fixture
def on_cuda(tmp_path: Path) -> Path:
    """A bundle for CUDA that allows one node on the CPU and two copies."""
    root = whole_bundle(tmp_path / "gpu")
    edit_json(root / "session.json", providers=[{"name": name, "options": {}} for name in (CUDA, CPU)])
    placement = {
        "max_cpu_nodes": 1,
        "max_memcpy_nodes": 2,
        "shape_nodes": {"Concat": ["a", "b"], "Gather": list("cdefg")},
    }
    edit_json(root / "manifest.json", placement=placement)
    return seal(root)


def left(nodes: int, shape_nodes: int, **changes: Any) -> dict[str, Any]:
    """What a measurement says of its placement."""
    fallback = {"nodes": nodes, "shape_nodes": shape_nodes, "named": ["Tanh 'x'"] * nodes}
    placement = {CUDA: 40, CPU: nodes + shape_nodes}
    return {"providers": [CUDA, CPU], "placement": placement, "fallback": fallback, **changes}


@pytest.mark.parametrize(
    ("changes", "cpu", "copies"),
    [
        (left(1, 7, copies={"MemcpyToHost": 2}), "pass", "pass"),
        (left(2, 7, copies={"MemcpyToHost": 2, "MemcpyFromHost": 1}), "fail", "fail"),
        (left(0, 0, copies={}), "pass", "pass"),
        (left(0, 0, copies=None), "pass", "unmeasured"),
        # Before the two were told apart every node on the CPU was counted.
        (left(1, 1, fallback=None, copies={}), "fail", "pass"),
    ],
)
def test_placement_is_judged_without_what_computes_shapes(
    on_cuda: Path, write: Write, changes: dict[str, Any], cpu: str, copies: str
) -> None:
    done = attach(on_cuda, write(of=on_cuda, **changes))
    found = {verdict.gate: verdict for verdict in done.verdicts}
    assert (found["cpu_nodes"].outcome, found["memcpy_nodes"].outcome) == (cpu, copies)
    if changes["fallback"] is not None and changes["fallback"]["shape_nodes"]:
        assert found["cpu_nodes"].observed.endswith("(7 more compute shapes)")


def test_what_was_left_to_the_cpu_is_shown(on_cuda: Path, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["attach", str(on_cuda), str(write(of=on_cuda, **left(1, 7, copies={})))]) == 0
    assert "on the CPU: nodes that compute shapes 7, others 1 (Tanh 'x')\n" in capsys.readouterr().out


def test_counts_that_do_not_add_up_are_refused(on_cuda: Path, write: Write) -> None:
    with pytest.raises(StageError, match="it has 8 nodes that compute shapes, the manifest names 7"):
        attach(on_cuda, write(of=on_cuda, **left(0, 8)))
    named = left(0, 7) | {"fallback": {"nodes": 0, "shape_nodes": 7, "named": ["Conv 'x'"]}}
    with pytest.raises(StageError, match="names 1 of 0 nodes on the CPU"):
        attach(on_cuda, write(of=on_cuda, **named))
    changes = left(1, 7) | {"placement": {CUDA: 40, CPU: 9}}
    with pytest.raises(StageError, match="tells 1 nodes and 7 for shapes apart, of 9 on the CPU"):
        attach(on_cuda, write(of=on_cuda, **changes))
