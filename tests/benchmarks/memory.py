"""Peak memory of a build, process by process: a model above 2 GB, and a BERT-base calibrated on 512 samples.

    python tests/benchmarks/memory.py large|calibration

Takes 15 GB of disk in the temporary directory, removed at the end, and a quarter of an hour each. What was seen goes to
tests/benchmarks/data/FINGERPRINT/memory-STEP.json. Memory is VmHWM of /proc: with the pages of files that are mapped.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from records import place, write

from ortc.build.context import executed, tool_versions
from ortc.build.model import build_model
from ortc.build.progress import Progress
from ortc.build.variant import VariantBuilder
from ortc.common.arrays import write_arrays
from ortc.common.resources import cache_root
from ortc.execution.action_cache import Store
from ortc.execution.host import describe
from ortc.plan.resolve import resolve

Json = dict[str, Any]
INTERVAL = 0.02
"""Seconds between two looks at the processes."""
SAMPLES = 512
"""Requests that ranges are found with."""
SEQUENCE = 128
BERT = {"architectures": ["BertModel"], "model_type": "bert"}
WIDE = {**BERT, "hidden_size": 2560, "num_hidden_layers": 6, "num_attention_heads": 20, "intermediate_size": 10240}
"""560 million parameters."""


def main() -> int:
    """Run one step.

    Returns:
        What the build does.
    """
    step = sys.argv[1] if len(sys.argv) == 2 else ""
    steps: dict[str, Callable[[Path], tuple[int, Json]]] = {"large": large, "calibration": calibration}
    if step not in steps:
        sys.stderr.write(__doc__ or "")
        return 2
    with tempfile.TemporaryDirectory(prefix="ortc-memory-") as name:
        root = Path(name)
        (root / "pyproject.toml").touch()
        environments = cache_root() / "environments"
        environments.mkdir(parents=True, exist_ok=True)
        (root / "cache").mkdir()
        (root / "cache" / "environments").symlink_to(environments)
        code, found = steps[step](root)
    host = describe()
    document = {"host": host.model_dump(mode="json"), "versions": tool_versions(), **found}
    write(place(host.fingerprint(), "memory", step), document)
    return code


def spec(root: Path, config: Json, axes: Json, **accuracy: Any) -> Path:
    """A spec of seeded weights, in a project."""
    (root / "model").mkdir()
    (root / "model" / "config.json").write_text(json.dumps(config), "utf-8")
    path = root / "spec.yaml"
    document = {
        "apiVersion": "ortc/v1alpha1",
        "kind": "ModelDeployment",
        "name": "memory",
        "version": "1.0.0",
        "model": {"source": "huggingface", "path": "model", "weights": "random"},
        "export": {"dynamic_axes": axes, "outputs": ["last_hidden_state"]},
        "accuracy": {"max_abs": 1e-3, **accuracy},
        "targets": {"cpu": {"precision": "auto", "latency_budget": {"p99": "60s"}}},
    }
    # JSON is YAML.
    path.write_text(json.dumps(document), "utf-8")
    return path


def large(root: Path) -> tuple[int, Json]:
    """Build a model of more than 2 GB to a bundle in fp32, and its graph in INT8."""
    axes = {"batch": {"min": 1, "typical": 1, "max": 2}, "sequence": {"min": 1, "typical": 8, "max": 16}}
    path = spec(root, WIDE, axes)
    found: Json = {}
    for variant in ("fp32", "int8-dynamic"):
        command = [sys.executable, "-m", "ortc", "build", str(path), "--search", "none", "--variant", variant]
        code, seconds, peaks = watched([*command, "-o", str(root / "dist")], root)
        report = json.loads((root / "dist" / "memory" / "1.0.0.report.json").read_bytes())
        target: Json = next(iter(report.get("targets") or ()), {})
        found[variant] = {
            "exit_code": code,
            "seconds": round(seconds),
            "model_bytes": target.get("model_bytes"),
            "verdicts": target.get("verdicts"),
            "stages": report.get("stages"),
            "error": report.get("error") or target.get("error"),
            "processes": peaks,
        }
        weights = found["fp32"]["model_bytes"] or 1
        found[variant]["greatest_over_weights"] = round(max(peaks.values(), default=0) / weights, 2)
        say(variant, found[variant])
        if code:
            return code, found
    return 0, found


def calibration(root: Path) -> tuple[int, Json]:
    """Make the static INT8 variant of a BERT-base, calibrated on 512 requests of 128 tokens."""
    axes = {"batch": {"min": 1, "typical": 1, "max": 2}, "sequence": {"min": 1, "typical": SEQUENCE, "max": SEQUENCE}}
    generator = np.random.default_rng(0)
    # Every other sample is what variants are judged by.
    shape = (2 * SAMPLES, SEQUENCE)
    ones = np.ones(shape, np.int64)
    arrays = {"input_ids": generator.integers(0, 30522, shape), "attention_mask": ones, "token_type_ids": ones * 0}
    write_arrays(root / "samples.npz", arrays)
    path = spec(root, BERT, axes, samples="samples.npz")
    code, seconds, peaks = watched([sys.executable, __file__, "--make", str(path), "int8-static"], root)
    found = {
        "exit_code": code,
        "seconds": round(seconds),
        "samples": SAMPLES,
        "sequence": SEQUENCE,
        "processes": peaks,
        "greatest": max(peaks.values(), default=0),
    }
    say("calibration", found)
    return code, found


def make(path: Path, name: str) -> None:
    """Make one variant of a spec, without judging it: the stages of a build up to there."""
    from ortc.plan.checks import check_spec

    checked = check_spec(path)
    plan = resolve(checked.loaded.spec, checked.profiles, search="none", variant=name)
    with executed(plan, checked.loaded.root, Store(cache_root()), Progress()) as context:
        model = build_model(context)
        context.reference.end()
        (target,) = context.plan.targets
        made = VariantBuilder(context, model, target).make(target.variants[0], target.graph_levels[0])
        if made.failed is not None:
            raise SystemExit(made.failed.observed)


def watched(command: list[str], root: Path) -> tuple[int, float, Json]:
    """Run a command to its end: its exit code, its seconds, and the most bytes that each kind of its processes held."""
    begin = time.monotonic()
    environment = {**os.environ, "ORTC_CACHE_DIR": str(root / "cache"), "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
    process = subprocess.Popen(command, cwd=root, env=environment)
    peaks: dict[int, tuple[str, int]] = {}
    while process.poll() is None:
        for pid in descendants(process.pid):
            if (seen := peak(pid)) is not None and seen[1] >= peaks.get(pid, ("", 0))[1]:
                peaks[pid] = seen
        time.sleep(INTERVAL)
    kinds: dict[str, int] = {}
    for kind, size in peaks.values():
        kinds[kind] = max(size, kinds.get(kind, 0))
    return process.returncode, time.monotonic() - begin, dict(sorted(kinds.items()))


def descendants(pid: int) -> list[int]:
    """A process and all that it started, directly or not."""
    found, pending = [], [pid]
    while pending:
        found.append(pending.pop())
        try:
            pending += map(int, Path(f"/proc/{found[-1]}/task/{found[-1]}/children").read_text("ascii").split())
        except OSError:
            continue
    return found


def peak(pid: int) -> tuple[str, int] | None:
    """What a process is, and the most bytes that it held resident; None when it has ended."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        status = Path(f"/proc/{pid}/status").read_text("utf-8")
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    if found is None:
        return None
    named = next((word for word in arguments[1:] if word.startswith("ortc") or word.endswith(".py")), "")
    kind = Path(named).name if named.endswith(".py") else named
    if kind == "loader.py":
        kind = "worker (loader.py)"
    return kind or "other", int(found[1]) * 1024


def say(name: str, found: Json) -> None:
    """What was seen, on stderr."""
    sys.stderr.write(f"{name}: exit code {found['exit_code']} in {found['seconds']} s\n")
    for kind, size in found["processes"].items():
        sys.stderr.write(f"  {kind:<32} {size / 1e9:.2f} GB\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--make"]:
        make(Path(sys.argv[2]), sys.argv[3])
        sys.exit(0)
    sys.exit(main())
