"""Small bundles that are whole: they run, and hold all that a build writes."""

from __future__ import annotations

import atexit
import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from tests.support.bundles import STAMP, linear, seal, starts_processes, write_json

from ortc.bundle.integrity import own_files
from ortc.bundle.manifest import PROVENANCE, Manifest
from ortc.bundle.supply_chain.provenance import provenance
from ortc.bundle.supply_chain.sbom import SBOM, sbom
from ortc.execution.host import Host
from ortc.spec.runtimes import Package

HOST = Host(platform="linux/amd64", cpu="A CPU", isa=("avx2",), cores=2, memory=8 * 2**30, gpus=())


_MADE: dict[str, Path] = {}


def whole_bundle(place: Path, *, version: str = "1.0.0", target: str = "cpu", seed: int = 0, **changes: Any) -> Path:
    """A bundle of the linear model; another seed is another model. What a process has made once it copies."""
    key = json.dumps([version, target, seed, starts_processes(), changes], sort_keys=True, default=repr)
    if key not in _MADE:
        directory = Path(tempfile.mkdtemp(prefix="ortc-whole-bundles-"))
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
        _MADE[key] = _make(directory / "bundle", version=version, target=target, seed=seed, **changes)
    shutil.copytree(_MADE[key], place, copy_function=shutil.copy2)
    return place


def _make(place: Path, *, version: str, target: str, seed: int, **changes: Any) -> Path:
    recipe = linear()
    weights = next(tensor for tensor in recipe.model.graph.initializer if tensor.name == "b")
    weights.raw_data = np.random.default_rng(seed).standard_normal(3).astype(np.float32).tobytes()
    recipe.manifest |= {
        "version": version,
        "target": target,
        "platforms": ["linux/amd64"],
        "provisional": False,
        "axes": [{"name": "batch", "min": 1, "typical": 1, "max": 16, "multiple_of": 1}],
        "model": {
            "file": "model/model.onnx",
            "bytes": len(recipe.model.SerializeToString()),
            "opset": 17,
            "ir_version": 10,
            "domains": {},
            "exporter": "onnx",
            "exporter_reason": None,
        },
        "variant": {
            "name": "fp32",
            "precision": "fp32",
            "graph_level": "all",
            "tuning": None,
            "batch_invariant": True,
        },
        "promises": {
            "at": {"batch": 1},
            "latency": {"p99": 0.1},
            "size": None,
            "memory": None,
            "start": None,
            "min_speedup": None,
        },
        "provenance": {
            "plan_sha256": "0" * 64,
            "source": "onnx:linear.onnx",
            "revision": None,
            "files": [{"name": "linear.onnx", "sha256": "1" * 64}],
            "tools": {"python": "3.12.0", "onnx": "1.23.2"},
        },
        **changes,
    }
    recipe.session["concurrency"] = "one"
    recipe.write(place)
    manifest = Manifest.model_validate_json((place / "manifest.json").read_bytes())
    packages = [Package(name="onnxruntime", version="1.31.1", marker=None, sha256=("2" * 64,))]
    (place / SBOM).write_text(sbom(manifest, packages, place), "utf-8")
    seal(place)
    manifest = Manifest.model_validate_json((place / "manifest.json").read_bytes())
    (place / PROVENANCE).parent.mkdir()
    (place / PROVENANCE).write_text(provenance(manifest, own_files(place, manifest)), "utf-8")
    add_measurement(place)
    return seal(place)


def add_measurement(bundle: Path, *, p50: float = 1.0, cores: int = 2) -> Path:
    """What another machine measured; as `ortc build` writes it, without its samples."""
    host = HOST.model_copy(update={"cores": cores})
    start = {"value": 0.2, "low": None, "high": None, "samples": 5}
    document = {
        "format_version": 1,
        "host": host.model_dump(mode="json"),
        "verdicts": [
            {
                "gate": "latency p99",
                "platform": "linux/amd64",
                "outcome": "pass",
                "observed": f"{3 * p50} ms",
                "limit": "<= 100 ms",
                "where": "batch=1, 420 samples",
            }
        ],
        "numbers": {
            **{name: _interval(p50 * factor) for name, factor in (("p50_ms", 1), ("p90_ms", 2), ("p99_ms", 3))},
            "eager_p50_ms": _interval(p50 * 4),
            "speedup": _interval(4.0),
            "start_seconds": start,
            "peak_rss_bytes": 80_000_000,
        },
        "race": {"measure": "latency", "shape": "batch=1", "host": host.model_dump(mode="json"), "threads": cores}
        | {"contenders": []},
    }
    place = bundle / "measurements" / f"{host.fingerprint()}.json"
    place.parent.mkdir(exist_ok=True)
    write_json(place, document)
    return place


def own_measurement(bundle: Path, host: Host, measured: str) -> dict[str, Any]:
    """A bundle's measurement of itself, as its runtime/measure.py writes it, but for `sha256`."""
    manifest = manifest_of(bundle)
    digests = {
        name: hashlib.sha256((bundle / name).read_bytes()).hexdigest() for name in ("manifest.json", "SHA256SUMS")
    }
    return {
        "format_version": 1,
        "kind": "ortc-measurement",
        **{key: manifest[key] for key in ("name", "version", "target")},
        "manifest_sha256": digests["manifest.json"],
        "sums_sha256": digests["SHA256SUMS"],
        "measured": measured,
        "host": host.model_dump(mode="json"),
        "threads": 1,
        "versions": {
            "python": "3.12.0",
            "numpy": "2.4.0",
            "onnxruntime": "1.31.1",
            "build": "ORT Build Info: git-branch=HEAD, git-commit-id=6af1a932e, fp8-kv-cache=1, build type=Release",
        },
        "providers": ["CPUExecutionProvider"],
        "placement": {"CPUExecutionProvider": 4},
        "prepacked": False,
        "at": {"batch": 1},
        "golden": [{"name": case["name"], "max_abs": 1e-7, "cosine": 1.0} for case in manifest["golden"]],
        "failed": None,
        "rounds": [[1.0] * 21] * 20,
        "starts": [0.2, 0.21, 0.2, 0.22, 0.2],
        "peak_rss_bytes": 60_000_000,
    }


def _interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value * 0.9, "high": value * 1.1, "samples": 420}


def manifest_of(bundle: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((bundle / "manifest.json").read_bytes())
    return document


__all__ = ["HOST", "STAMP", "add_measurement", "manifest_of", "own_measurement", "whole_bundle"]
