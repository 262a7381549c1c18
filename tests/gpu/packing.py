"""Bundles without their weights: built here, a few megabytes, put together again where the GPU is.

Every weight of a variant, however it was fused, turned, joined or rounded, is found among the model's parameters by its
digest. So nothing here knows what a rewrite does, and what is not found is an error and no silent loss.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from seeding import Array, cast, digest, seeded

ROOT = Path(__file__).parents[2]
PROGRAMS = ("run.py", "seeding.py", "encoder.py", "contender.py", "compete.py", "gpu_page.py")
"""What a pack holds of this directory."""
SHARED = "benchmarks/records.py"
"""What it holds of the one above: a pack needs nothing else of ortc."""
FORMAT_VERSION = 1
SEED = 20260501
LEAST = 4096
"""Bytes below which a weight travels as it is."""
DTYPES = {1: "float32", 10: "float16", 16: "bfloat16"}
"""onnx.TensorProto's numbers of the types that weights have."""
Json = dict[str, Any]

BERT = {
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
MODELS: dict[str, Json] = {
    "minilm": {
        **BERT,
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
    },
    "bert-base": {
        **BERT,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
    },
    # For tests of the way itself.
    "tiny": {
        **BERT,
        "vocab_size": 512,
        "max_position_embeddings": 64,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
    },
}
TITLES = {"minilm": "MiniLM, 6 layers of 384", "bert-base": "BERT-base", "tiny": "A tiny BERT"}
BOUNDS = {"minilm": (64, 512), "bert-base": (64, 512), "tiny": (8, 32)}
"""Most of batch and sequence."""
TARGETS = ("server-gpu", "server-gpu-tensorrt")


class PackError(Exception):
    """A pack cannot be made; the message says why and what to do."""


def parameters_of(config: Json) -> list[tuple[str, list[int]]]:
    """Names and shapes of a BERT's parameters, in transformers' names."""
    size, inside = config["hidden_size"], config["intermediate_size"]
    embeddings = {
        "word_embeddings.weight": [config["vocab_size"], size],
        "position_embeddings.weight": [config["max_position_embeddings"], size],
        "token_type_embeddings.weight": [config["type_vocab_size"], size],
        "LayerNorm.weight": [size],
        "LayerNorm.bias": [size],
    }
    linear = {
        **{f"attention.self.{name}": [size, size] for name in ("query", "key", "value")},
        "attention.output.dense": [size, size],
        "intermediate.dense": [inside, size],
        "output.dense": [size, inside],
    }
    found = [(f"embeddings.{name}", shape) for name, shape in embeddings.items()]
    for index in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{index}"
        for name, shape in linear.items():
            found += [(f"{layer}.{name}.weight", shape), (f"{layer}.{name}.bias", shape[:1])]
        for name in ("attention.output", "output"):
            found += [(f"{layer}.{name}.LayerNorm.{part}", [size]) for part in ("weight", "bias")]
    return found


def variants() -> list[tuple[str, str]]:
    """Every variant of the profiles for GPUs, as target and name."""
    import yaml

    profiles = [
        (target, yaml.safe_load((ROOT / "targets" / f"{target}.yaml").read_text("utf-8"))) for target in TARGETS
    ]
    return [(target, entry["name"]) for target, profile in profiles for entry in profile["variants"]]


def pack(output: Path, names: list[str], only: list[str] | None, work: Path) -> None:
    """Build the variants of models, and write what a GPU machine needs into a new directory.

    Args:
        output: the directory, replaced when it is a pack already.
        names: keys of MODELS.
        only: names of variants; all that the profiles have when None.
        work: for models and bundles; `ortc`'s cache is where it always is.

    Raises:
        PackError: a variant cannot be built, or a weight is of no known origin.
    """
    from ortc import __version__

    if output.exists():
        if not (output / "pack.json").is_file():
            raise PackError(f"{output} is there and is no pack: name another directory")
        shutil.rmtree(output)
    (output / "blobs").mkdir(parents=True)
    models = {}
    for name in names:
        models[name] = _model(output, name, only, work)
    document = {"format_version": FORMAT_VERSION, "kind": "ortc-gpu-pack", "ortc": __version__, "models": models}
    (output / "pack.json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    for program in PROGRAMS:
        shutil.copyfile(Path(__file__).with_name(program), output / program)
    shutil.copy(ROOT / "tests" / SHARED, output)


def _model(output: Path, name: str, only: list[str] | None, work: Path) -> Json:
    config = MODELS[name]
    arrays = {entry: seeded(entry, shape, SEED) for entry, shape in parameters_of(config)}
    spec = _spec(name, config, arrays, work)
    origins = Origins(arrays)
    built: Json = {}
    for target, variant in variants():
        if only is not None and variant not in only:
            continue
        key = variant if target == TARGETS[0] else f"tensorrt-{variant}"
        say(f"{name}: {key}")
        bundle = _build(spec, name, target, variant, work / "dist" / key)
        if isinstance(bundle, str):
            built[key] = {"absent": bundle}
            continue
        manifest = json.loads((bundle / "manifest.json").read_bytes())
        built[key] = {
            "target": target,
            "variant": variant,
            "precision": manifest["variant"]["precision"],
            "stamp": manifest["stamp"],
            "operators": operators(bundle / "model" / "model.onnx"),
            "files": [
                _stripped(output, bundle, path, origins)
                for path in sorted(p for p in bundle.rglob("*") if p.is_file())
                if path.relative_to(bundle).parts[0] not in ("measurements", "attestations")
            ],
        }
    return {
        "title": TITLES[name],
        "seed": SEED,
        "config": config,
        "bounds": list(BOUNDS[name]),
        "parameters": [
            {"name": entry, "shape": list(array.shape), "sha256": digest(array)} for entry, array in arrays.items()
        ],
        "variants": built,
    }


def _spec(name: str, config: Json, arrays: dict[str, Array], work: Path) -> Path:
    """A model directory as transformers reads it, and a spec for it."""
    from safetensors.numpy import save_file

    place = work / name
    place.mkdir(parents=True, exist_ok=True)
    about = {"model_type": "bert", "architectures": ["BertModel"], **config}
    (place / "config.json").write_text(json.dumps(about), "utf-8")
    size = config["hidden_size"]
    # transformers wants them in a checkpoint; the last hidden state has no use for them.
    pooler = {
        "pooler.dense.weight": np.zeros((size, size), np.float32),
        "pooler.dense.bias": np.zeros(size, np.float32),
    }
    save_file({**arrays, **pooler}, place / "model.safetensors")
    batch, sequence = BOUNDS[name]
    at = {"batch": 1, "sequence": min(128, sequence)}
    shape, ids = ["batch", "sequence"], [0, config["vocab_size"] - 1]
    document: Json = {
        "apiVersion": "ortc/v1alpha1",
        "kind": "ModelDeployment",
        "name": name,
        "version": "1.0.0",
        "model": {"source": "huggingface", "path": name, "task": "feature-extraction"},
        "export": {
            "opset": 18,
            "exporter": "dynamo",
            "dynamic_axes": {
                "batch": {"min": 1, "typical": 1, "max": batch},
                "sequence": {"min": 1, "typical": at["sequence"], "max": sequence},
            },
            "inputs": {
                "input_ids": {"dtype": "int64", "shape": shape, "range": ids},
                "attention_mask": {"dtype": "int64", "shape": shape, "fill": 1},
                "token_type_ids": {"dtype": "int64", "shape": shape, "fill": 0},
            },
            "outputs": ["last_hidden_state"],
        },
        "accuracy": {"max_abs": 1e-3, "cosine": 0.999},
        "targets": {target: {"unmeasured": "allow"} for target in TARGETS},
    }
    path = work / f"{name}.yaml"
    path.write_text(json.dumps(document, indent=1), "utf-8")
    return path


def _build(spec: Path, name: str, target: str, variant: str, dist: Path) -> Path | str:
    """The bundle of one variant, or why this model has none."""
    arguments = ["build", str(spec), "-t", target, "--variant", variant, "--search", "quick", "-o", str(dist)]
    done = subprocess.run(
        [sys.executable, "-m", "ortc", *arguments], capture_output=True, text=True, check=False, cwd=spec.parent
    )
    if done.returncode != 0:
        if "nothing to rewrite" in done.stdout + done.stderr:
            return "nothing to rewrite in this model"
        raise PackError(f"{variant} of {name} was not built, exit code {done.returncode}:\n{done.stdout}{done.stderr}")
    return dist / name / "1.0.0" / target


class Origins:
    """Parameters by the digests of what variants make of them."""

    def __init__(self, arrays: dict[str, Array]) -> None:
        self._found: dict[str, Json] = {}
        for name, array in arrays.items():
            for turned in (False, True) if array.ndim == 2 else (False,):
                for dtype in DTYPES.values():
                    data = cast(np.ascontiguousarray(array.T if turned else array), dtype)
                    recipe = {"of": [name], "turned": turned, "dtype": dtype, "axis": 0}
                    self._found.setdefault(f"{dtype}/{digest(data)}", recipe)
        self._widths = sorted({size for array in arrays.values() for size in array.shape}, reverse=True)

    def recipe(self, array: Array, dtype: str) -> Json | None:
        """How a weight is made: one parameter, or several of equal size joined along an axis; None when unknown.

        Args:
            array: its numbers; those of bfloat16 as uint16.
            dtype: its type.
        """
        if (whole := self._found.get(f"{dtype}/{digest(array)}")) is not None:
            return whole
        for axis in reversed(range(array.ndim)):
            for width in self._widths:
                if width < array.shape[axis] and array.shape[axis] % width == 0:
                    parts = np.split(array, array.shape[axis] // width, axis=axis)
                    found = [self._found.get(f"{dtype}/{digest(part)}") for part in parts]
                    known = [entry for entry in found if entry is not None]
                    if len(known) == len(parts) and len({entry["turned"] for entry in known}) == 1:
                        names = [entry["of"][0] for entry in known]
                        return {"of": names, "turned": known[0]["turned"], "dtype": dtype, "axis": axis}
        return None


def _stripped(output: Path, bundle: Path, path: Path, origins: Origins) -> Json:
    """A file of a bundle as pieces: what is a weight as its recipe, all else in blobs."""
    content, relative = path.read_bytes(), path.relative_to(bundle).as_posix()
    pieces: list[Json] = []
    at = 0
    for begin, array, dtype in _weights(bundle, relative, content):
        recipe = origins.recipe(array, dtype)
        if recipe is None:
            raise PackError(
                f"{relative} of {bundle} holds a weight of {array.nbytes} bytes at {begin}, shape {list(array.shape)}, "
                "that is no parameter turned, joined or rounded: raise LEAST, or teach Origins how it is made"
            )
        pieces += _blob(output, content[at:begin])
        pieces.append(recipe)
        at = begin + array.nbytes
    pieces += _blob(output, content[at:])
    return {"path": relative, "sha256": hashlib.sha256(content).hexdigest(), "pieces": pieces}


def _blob(output: Path, data: bytes) -> list[Json]:
    if not data:
        return []
    name = hashlib.sha256(data).hexdigest()
    if not (output / "blobs" / name).exists():
        (output / "blobs" / name).write_bytes(data)
    return [{"blob": name}]


def _weights(bundle: Path, relative: str, content: bytes) -> Iterator[tuple[int, Array, str]]:
    """Where in a graph, or in the file of its weights, the large weights lie: offset, numbers and type, ascending."""
    import onnx

    if Path(relative).suffix not in (".onnx", ".data"):
        return
    model = onnx.load(bundle / "model" / "model.onnx", load_external_data=False)
    found = []
    for tensor in model.graph.initializer:
        dtype = DTYPES.get(tensor.data_type)
        if dtype is None:
            continue
        external = {entry.key: entry.value for entry in tensor.external_data}
        if external and Path(relative).name == external["location"]:
            begin, length = int(external.get("offset", 0)), int(external["length"])
        elif not external and Path(relative).suffix == ".onnx" and tensor.raw_data:
            length = len(tensor.raw_data)
            begin = content.find(tensor.raw_data) if length >= LEAST else 0
        else:
            continue
        if length >= LEAST:
            bits = "uint16" if dtype == "bfloat16" else dtype
            array = np.frombuffer(content, bits, length // np.dtype(bits).itemsize, begin).reshape(tensor.dims)
            found.append((begin, array, dtype))
    yield from sorted(found, key=lambda entry: entry[0])


def operators(graph: Path) -> dict[str, int]:
    """Operator to number of nodes of the graph that ships."""
    import onnx

    counts: dict[str, int] = {}
    for node in onnx.load(graph, load_external_data=False).graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return dict(sorted(counts.items()))


def say(line: str) -> None:
    """Tell what is done."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def size_of(pack: Path) -> int:
    """Bytes of a pack."""
    return sum(path.stat().st_size for path in pack.rglob("*") if path.is_file())
