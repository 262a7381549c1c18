"""Make a variant's graph: quantize where it says so, then optimize offline at a graph level."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from ortc.errors import StageError
from ortc.plan import Frozen, VariantPlan
from ortc.stages.graph import DATA_FILE, EXTERNAL_DATA_THRESHOLD, MODEL_FILE, count_operators, strip
from ortc.stages.quantize import quantize
from ortc.target import GraphLevel

_OFFLINE: dict[GraphLevel, str | None] = {
    # Above `extended` the graph is laid out for the machine it was made on; the session does that part when it loads.
    "all": "extended",
    "layout": "extended",
    "extended": "extended",
    "basic": "basic",
    "off": None,
}


class VariantGraph(Frozen):
    """The graph that a variant serves."""

    bytes: int
    domains: dict[str, int]
    operators: dict[str, int]


def make_variant(
    canonical: Path, output: Path, variant: VariantPlan, level: GraphLevel, interpreter: Path | None
) -> VariantGraph:
    """Write the variant's graph into `output`.

    Args:
        canonical: directory with the canonical graph.
        output: an empty directory.
        variant: what to do to it.
        level: the graph optimization level; the part of it that does not depend on the machine is applied here.
        interpreter: of the target's runtime environment; None leaves the graph as it is.

    Raises:
        StageError: the quantizer or the optimizer fails.
    """
    with tempfile.TemporaryDirectory(prefix="ortc-variant-") as scratch:
        current = canonical
        if variant.quantization == "int8-dynamic":
            quantized = Path(scratch) / "quantized"
            quantized.mkdir()
            quantize(current, quantized, variant)
            current = quantized
        offline = _OFFLINE[level]
        if variant.offline and offline is not None and interpreter is not None:
            optimized = Path(scratch) / "optimized"
            optimized.mkdir()
            _optimize(interpreter, current, optimized, offline)
            current = optimized
        return _finish(current, canonical, output)


def _optimize(interpreter: Path, source: Path, output: Path, level: str) -> None:
    script = Path(__file__).with_name("offline.py")
    result = subprocess.run(
        [str(interpreter), "-E", "-s", str(script), str(source), str(output), level],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines()
        raise StageError(
            f"ONNX Runtime's optimizer fails at level `{level}`: {lines[-1] if lines else result.returncode}",
            details=tuple(lines[-8:]),
        )


def _finish(source: Path, canonical: Path, output: Path) -> VariantGraph:
    """Write the form that ships: no unused domains, the canonical IR version, weights beside the graph when large."""
    import onnx_ir as ir

    if source == canonical:
        for name in (MODEL_FILE, DATA_FILE):
            if (source / name).is_file():
                shutil.copyfile(source / name, output / name)
        model = ir.load(output / MODEL_FILE)
    else:
        model = ir.load(source / MODEL_FILE)
        reference = ir.load(canonical / MODEL_FILE)
        strip(model)
        model.ir_version = reference.ir_version
        model.producer_name, model.producer_version = reference.producer_name, reference.producer_version
        used = {node.domain for node in ir.traversal.RecursiveGraphIterator(model.graph)}
        for domain in set(model.opset_imports) - used - {""}:
            del model.opset_imports[domain]
        weights = (value.const_value for value in model.graph.initializers.values())
        size = sum(tensor.nbytes for tensor in weights if tensor is not None)
        external = DATA_FILE if size > EXTERNAL_DATA_THRESHOLD else None
        if external is None:
            ir.external_data.load_to_model(model)
        ir.save(model, output / MODEL_FILE, external_data=external)
    return VariantGraph(
        bytes=sum(file.stat().st_size for file in output.iterdir() if file.name in (MODEL_FILE, DATA_FILE)),
        domains={domain: version for domain, version in sorted(model.opset_imports.items()) if domain},
        operators=count_operators(model),
    )
