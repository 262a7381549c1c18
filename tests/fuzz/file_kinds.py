"""Every kind of file that ortc parses: right ones, how wrong ones are made of them, and what reads them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from mutations import Chance, fields, members, octets, safetensors, sealed, structure

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.support import programs
from tests.support.bundles import runtime_module
from tests.support.graphs import linear, linear_with_external_weight, model, node, with_functions
from tests.support.plans import EXPORT
from tests.support.whole_bundles import HOST, own_measurement, whole_bundle

from ortc.build.lock import Ingredients, Lock, LockedSpec, LockedTarget, read_lock
from ortc.bundle.manifest import MEASUREMENTS, Manifest, parse_manifest
from ortc.bundle.measurement import read_measurement
from ortc.bundle.performance import read_kept
from ortc.bundle.session_file import SessionFile
from ortc.common.arrays import read_arrays, read_shapes
from ortc.common.errors import StageError, UsageError
from ortc.common.values import digest
from ortc.execution.action_record import KeptFile, Record, read_record
from ortc.frontend.import_onnx import import_onnx
from ortc.frontend.samples.odd_sounds import wav
from ortc.frontend.samples.sounds import read_sound
from ortc.inspection.external_data import load_graph, locations
from ortc.inspection.findings import InspectionError
from ortc.inspection.inspect_model import inspect
from ortc.inspection.onnx_wire import read_interface
from ortc.inspection.pt2_archive import ProgramError, read_program
from ortc.inspection.weights.graph import graph_weights
from ortc.inspection.weights.safetensors import file_weights, index_weights
from ortc.plan.checks import check_spec
from ortc.plan.checks.plan import check_plan
from ortc.plan.plan_file import plan_file_text
from ortc.registry.documents import AliasEvent, BundleRecord, CompanionRecord, Marker, now
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.onnx_header import read_header

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Kind:
    """How files of one kind are made and read.

    Attributes:
        seeds: right files.
        change: makes a wrong one of a right one.
        readers: each is given the path of a file, and the errors that it documents.
    """

    seeds: tuple[bytes, ...]
    change: Callable[[bytes, Chance], bytes]
    readers: tuple[tuple[Callable[[Path], object], tuple[type[Exception], ...]], ...]


def _onnx_fields(scratch: Path) -> Kind:
    """Messages with functions, branches, sparse tensors and weights in another file."""
    (scratch / "w.bin").write_bytes(np.ones(64, np.float32).tobytes())
    kind = _onnx()
    whole = linear_with_external_weight(offset=0, length=48)
    called = with_functions(onnx.load_from_string(kind.seeds[1]), [node("Relu", "a", "c"), node("Neg", "c", "b")])
    called.graph.node.append(onnx.helper.make_node("F0", ["h"], ["f"], domain="d"))
    seeds = (*kind.seeds, whole.SerializeToString(), called.SerializeToString())
    return Kind(seeds, fields(onnx.ModelProto), kind.readers)


def _onnx() -> Kind:
    deep = model(
        [node("Constant", "", "c", value_float=2.0), node("Mul", "x c", "h"), node("Softmax", "h", "y", axis=1)],
        {"x": ["batch", 4]},
        {"y": ["batch", 4]},
    )
    return Kind(
        tuple(made.SerializeToString() for made in (linear(), deep)),
        octets,
        (
            (read_header, (OSError, ValueError)),
            (read_interface, (OSError, ValueError)),
            (lambda path: graph_weights(path, None), ()),
            (lambda path: locations(load_graph(path)), (StageError,)),
            (lambda path: inspect(str(path), path.parent), (InspectionError,)),
            (_imported, (StageError,)),
        ),
    )


def _imported(path: Path) -> object:
    output = path.parent / "out"
    output.mkdir(exist_ok=True)
    return import_onnx(path, EXPORT, output)


def _pt2(scratch: Path) -> Kind:
    seed = programs.archive(scratch / "seed.pt2").read_bytes()
    return Kind(
        (seed,),
        members,
        ((read_program, (ProgramError,)), (lambda path: inspect(str(path), path.parent), (InspectionError,))),
    )


def _npz() -> Kind:
    loader: Any = runtime_module("loader")
    arrays_module: Any = runtime_module("loading.arrays")
    arrays_module.MOST_UNPACKED = 2**24
    arrays = {
        "x": np.arange(12, dtype=np.float32).reshape(3, 4),
        "y": np.array([True]),
        "z": np.zeros((0, 2), np.int64),
    }
    seeds = []
    for save in (np.savez, np.savez_compressed):
        written = BytesIO()
        save(written, **arrays)
        seeds.append(written.getvalue())
    return Kind(
        tuple(seeds),
        members,
        (
            (lambda path: read_arrays(path, 2**24), (ValueError,)),
            (read_shapes, (ValueError,)),
            (loader.read_npz, (loader.InputError,)),
        ),
    )


def _safetensors() -> Kind:
    header = {
        "__metadata__": {"format": "pt"},
        "w": {"dtype": "F32", "shape": [4, 3], "data_offsets": [0, 48]},
        "b": {"dtype": "BF16", "shape": [3], "data_offsets": [48, 54]},
    }
    text = json.dumps(header).encode()
    return Kind(
        (len(text).to_bytes(8, "little") + text + bytes(54),),
        safetensors,
        ((lambda path: file_weights(path, {"vocab_size": 4, "hidden_size": 3}), ()),),
    )


def _index() -> Kind:
    index = {"metadata": {"total_size": 54}, "weight_map": {"w": "a.safetensors", "b": "b.safetensors"}}
    return Kind((json.dumps(index).encode(),), structure, ((lambda path: index_weights(path, {}), ()),))


def _bundle_files(scratch: Path) -> dict[str, Kind]:
    bundle = whole_bundle(scratch / "bundle")
    document = own_measurement(bundle, HOST, "2026-11-29T12:00:00+00:00")
    measured = json.dumps({**document, "sha256": digest(document)}).encode()
    return {
        "manifest": Kind(
            ((bundle / "manifest.json").read_bytes(),),
            structure,
            ((lambda path: parse_manifest(path.read_bytes(), "manifest.json"), (StageError,)),),
        ),
        "session": Kind(
            ((bundle / "session.json").read_bytes(),),
            structure,
            ((lambda path: SessionFile.model_validate_json(path.read_bytes()), (ValueError,)),),
        ),
        "measurement": Kind((measured,), sealed, ((read_measurement, (StageError, UsageError)),)),
        "kept-measurement": Kind(
            tuple(path.read_bytes() for path in sorted((bundle / MEASUREMENTS).glob("*.json"))),
            structure,
            ((lambda path: read_kept(path.read_bytes(), "measurement.json"), (StageError,)),),
        ),
    }


def _registry(manifest: Manifest) -> Kind:
    kept = KeptFile(path="manifest.json", sha256="0" * 64, bytes=3, mode=0o644)
    documents = [
        Marker(),
        BundleRecord.of(manifest, "0" * 64, (kept,)),
        AliasEvent(name="small", alias="best", action="promote", version="1.0.0", at=now()),
        CompanionRecord(
            name="small",
            version="1.0.0",
            target="cpu",
            registered=now(),
            manifest_sha256="0" * 64,
            file=kept,
            performance=None,
        ),
    ]
    read: list[Callable[[bytes], object]] = [Marker.read, BundleRecord.read, AliasEvent.read, CompanionRecord.read]
    return Kind(
        tuple(document.content() for document in documents),
        sealed,
        tuple((_of_bytes(reader), (ValueError,)) for reader in read),
    )


def _of_bytes(reader: Callable[[bytes], object]) -> Callable[[Path], object]:
    return lambda path: reader(path.read_bytes())


def _record() -> Kind:
    kept = KeptFile(path="model.onnx", sha256="0" * 64, bytes=3, mode=0o644)
    made = Record(stage="export", subject="onnx", inputs={"a": [1, {"b": None}]}, result={"x": 1.5}, files=(kept,))
    return Kind((made.content(),), sealed, ((lambda path: read_record(path.read_bytes(), made.key), (ValueError,)),))


def _plan() -> Kind:
    planned = plan_file_text(check_spec(ROOT / "specs" / "digits.yaml"))
    return Kind((planned.encode(),), structure, ((lambda path: check_plan(path, ROOT), (SpecError,)),))


def _lock() -> Kind:
    target = LockedTarget(variant="fp32", graph_level="all", tuning=None, runtime="onnxruntime", pins_sha256="0" * 64)
    made_of = Ingredients(files={"a": "0" * 64}, samples_sha256=None, code_sha256="0" * 64, tools={"torch": "2.13.0"})
    entry = LockedSpec(
        version="1.0.0", plan_sha256="0" * 64, revision=None, ingredients=made_of, targets={"cpu": target}
    )
    seed = Lock(specs={"digits": entry}).model_dump_json(indent=2)
    return Kind((seed.encode(),), structure, ((read_lock, (StageError,)),))


def _wav() -> Kind:
    import torch  # noqa: F401 - a reader would take seconds for it

    errors: Any = runtime_module("loading.errors")
    inputs: Any = runtime_module("processing.audio.inputs")
    settings = {"input": "input_values", "rate": 16_000, "features": {"kind": "wave", "normalize": True}}
    shapes = {"input_values": (("batch", "samples"), np.dtype(np.float32))}
    made = inputs.Audio(settings, shapes, {"batch": (1, 4, 1), "samples": (1, 64_000, 1)})
    tone = np.sin(np.arange(300) / 5)
    seeds = (
        wav(tone, 16_000),
        wav(tone, 8000, 8),
        wav(np.stack([tone] * 3, axis=1), 44_100, 24, extensible=True),
        wav(tone, 48_000, 32, is_float=True),
    )
    return Kind(
        seeds,
        octets,
        (
            (_of_bytes(made.memory), (errors.InputError,)),
            (_of_bytes(made.row), (errors.InputError,)),
            (lambda path: read_sound(path, 16_000), (StageError,)),
        ),
    )


def kinds(scratch: Path) -> dict[str, Kind]:
    """Every kind of file, by name."""
    return {
        "onnx": _onnx(),
        "onnx-fields": _onnx_fields(scratch),
        "pt2": _pt2(scratch),
        "npz": _npz(),
        "safetensors": _safetensors(),
        "safetensors-index": _index(),
        **_bundle_files(scratch),
        "registry": _registry(parse_manifest((scratch / "bundle" / "manifest.json").read_bytes(), "manifest.json")),
        "record": _record(),
        "plan": _plan(),
        "lock": _lock(),
        "wav": _wav(),
    }


SUFFIXES = {"onnx": ".onnx", "onnx-fields": ".onnx", "pt2": ".pt2", "npz": ".npz", "wav": ".wav"}
