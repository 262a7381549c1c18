"""Whether builds agree on a winner: so many builds of one spec, each with measurements of its own.

    .venv/bin/python tests/benchmarks/winner.py specs/bert.yaml -t cpu
    .venv/bin/python tests/benchmarks/winner.py --planted

Run it on a quiet machine. The exit code is 0 where every build ships the same variant, or one that is tied with others
and takes the least; with `--planted` also where the variant that is 1.3 times faster wins every build.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ortc.common.resources import cache_root

WIDTH, ROWS, LAYERS, TWICE = 768, 64, 10, 3
"""Of the planted model: every layer is one product of matrices, and so many of them are computed twice."""
PLANTED = "planted"
PROFILE = """\
apiVersion: ortc/v1alpha1
kind: TargetProfile
name: planted
description: Two variants, of which one leaves out what the other computes twice
platforms: [linux/amd64, linux/arm64]
runtime: {package: onnxruntime, version: "1.31.1", minimum_version: "1.31.0", pins: onnxruntime}
execution_providers: [{name: CPUExecutionProvider}]
precision: fp32
variants:
  - name: plain
    precision: fp32
    config_entries: {optimization.disable_specified_optimizers: CommonSubexpressionElimination}
  - {name: planted, precision: fp32}
graph_levels: [all]
image: {base_image: "python:3.12-slim", python: "3.12"}
"""
SPEC = """\
apiVersion: ortc/v1alpha1
kind: ModelDeployment
name: planted
version: 1.0.0
model: {source: onnx, path: planted.onnx}
export: {opset: 17, dynamic_axes: {rows: {min: 1, typical: 64, max: 64}}}
accuracy: {max_abs: 1e-3}
targets:
  planted: {unmeasured: allow, latency_budget: {p99: 60s}}
"""


def main() -> int:
    """Build, count, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", type=Path, nargs="?")
    parser.add_argument("--planted", action="store_true", help="a model of which one variant is 1.3 times faster")
    parser.add_argument("--builds", type=int, default=10)
    parser.add_argument("--target", "-t", help="of the spec; by default its only one")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    if arguments.planted == (arguments.spec is not None):
        parser.error("give a spec, or --planted")
    with tempfile.TemporaryDirectory(prefix="ortc-winner-") as scratch:
        spec = plant(Path(scratch)) if arguments.planted else arguments.spec
        options = [*(["-t", arguments.target] if arguments.target else []), *sets(arguments.set)]
        found = [build(spec, Path(scratch) / str(index), options) for index in range(arguments.builds)]
    for target in found:
        sys.stdout.write(f"{target['variant']}, tied: {', '.join(target['tied']) or 'none'}\n")
    problem = judge(found, PLANTED if arguments.planted else None)
    sys.stdout.write(f"{problem or 'the builds agree'}\n")
    return 1 if problem else 0


def sets(values: list[str]) -> list[str]:
    """The same overrides as options of `ortc build`."""
    return [word for value in values for word in ("--set", value)]


def judge(found: list[dict[str, Any]], planted: str | None) -> str | None:
    """What is wrong with the winners of several builds; None where they are stable."""
    winners = Counter(str(target["variant"]) for target in found)
    if planted is not None and winners.keys() != {planted}:
        return f"{planted} is 1.3 times faster and won {winners[planted]} of {len(found)} builds"
    if len(winners) == 1:
        return None
    sizes = {target["variant"]: target["footprint"]["environment_bytes"] for target in found}
    least = min(sizes.values())
    loose = [target for target in found if not (target["tied"] and sizes[target["variant"]] == least)]
    return None if len({target["variant"] for target in loose}) <= 1 else f"winners differ: {dict(winners)}"


def build(spec: Path, place: Path, options: list[str]) -> dict[str, Any]:
    """The only target of a report, of a build with an empty cache; runtime environments are shared."""
    (cache_root() / "environments").mkdir(parents=True, exist_ok=True)
    (place / "cache").mkdir(parents=True)
    (place / "cache" / "environments").symlink_to(cache_root() / "environments")
    environment = {**os.environ, "ORTC_CACHE_DIR": str(place / "cache"), "ORTC_CACHE_URL": ""}
    command = [sys.executable, "-m", "ortc", "build", str(spec), "-o", str(place / "dist"), *options]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    reports = sorted((place / "dist").glob("*/*.report.json"))
    if not reports:
        raise SystemExit(f"the build ended with {done.returncode}: {done.stdout[-2000:]}")
    (target,) = json.loads(reports[0].read_text("utf-8"))["targets"]
    return dict(target)


def plant(place: Path) -> Path:
    """A project with a model whose planted variant leaves out products that the other one computes twice."""
    random = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for index in range(LAYERS):
        weights.append(
            numpy_helper.from_array((random.standard_normal((WIDTH, WIDTH)) / 28).astype(np.float32), f"w{index}")
        )
        nodes.append(helper.make_node("MatMul", [last, f"w{index}"], [f"a{index}"], name=f"product-{index}"))
        if index < TWICE:
            nodes.append(helper.make_node("MatMul", [last, f"w{index}"], [f"b{index}"], name=f"again-{index}"))
            nodes.append(helper.make_node("Max", [f"a{index}", f"b{index}"], [f"c{index}"], name=f"larger-{index}"))
        last = f"c{index}" if index < TWICE else f"a{index}"
    nodes.append(helper.make_node("Tanh", [last], ["y"], name="tanh"))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", WIDTH]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "planted", values[:1], values[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    (place / "targets").mkdir()
    (place / "pyproject.toml").touch()
    (place / "targets" / "planted.yaml").write_text(PROFILE, "utf-8")
    (place / "planted.yaml").write_text(SPEC, "utf-8")
    onnx.save(model, place / "planted.onnx")
    return place / "planted.yaml"


if __name__ == "__main__":
    sys.exit(main())
