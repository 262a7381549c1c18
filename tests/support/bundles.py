"""Tiny real bundles for the tests of the loader and the server, laid out as docs/bundle.md says."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnx.reference
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ortc.spec.runtimes import pins

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before any test imports onnxruntime
RUNTIME = Path(__file__).resolve().parents[2] / "templates" / "runtime"
STAMP = 315532800
Arrays = dict[str, NDArray[Any]]


def runtime_module(name: str) -> ModuleType:
    """A module of templates/runtime (`loader`, `serving.protocol`), imported as in a bundle: from its own directory."""
    if str(RUNTIME) not in sys.path:
        sys.path.insert(0, str(RUNTIME))
    return importlib.import_module(name)


def linear_model(seed: int = 0) -> onnx.ModelProto:
    """y = x @ w + b over x [batch, 4], scaled by a gate [batch]; label = arg max of y."""
    random = np.random.default_rng(seed)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["xw"], name="matmul"),
            helper.make_node("Add", ["xw", "b"], ["scores"], name="add"),
            helper.make_node("Tanh", ["scores"], ["y"], name="tanh"),
            helper.make_node("ArgMax", ["y"], ["label"], name="argmax", axis=1, keepdims=0),
        ],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3]),
            helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"]),
        ],
        [
            numpy_helper.from_array(random.standard_normal((4, 3)).astype(np.float32), "w"),
            numpy_helper.from_array(random.standard_normal(3).astype(np.float32), "b"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def text_model(seed: int = 0) -> onnx.ModelProto:
    """hidden = table[ids] * mask over ids and mask [batch, sequence]: an encoder's interface in three nodes."""
    random = np.random.default_rng(seed)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["rows"], name="gather"),
            helper.make_node("Cast", ["mask"], ["floats"], name="cast", to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["floats", "last"], ["wide"], name="unsqueeze"),
            helper.make_node("Mul", ["rows", "wide"], ["hidden"], name="mul"),
        ],
        "text",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in ("ids", "mask")],
        [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["batch", "sequence", 8])],
        [
            numpy_helper.from_array(random.standard_normal((50, 8)).astype(np.float32), "table"),
            numpy_helper.from_array(np.array([-1], dtype=np.int64), "last"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def starts_processes() -> bool:
    """Whether the test that runs may start processes; tests/conftest.py says which may."""
    return "tests/unit/" not in os.environ.get("PYTEST_CURRENT_TEST", "")


@dataclass
class Recipe:
    """What a bundle is made of; change a field and `write` it."""

    model: onnx.ModelProto
    manifest: dict[str, Any]
    session: dict[str, Any]
    golden: list[Arrays] = field(default_factory=list)
    external_data: bool = False
    runs: bool = field(default_factory=starts_processes)
    """Whether its programs can be started. Where a test may not, they lie there without the packages that they import,
    which are most of a bundle's files."""

    def write(self, root: Path) -> Path:
        """The bundle as a directory, its golden outputs by onnx's reference implementation, digests and stamp right."""
        for name in ("model", "golden", "runtime"):
            (root / name).mkdir(parents=True)
        if self.external_data:
            copied = onnx.ModelProto.FromString(self.model.SerializeToString())  # saving moves the weights out of it
            path = root / "model/model.onnx"
            onnx.save(copied, path, save_as_external_data=True, location="model.onnx.data", size_threshold=1024)
        else:
            onnx.save(self.model, root / "model/model.onnx")
        reference = onnx.reference.ReferenceEvaluator(self.model)
        names = [output.name for output in self.model.graph.output]
        for index, inputs in enumerate(self.golden):
            np.savez(root / f"golden/{index}.inputs.npz", **inputs)  # type: ignore[arg-type]
            answers = dict(zip(names, reference.run(None, inputs), strict=True))
            np.savez(root / f"golden/{index}.outputs.npz", **answers)
        left_out = shutil.ignore_patterns("__pycache__", *(() if self.runs else ("loading", "processing", "serving")))
        shutil.copytree(RUNTIME, root / "runtime", ignore=left_out, dirs_exist_ok=True)
        (root / "requirements.txt").write_text("numpy\nonnxruntime\n")
        write_json(root / "session.json", self.session)
        write_json(root / "manifest.json", self.manifest)
        return seal(root)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def edit_json(path: Path, **changes: object) -> None:
    """Replace top-level entries of a JSON file; the caller seals the bundle again."""
    write_json(path, json.loads(path.read_bytes()) | changes)


def seal(root: Path) -> Path:
    """Set digests, sizes, SHA256SUMS and modification times as publishing does."""
    outside = {"manifest.json", "SHA256SUMS"}
    listed = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if path.is_file()]
    listed = [p for p in listed if p not in outside and not p.startswith(("measurements/", "attestations/"))]
    files = [{"path": p, "sha256": digest(root / p), "bytes": (root / p).stat().st_size} for p in listed]
    edit_json(root / "manifest.json", files=files)
    sums = "".join(f"{digest(root / path)}  {path}\n" for path in ["manifest.json", *listed])
    (root / "SHA256SUMS").write_text(sums)
    for path in root.rglob("*"):
        os.utime(path, (STAMP, STAMP))
    return root


def on_openvino(root: Path, **options: str) -> Path:
    """The same bundle for the OpenVINO execution provider, sealed again; `options` are the provider's."""
    openvino = {"name": "OpenVINOExecutionProvider", "options": {"device_type": "CPU", **options}}
    edit_json(root / "session.json", providers=[openvino, {"name": "CPUExecutionProvider", "options": {}}])
    pinned = pins("onnxruntime-openvino")
    runtime = {"package": pinned.name, "version": "1.24.1", "minimum_version": "1.24.1", "python": pinned.pythons}
    edit_json(root / "manifest.json", runtime=runtime)
    (root / "requirements.txt").write_text(pinned.requirements_txt(), encoding="utf-8")
    return seal(root)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def session_config(**changes: object) -> dict[str, Any]:
    return {
        "format_version": 1,
        "session_options": {
            "graph_optimization_level": "all",
            "execution_mode": "sequential",
            "enable_mem_pattern": True,
            "enable_mem_reuse": True,
            "enable_cpu_mem_arena": True,
        },
        "threads": {"intra_op": 1, "inter_op": 1},
        "config_entries": {"session.intra_op.allow_spinning": "0"},
        "providers": [{"name": "CPUExecutionProvider", "options": {}}],
        "environment": {"ORT_DISABLE_TELEMETRY": "1"},
    } | changes


def _manifest(name: str, golden: int, mask: str | None, **changes: object) -> dict[str, Any]:
    cases = [
        {
            "name": f"case-{index}",
            "inputs": f"golden/{index}.inputs.npz",
            "outputs": f"golden/{index}.outputs.npz",
            "tolerance": {"max_abs": 1e-5, "cosine": 0.9999},
            "mask": mask,
        }
        for index in range(golden)
    ]
    return {
        "format_version": 1,
        "kind": "ortc-bundle",
        "name": name,
        "version": "1.0.0",
        "target": "cpu",
        "platforms": ["linux/amd64", "linux/arm64"],
        "fit_to_serve": True,
        "unfit_reason": None,
        "stamp": STAMP,
        "model": {"file": "model/model.onnx", "bytes": 1, "opset": 17, "ir_version": 10, "domains": {}},
        "inputs": [],
        "outputs": [],
        "axes": [{"name": "batch", "min": 1, "typical": 1, "max": 16}],
        "runtime": {
            "package": "onnxruntime",
            "version": "1.31.1",
            "minimum_version": "1.31.0",
            "python": ["3.11", "3.12"],
        },
        "variant": {"name": "fp32-all", "precision": "fp32", "graph_level": "all", "batch_invariant": True},
        "placement": {"max_cpu_nodes": None},
        "golden": cases,
        "warmup": [{"batch": 1}],
        "decisions": [],
        "provenance": {},
        "files": [],
    } | changes


def linear() -> Recipe:
    """A bundle around `linear_model`: one float input, a float and an integer output."""
    random = np.random.default_rng(1)
    golden: list[Arrays] = [{"x": random.standard_normal((n, 4)).astype(np.float32)} for n in (1, 3)]
    manifest = _manifest(
        "linear",
        len(golden),
        None,
        inputs=[{"name": "x", "dtype": "float32", "shape": ["batch", 4], "range": None}],
        outputs=[
            {"name": "y", "dtype": "float32", "shape": ["batch", 3]},
            {"name": "label", "dtype": "int64", "shape": ["batch"]},
        ],
    )
    return Recipe(linear_model(), manifest, session_config(), golden)


def text() -> Recipe:
    """A bundle around `text_model`: two integer inputs that share two axes, one of them with a range."""
    ids = np.arange(6, dtype=np.int64).reshape(2, 3)
    golden: list[Arrays] = [{"ids": ids, "mask": np.array([[1, 1, 1], [1, 0, 0]], dtype=np.int64)}]
    manifest = _manifest(
        "text",
        len(golden),
        "mask",
        inputs=[
            {"name": "ids", "dtype": "int64", "shape": ["batch", "sequence"], "range": [0, 49]},
            {"name": "mask", "dtype": "int64", "shape": ["batch", "sequence"], "range": None},
        ],
        outputs=[{"name": "hidden", "dtype": "float32", "shape": ["batch", "sequence", 8]}],
        axes=[
            {"name": "batch", "min": 1, "typical": 1, "max": 4},
            {"name": "sequence", "min": 1, "typical": 5, "max": 12},
        ],
        warmup=[{"batch": 1, "sequence": 5}, {"batch": 4, "sequence": 12}],
    )
    return Recipe(text_model(), manifest, session_config(), golden)
