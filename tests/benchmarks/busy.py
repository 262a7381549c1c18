"""Builds of a tiny classifier beside busy loops: no gate may pass on a ratio that a quiet machine contradicts.

    python tests/benchmarks/busy.py [--builds 20] [--loops 4] [--quiet-with "chrt --fifo 10"]

One build on a quiet machine gives the ratio to PyTorch; where it is noisy it is tried again. Then come builds with
fresh measurements beside the loops. Exits with 1 when a gate passed on a wrong ratio, and with 7 when the machine was
never quiet. `--quiet-with` goes before the command of the quiet build, for machines that others use at the same time.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ortc.common.resources import cache_root
from ortc.common.statistics import Interval
from ortc.execution.processes import own_environment, own_module

ATTEMPTS = 5
TOO_BUSY = 7
MODULE = """
import torch

def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 32))
"""
SPEC = """
apiVersion: ortc/v1alpha1
kind: ModelDeployment
name: tiny
version: 1.0.0
model: {source: pytorch, entrypoint: "tiny_classifier:build", weights: random}
export:
  opset: 20
  dynamic_axes: {batch: {min: 1, typical: 8, max: 16}}
  inputs: {x: {dtype: float32, shape: [batch, 64]}}
targets:
  cpu: {precision: fp32, latency_budget: {p99: 20ms, at: {batch: 8}}, min_speedup: 1.0}
"""


def write_project(root: Path) -> Path:
    """A project with the classifier; returns its spec."""
    (root / "tiny_classifier.py").write_text(MODULE, "utf-8")
    (root / "pyproject.toml").write_text('[project]\nname = "tiny"\nversion = "0"\n', "utf-8")
    (root / "spec.yaml").write_text(SPEC, "utf-8")
    return root / "spec.yaml"


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Other load, in as many processes."""
    with ExitStack() as stack:
        for _ in range(count):
            process = subprocess.Popen([sys.executable, "-P", "-c", "while True: pass"])
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield


def build(spec: Path, prefix: Sequence[str] = ()) -> dict[str, Any]:
    """A build with fresh measurements: the report's only target.

    Raises:
        RuntimeError: it failed for another reason than its times.
    """
    output = spec.parent / "dist"
    command = [*prefix, *own_module("ortc", "build", str(spec), "--remeasure", "--search", "none", "-o", str(output))]
    environment = {
        **os.environ,
        **own_environment(),
        "ORTC_CACHE_DIR": str(spec.parent / "cache"),
        "ORTC_CACHE_URL": "",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 6, TOO_BUSY):
        raise RuntimeError(f"exit code {done.returncode}\n{done.stderr}")
    (target,) = json.loads((output / "tiny/1.0.0.report.json").read_bytes())["targets"]
    found: dict[str, Any] = target
    return found


def contradicts(target: dict[str, Any], quiet: float) -> bool:
    """Whether a gate of a build passed on a ratio whose interval excludes the quiet machine's ratio."""
    passed = [entry["gate"] for entry in target["verdicts"] if entry["outcome"] == "pass"]
    ratio = Interval.model_validate(target["numbers"]["speedup"])
    return "speed-up" in passed and not (ratio.low or 0.0) <= quiet <= (ratio.high or float("inf"))


def told(target: dict[str, Any]) -> str:
    """One build in a line."""
    numbers = target["numbers"]
    ratio = numbers["speedup"]
    timed = {e["gate"]: e["outcome"] for e in target["verdicts"] if e["gate"].startswith(("latency", "speed-up"))}
    medians = f"eager {numbers['eager_p50_ms']['value']:.4f} ms, bundle {numbers['p50_ms']['value']:.4f} ms"
    bounds = f"[{ratio['low']:.2f}, {ratio['high']:.2f}]"
    return f"{ratio['value']:.2f}x {bounds}, {medians}, control {numbers['control']}: {timed}"


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def quiet_ratio(spec: Path, prefix: Sequence[str]) -> float | None:
    """The ratio to PyTorch on a quiet machine; None when it never was one."""
    for _ in range(ATTEMPTS):
        target = build(spec, prefix)
        say(f"quiet: {told(target)}")
        numbers = target["numbers"]
        if numbers["control"] == "quiet" and not numbers["speedup_noise"]:
            return float(numbers["speedup"]["value"])
        say(f"  {numbers['speedup_noise'] or numbers['start_noise']}")
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the builds.

    Returns:
        0; 1 when a gate passed on a wrong ratio; 7 when the machine was never quiet.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--builds", type=int, default=20)
    parser.add_argument("--loops", type=int, default=4)
    parser.add_argument("--quiet-with", default="", metavar="COMMAND")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="busy-") as scratch:
        spec = write_project(Path(scratch))
        environments = cache_root() / "environments"
        environments.mkdir(parents=True, exist_ok=True)
        (spec.parent / "cache").mkdir()
        (spec.parent / "cache" / "environments").symlink_to(environments)
        quiet = quiet_ratio(spec, shlex.split(arguments.quiet_with))
        if quiet is None:
            say("this machine is too busy to measure")
            return TOO_BUSY
        wrong = 0
        with busy_loops(arguments.loops):
            for number in range(arguments.builds):
                target = build(spec)
                wrong += contradicts(target, quiet)
                say(f"{number + 1} of {arguments.builds}: {told(target)}")
    say(f"quiet ratio {quiet:.2f}x; {wrong} of {arguments.builds} builds passed on a ratio that excludes it")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
