"""The reference of an ONNX source: the file as it was fetched, on ONNX Runtime without optimizations.

The canonical graph is what an import made of that file. What an import or a conversion does to the answers is seen only
because nothing here has been through either.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ortc.build.context import Context
from ortc.common.errors import StageError
from ortc.execution.host import cores
from ortc.execution.worker import Worker
from ortc.execution.worker_process import WorkerError
from ortc.frontend.onnx_forms import name_portable_locales, open_dimensions
from ortc.inspection.external_data import graph_nodes
from ortc.passes.canonical import Exported, differently_defined
from ortc.spec.model_sources import OnnxSource
from ortc.spec.onnx_header import read_header
from ortc.spec.runtimes import pins, runtime


def source_file(context: Context) -> Path:
    """The fetched ONNX file of a build."""
    source = context.plan.model
    if not isinstance(source, OnnxSource):
        raise TypeError(f"a source `{source.source}` has no ONNX file")
    return context.workspace.fetched.directory / Path(source.path).name


@contextmanager
def serve_original(context: Context, exported: Exported, pin_set: str) -> Iterator[Worker]:
    """A worker that answers with the fetched file.

    Args:
        context: the build.
        exported: names the inputs and outputs that are kept.
        pin_set: the runtime environment to answer in.

    Raises:
        StageError: the runtime does not open the file.
    """
    path = source_file(context)
    interpreter = context.runner.interpreter(pin_set, (context.host.platform,))
    with Worker.for_original("the ONNX file", interpreter) as worker:
        try:
            worker.call(
                "load",
                model=str(_readable(path, pin_set)),
                inputs=[tensor.name for tensor in exported.inputs],
                outputs=[tensor.name for tensor in exported.outputs],
                labels={tensor.name: tensor.labels for tensor in exported.outputs if tensor.labels is not None},
                threads=cores(),
            )
        except WorkerError as error:
            if error.code != "refused":
                raise
            raise StageError(
                f"ONNX Runtime does not open `{path.name}` as it is, so that nothing can be compared with it: "
                f"{error.message}",
                help=kernel_help(error.message)
                or "export the model again, with operators and an opset that ONNX Runtime knows",
            ) from error
        yield worker


def kernel_help(message: str) -> str | None:
    """What to do where ONNX Runtime has no kernel for an operator at its types; None for any other message."""
    if "NOT_IMPLEMENTED" not in message and "Could not find an implementation" not in message:
        return None
    return (
        "ONNX Runtime has no kernel on the CPU for this operator at these types, which float64 often is: convert the "
        "model to float32 (`model.float()`) and export it again"
    )


def _readable(path: Path, pin_set: str) -> Path:
    """The file, or a copy beside it that is stamped with versions that the runtime reads.

    The IR version says how a file is laid out and no more, and writers stamp the newest that they know. An opset is
    stamped over only where it defines no operator of the graph differently. Locales that most machines lack are named
    anew.

    Raises:
        StageError: the file needs a newer opset than the runtime has.
    """
    package, _, version = pins(pin_set).requirement.partition("==")
    known, header = runtime(package, version), read_header(path)
    import onnx

    model = onnx.load(path, load_external_data=False)
    # ONNX Runtime takes a size of 0 for a promise.
    is_changed = open_dimensions(model) | name_portable_locales(model)
    if header.ir_version <= known.max_ir and header.opset <= known.max_opset and not is_changed:
        return path
    newer = differently_defined(graph_nodes(model), header.opset, known.max_opset)
    if header.opset > known.max_opset and newer:
        raise StageError(
            f"`{path.name}` has opset {header.opset}, ONNX Runtime {version} reaches {known.max_opset}, and the two "
            f"define {', '.join(newer)} differently",
            help=f"export the model again at opset {known.max_opset} or lower",
        )
    model.ir_version = min(header.ir_version, known.max_ir)
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = min(entry.version, known.max_opset)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".onnx", delete=False) as file:
        file.write(model.SerializeToString())
    return Path(file.name)


def run_original(worker: Worker, name: str, inputs: Path, outputs: Path) -> None:
    """Run the file on one case.

    Raises:
        StageError: ONNX Runtime does not run the file on these inputs.
    """
    try:
        worker.call("run", inputs=str(inputs), outputs=str(outputs))
    except WorkerError as error:
        if error.code != "refused":
            raise
        raise StageError(
            f"the ONNX file itself does not run at {name}: {error.message}",
            help="the file computes fewer sizes than `export.dynamic_axes` promises: change the bounds, or the ranges "
            "in `export.inputs`",
        ) from error
