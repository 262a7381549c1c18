"""Make a variant's graph: quantize where it says so, then optimize offline at a graph level."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ortc.common.digests import sha256_file
from ortc.common.disk import free, full, room, temporary
from ortc.common.errors import StageError
from ortc.common.values import digest
from ortc.execution.worker import Worker
from ortc.execution.worker_process import WorkerError
from ortc.passes.canonical import DATA_FILE, MODEL_FILE, count_operators, strip, write
from ortc.passes.kernel_tables import Kernels
from ortc.passes.placement import foresee, table_for
from ortc.passes.quantization.calibration import Ranges
from ortc.passes.quantization.data_free import expect_narrowing, quantize
from ortc.passes.quantization.static import quantize_static
from ortc.passes.quantized_operators import quantized_already
from ortc.passes.rewrite import rewrite
from ortc.passes.shape_arithmetic import shape_nodes
from ortc.passes.variant_graph import MOST_TENSORS, StoredTensor, StoredTensors, VariantGraph
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
        StageError: the optimizer fails.
    """
    import onnx_ir as ir

    model = ir.load(canonical / MODEL_FILE)
    reference = Reference.of(model)
    is_changed = transform(model, variant, None if ranges is None else Ranges.load(ranges))
    offline = _OFFLINE[level]
    if variant.offline and offline is not None and interpreter is not None:
        with tempfile.TemporaryDirectory(prefix="ortc-variant-") as scratch:
            current, optimized = canonical, Path(scratch) / "optimized"
            optimized.mkdir()
            if is_changed:
                current = Path(scratch) / "transformed"
                current.mkdir()
                with room(temporary()):
                    write(model, current)
            _optimize(interpreter, current, optimized, offline, variant.session.config_entries)
            return _finish(ir.load(optimized / MODEL_FILE), reference, output, table_for(variant))
    if is_changed:
        return _finish(model, reference, output, table_for(variant))
    for name in (MODEL_FILE, DATA_FILE):
        if (canonical / name).is_file():
            shutil.copyfile(canonical / name, output / name)
    return _described(model, reference, output, table_for(variant))


def transform(model: ir.Model, variant: VariantPlan, ranges: Ranges | None = None) -> bool:
    """Rewrite and quantize a canonical graph in place, as a variant says; whether that is anything at all.

    Args:
        model: the canonical graph.
        variant: what to do to it.
        ranges: of the activations, for a variant that needs them.

    Raises:
        NotApplicable: the variant has nothing to change in this graph.
    """
    rewrite(model, variant.rewrites, variant.exclude)
    how = variant.quantization
    if isinstance(how, StaticQuantization):
        assert ranges is not None  # noqa: S101  # the caller calibrates what is static
        narrow = expect_narrowing(model) if how.narrowing == "float" else ()
        quantize_static(
            model,
            ranges,
            operators=how.operators,
            smooth=how.smoothing,
            exclude=(*narrow, *variant.exclude),
            blocks=variant.blocks,
            symmetric=how.symmetric,
        )
    elif how is not None:
        quantize(model, variant, ranges)
    return bool(variant.rewrites) or how is not None


def _optimize(interpreter: Path, source: Path, output: Path, level: str, entries: dict[str, str]) -> None:
    needed = sum(file.stat().st_size for file in source.iterdir())
    disabled = entries.get(DISABLED_OPTIMIZERS, "")
    with Worker.for_optimizing(interpreter) as worker:
        try:
            worker.call("optimize", source=str(source), output=str(output), level=level, disabled=disabled)
        except WorkerError as error:
            # ONNX Runtime does not say why it could not write.
            if free(output) < needed:
                raise full(temporary(), needed=needed) from error
            message = f"ONNX Runtime's optimizer fails at level `{level}`: {error.message}"
            raise StageError(message, help=error.help, details=error.details) from error


@dataclass(frozen=True)
class Reference:
    """What a variant takes over from the canonical graph, and what it is compared with."""

    ir_version: int
    producer: tuple[str | None, str | None]
    weights: int | None
    """Bytes; None where they are integers already."""

    @classmethod
    def of(cls, canonical: ir.Model) -> Reference:
        """Of the canonical graph, before it is changed."""
        producer = (canonical.producer_name, canonical.producer_version)
        is_exact = quantized_already(count_operators(canonical)) is None
        return cls(canonical.ir_version, producer, _weights(canonical) if is_exact else None)


def _finish(model: ir.Model, reference: Reference, output: Path, table: Kernels | None) -> VariantGraph:
    """Write the form that ships: no unused domains, the canonical IR version, weights beside the graph when large."""
    import onnx_ir as ir

    strip(model)
    model.ir_version = reference.ir_version
    model.producer_name, model.producer_version = reference.producer
    used = {node.domain for node in ir.traversal.RecursiveGraphIterator(model.graph)}
    for domain in set(model.opset_imports) - used - {""}:
        del model.opset_imports[domain]
    write(model, output)
    return _described(model, reference, output, table)


def _described(model: ir.Model, reference: Reference, output: Path, table: Kernels | None) -> VariantGraph:
    """What is known of a graph that was written."""
    files = [output / name for name in (MODEL_FILE, DATA_FILE) if (output / name).is_file()]
    return VariantGraph(
        bytes=sum(file.stat().st_size for file in files),
        weights=_weights(model),
        exact_weights=reference.weights,
        sha256=digest([sha256_file(file) for file in files]),
        domains={domain: version for domain, version in sorted(model.opset_imports.items()) if domain},
        operators=count_operators(model),
        shape_nodes=shape_nodes(model),
        placement=None if table is None else foresee(model, table),
        tensors=_stored(model),
    )


def _weights(model: ir.Model) -> int:
    """Bytes of the initializers."""
    tensors = (value.const_value for value in model.graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def _stored(model: ir.Model) -> StoredTensors:
    """What the weights of a graph take, of each and by type."""
    tensors = [
        StoredTensor(
            name=name,
            shape=found.shape.numpy(),
            dtype=str(found.dtype).lower(),
            bytes=found.nbytes,
        )
        for name, value in model.graph.initializers.items()
        if (found := value.const_value) is not None
    ]
    by_dtype: dict[str, int] = {}
    for tensor in tensors:
        by_dtype[tensor.dtype] = by_dtype.get(tensor.dtype, 0) + tensor.bytes
    largest = sorted(tensors, key=lambda tensor: (-tensor.bytes, tensor.name))[:MOST_TENSORS]
    return StoredTensors(count=len(tensors), by_dtype=dict(sorted(by_dtype.items())), largest=tuple(largest))
