"""Which nodes of each architecture's graphs CUDA has no kernel for: foreseen, and asked of the provider itself.

    PYTHONPATH=. python tests/architectures/placement.py DIRECTORY [NAME ...]

Exports every architecture of the catalogue at opset 20 into DIRECTORY (those that are there already stay), makes the
forms that the server-gpu profile has of it, and writes tests/architectures/data/placement.json and
docs/architectures.md: for each graph the compute nodes that are foreseen on the CPU, by operator, and what ONNX
Runtime's CUDA provider really leaves to the CPU, which it tells over stand-ins for NVIDIA's libraries. It needs
onnxruntime-gpu, a C compiler and readelf; no GPU.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import onnx_ir as ir
from catalogue import ARCHITECTURES, Architecture
from page import page
from tests.support.passes import rewrite_files
from tests.support.stand_ins import build_stand_ins, placements
from trial import context_of

from ortc.build.context import tool_versions
from ortc.build.model import build_model
from ortc.common.errors import NotApplicable, OrtcError
from ortc.passes.kernel_tables import Kernels, kernels
from ortc.passes.placement import foresee

DATA = Path(__file__).parent / "data" / "placement.json"
RECORD = DATA.with_name("architectures.json")
PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"
RUNTIME = ("onnxruntime-gpu", "1.31.1", "CUDAExecutionProvider")
OPSET = 20
FORMS = {
    "fused": ("fuse", "embeddings"),
    "fused half": ("fuse", "half"),
    "fused bfloat16": ("fuse", "bfloat16"),
    "half": ("half",),
}
Json = dict[str, Any]


def export(architecture: Architecture, place: Path) -> None:
    """Write an architecture's canonical graph, and the forms that can be made of it."""
    with context_of(architecture, OPSET) as (context, _):
        canonical = build_model(context).canonical()
        shutil.copytree(canonical, place / "canonical")
    for form, names in FORMS.items():
        (place / form).mkdir()
        try:
            rewrite_files(place / "canonical", place / form, names)
        except NotApplicable as error:
            sys.stderr.write(f"{place.name}, {form}: {error.message}\n")
            (place / form).rmdir()


def looked_at(graphs: list[Path], table: Kernels) -> list[Json]:
    """What is foreseen of each graph, and what the provider does with it; None where ONNX Runtime refuses the graph."""
    with tempfile.TemporaryDirectory() as scratch:
        found = placements(graphs, build_stand_ins(Path(scratch)))
    results = []
    for path, placement in zip(graphs, found, strict=True):
        nodes = foresee(ir.load(path), table).cpu_nodes
        results.append(
            {
                "name": path.parent.parent.name,
                "form": path.parent.name,
                "foreseen": Counter(f"{node.operator} ({', '.join(node.types)})" for node in nodes),
                "on_cpu": None if placement is None else placement.get("CPUExecutionProvider", {}),
                "on_cuda": None if placement is None else sum(placement.get(table.provider, {}).values()),
            }
        )
    return results


def main() -> int:
    """Export what is missing, look at everything, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    table = kernels(*RUNTIME)
    if table is None:
        parser.error(f"there is no table of {' '.join(RUNTIME)}: targets/generate_kernels.py makes one")
    chosen = [entry for entry in ARCHITECTURES if entry.name in arguments.names or not arguments.names]
    failed = {}
    for architecture in chosen:
        place = arguments.directory / architecture.name
        if not place.exists():
            try:
                export(architecture, place)
            except OrtcError as error:
                failed[architecture.name] = error.message
    forms = ("canonical", *FORMS)
    graphs = [arguments.directory / entry.name / form / "model.onnx" for entry in chosen for form in forms]
    document = {
        "format_version": 1,
        "runtime": " ".join(RUNTIME),
        "opset": OPSET,
        "versions": tool_versions(),
        "failed": failed,
        "results": looked_at([path for path in graphs if path.is_file()], table),
    }
    DATA.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
    PAGE.write_text(page(json.loads(RECORD.read_bytes()), document), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
