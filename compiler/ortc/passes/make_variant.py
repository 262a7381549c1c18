"""Make a variant's graph: quantize where it says so, then optimize offline at a graph level."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ortc.common.digests import sha256_file
from ortc.common.disk import free, full, temporary
from ortc.common.errors import NotApplicable, StageError
from ortc.common.values import digest
from ortc.execution import processes
from ortc.passes.canonical import DATA_FILE, EXTERNAL_DATA_THRESHOLD, MODEL_FILE, count_operators, strip
from ortc.passes.kernel_tables import Kernels
from ortc.passes.placement import foresee, table_for
from ortc.passes.quantization.data_free import narrowing, quantize
from ortc.passes.rewrite import rewrite_variant
from ortc.passes.shape_arithmetic import shape_nodes
from ortc.passes.variant_graph import VariantGraph
from ortc.plan.plan import VariantPlan
from ortc.spec.profile import GraphLevel
from ortc.spec.quantization import StaticQuantization

if TYPE_CHECKING:
    import onnx_ir as ir

_OFFLINE: dict[GraphLevel, str | None] = {
    # Above `extended` the graph is laid out for the machine it was made on; the session does that part when it loads.
    "all": "extended",
    "layout": "extended",
    "extended": "extended",
    "basic": "basic",
    "off": None,
}

DISABLED_OPTIMIZERS = "optimization.disable_specified_optimizers"
"""Names of optimizers that are left out, separated by semicolons; the same at build time and when it is served."""


def make_variant(
    canonical: Path,
    output: Path,
    variant: VariantPlan,
    level: GraphLevel,
    interpreter: Path | None,
    ranges: Path | None = None,
) -> VariantGraph:
    """Write the variant's graph into `output`.

    Args:
        canonical: directory with the canonical graph.
        output: an empty directory.
        variant: what to do to it.
        level: the graph optimization level; the part of it that does not depend on the machine is applied here.
        interpreter: of the variant's runtime environment; None leaves the graph as it is.
        ranges: of the activations, for a variant that is quantized statically.

    Raises:
        NotApplicable: the variant has nothing to change in this graph.
        StageError: the quantizer or the optimizer fails.
    """
    with (
        rewrite_variant(canonical, variant.rewrites, variant.exclude) as source,
        tempfile.TemporaryDirectory(prefix="ortc-variant-") as scratch,
    ):
        current = source
        if (how := variant.quantization) is not None:
            quantized = Path(scratch) / "quantized"
            quantized.mkdir()
            if isinstance(how, StaticQuantization):
                from ortc.passes.quantization.calibration import Ranges
                from ortc.passes.quantization.static import quantize_static

                assert ranges is not None  # noqa: S101  # the caller calibrates what is static
                found = Ranges.load(ranges)
                quantize_static(
                    current,
                    quantized,
                    found,
                    operators=how.operators,
                    smooth=how.smoothing,
                    exclude=(*(_narrowing(current) if how.narrowing == "float" else ()), *variant.exclude),
                    blocks=variant.blocks,
                    symmetric=how.symmetric,
                )
            else:
                quantize(current, quantized, variant, ranges)
            current = quantized
        offline = _OFFLINE[level]
        if variant.offline and offline is not None and interpreter is not None:
            optimized = Path(scratch) / "optimized"
            optimized.mkdir()
            _optimize(interpreter, current, optimized, offline, variant.session.config_entries)
            current = optimized
        return _finish(current, canonical, output, table_for(variant))


def _narrowing(source: Path) -> tuple[str, ...]:
    """Names of the MatMuls that narrow.

    Raises:
        NotApplicable: there is none, or they have no names.
    """
    import onnx

    names = tuple(name for name in narrowing(onnx.load(source / MODEL_FILE, load_external_data=False)) if name)
    if not names:
        raise NotApplicable("nothing to keep in floating point: no MatMul narrows")
    return names


def _optimize(interpreter: Path, source: Path, output: Path, level: str, entries: dict[str, str]) -> None:
    script = Path(__file__).with_name("ort_optimize.py")
    disabled = entries.get(DISABLED_OPTIMIZERS, "")
    needed = sum(file.stat().st_size for file in source.iterdir())
    result = subprocess.run(
        processes.script(interpreter, script, str(source), str(output), level, disabled),
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        # ONNX Runtime does not say why it could not write.
        if free(output) < needed:
            raise full(temporary(), needed=needed)
        lines = result.stderr.strip().splitlines()
        raise StageError(
            f"ONNX Runtime's optimizer fails at level `{level}`: {lines[-1] if lines else result.returncode}",
            details=tuple(lines[-8:]),
        )


def _finish(source: Path, canonical: Path, output: Path, table: Kernels | None) -> VariantGraph:
    """Write the form that ships: no unused domains, the canonical IR version, weights beside the graph when large."""
    import onnx_ir as ir

    reference = ir.load(canonical / MODEL_FILE)
    if source == canonical:
        for name in (MODEL_FILE, DATA_FILE):
            if (source / name).is_file():
                shutil.copyfile(source / name, output / name)
        model = ir.load(output / MODEL_FILE)
    else:
        model = ir.load(source / MODEL_FILE)
        strip(model)
        model.ir_version = reference.ir_version
        model.producer_name, model.producer_version = reference.producer_name, reference.producer_version
        used = {node.domain for node in ir.traversal.RecursiveGraphIterator(model.graph)}
        for domain in set(model.opset_imports) - used - {""}:
            del model.opset_imports[domain]
        external = DATA_FILE if _weights(model) > EXTERNAL_DATA_THRESHOLD else None
        if external is None:
            ir.external_data.load_to_model(model)
        ir.save(model, output / MODEL_FILE, external_data=external)
    files = [output / name for name in (MODEL_FILE, DATA_FILE) if (output / name).is_file()]
    return VariantGraph(
        bytes=sum(file.stat().st_size for file in files),
        weights=_weights(model),
        exact_weights=_weights(reference),
        sha256=digest([sha256_file(file) for file in files]),
        domains={domain: version for domain, version in sorted(model.opset_imports.items()) if domain},
        operators=count_operators(model),
        shape_nodes=shape_nodes(model),
        placement=None if table is None else foresee(model, table),
    )


def _weights(model: ir.Model) -> int:
    """Bytes of the initializers."""
    tensors = (value.const_value for value in model.graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)
