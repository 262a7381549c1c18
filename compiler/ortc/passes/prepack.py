"""Weights as the kernels of one kind of processor want them, beside the graph that runs on any.

ONNX Runtime packs the weights of matrix multiplications whenever a session starts. Saved, the packed form costs disk
and no time; it belongs to one processor and one release of the runtime, and elsewhere it would be read as nonsense.
So a bundle holds two graphs over one file of weights: model.onnx, and prepacked.onnx, which the loader takes where both
match. What the two have in common is stored once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ortc.common.digests import sha256_file
from ortc.common.errors import NotApplicable, StageError
from ortc.common.values import digest
from ortc.execution.worker import Worker
from ortc.execution.worker_process import WorkerError
from ortc.passes.canonical import DATA_FILE, MODEL_FILE, PREPACKED_FILE
from ortc.passes.variant_graph import VariantGraph

if TYPE_CHECKING:
    import onnx

ALIGNMENT = 4096
"""Of each tensor in a file of weights: such a file can be mapped."""
PACKED = "prepacked_"
"""How the keys begin under which ONNX Runtime notes where packed weights lie."""


def prepack(interpreter: Path, source: Path, output: Path, session: str, graph: VariantGraph) -> VariantGraph:
    """Write both graphs and their weights into `output`.

    Args:
        interpreter: of the variant's runtime environment.
        source: directory with the variant's graph, its weights beside it.
        output: an empty directory.
        session: text of session.json.
        graph: what is known of the variant's graph.

    Raises:
        NotApplicable: there is nothing that the runtime packs.
        StageError: the runtime fails, or weights are not what they were.
    """
    import onnx

    if not (source / DATA_FILE).is_file():
        raise NotApplicable("the weights are inside the graph, too few to take time")
    with Worker.for_packing(interpreter) as worker:
        try:
            worker.call("pack", source=str(source), output=str(output), session=session)
        except WorkerError as error:
            message = f"ONNX Runtime cannot save packed weights: {error.message}"
            raise StageError(message, help=error.help, details=error.details) from error
    packed = onnx.load(output / PREPACKED_FILE, load_external_data=False)
    if not any(key.startswith(PACKED) for tensor in packed.graph.initializer for key in _place(tensor)):
        raise NotApplicable("ONNX Runtime packs none of these weights")
    plain = onnx.load(source / MODEL_FILE, load_external_data=False)
    _share(plain, source / DATA_FILE, packed, output / DATA_FILE)
    (output / MODEL_FILE).write_bytes(plain.SerializeToString(deterministic=True))
    files = [output / name for name in (MODEL_FILE, DATA_FILE, PREPACKED_FILE)]
    return graph.model_copy(
        update={
            "bytes": sum(file.stat().st_size for file in files),
            "sha256": digest([sha256_file(file) for file in files]),
        }
    )


def _share(plain: onnx.ModelProto, old: Path, packed: onnx.ModelProto, data: Path) -> None:
    """Let a graph find its weights in the packed graph's file; what is not there, or is another there, is added.

    Args:
        plain: the graph; the places of its tensors are changed.
        old: the file that its weights are in.
        packed: the graph that ONNX Runtime wrote.
        data: its file of weights, which grows.
    """
    there = {tensor.name: _place(tensor) for tensor in packed.graph.initializer}
    with old.open("rb") as before, data.open("r+b") as after:
        for tensor in plain.graph.initializer:
            place = _place(tensor)
            if not place:
                continue
            content = _read(before, place)
            # Small ones are inside the packed graph.
            found = there.get(tensor.name)
            if found and int(found["length"]) == len(content) and _read(after, found) == content:
                offset = int(found["offset"])
            else:
                end = after.seek(0, os.SEEK_END)
                offset = -(-end // ALIGNMENT) * ALIGNMENT
                after.seek(offset)
                after.write(content)
            del tensor.external_data[:]
            for key, value in {"location": DATA_FILE, "offset": offset, "length": len(content)}.items():
                tensor.external_data.add(key=key, value=str(value))


def _place(tensor: onnx.TensorProto) -> dict[str, str]:
    """Where a tensor lies outside of its graph; empty for one that does not."""
    return {entry.key: entry.value for entry in tensor.external_data}


def _read(stream: IO[bytes], place: dict[str, str]) -> bytes:
    stream.seek(int(place.get("offset", "0")))
    return stream.read(int(place["length"]))
