"""`python warm_server.py PLACE KEY MODULE`: fork processes that have imported what commands import; see warm.py.

It ends with the process that OWNER names in PLACE, and starts no thread, so that a fork has all that there is.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import runpy
import selectors
import signal
import socket
import sys
import tempfile
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HELPERS = (
    *("torch", "torch.onnx._internal.exporter._core", "torch.onnx._internal.exporter._torchlib.ops"),
    *("torch._dynamo", "torch._export.non_strict_utils", "torch._export.passes.collect_tracepoints_pass"),
    *("torch._functorch._aot_autograd.graph_compile", "torch.export.pt2_archive", "torch._inductor.codecache"),
    *("onnxscript.function_libs.torch_lib.ops", "onnxscript.rewriter.onnx_fusions", "networkx", "onnx.checker"),
    *("onnx.shape_inference", "onnx.version_converter", "safetensors.torch", "transformers.models.bert.modeling_bert"),
    *("transformers.models.auto.modeling_auto", "ortc.frontend.__main__", "ortc.frontend.export"),
    *("ortc.frontend.reference.load", "ortc.frontend.reference.huggingface", "ortc.frontend.reference.custom"),
    *("ortc.frontend.reference.repeatable", "ortc.frontend.reachable.modules", "ortc.execution.files_opened"),
    *("torch.export._trace", "torch.export._unlift", "torch._export.passes.replace_set_grad_with_hop_pass"),
    *("torch._functorch.aot_autograd", "torch._inductor.fx_passes.dedupe_symint_uses", "sympy.tensor.tensor"),
    *("torch.onnx._internal.exporter._compat", "ortc.passes.__main__", "ortc.passes.make_variant"),
)
COMPILER = (
    *("numpy", "onnx", "onnx_ir.passes.common", "ortc.cli.build", "ortc.cli.plan", "ortc.cli.lock", "ortc.cli.table"),
    *("ortc.cli.verify", "ortc.cli.signals", "ortc.build.pipeline", "ortc.spec.load", "ortc.plan.resolve"),
    *("ortc.plan.checks", "ortc.inspection.draft_spec", "ortc.inspection.weights", "ortc.bundle.render", "jinja2"),
    *("cyclonedx.model.bom", "cyclonedx.output.json", "safetensors", "yaml"),
)
"""What helpers import, and what the compiler itself does. What is missing here each process imports again."""


@dataclass
class Child:
    """A process that a client waits for."""

    pid: int
    watch: int
    connection: socket.socket


def main() -> dict[str, Any]:
    """Serve; returns in a forked process, with what it is to do."""
    place, key, module = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    owner = os.pidfd_open(int((place / "owner").read_text("ascii")))
    for name in COMPILER if module == "ortc" else HELPERS:
        try:
            importlib.import_module(name)
        except ImportError as error:
            # Of another release of its package: each process imports what takes its place.
            sys.stderr.write(f"{name}: {error}\n")
    for name in [name for name in sys.modules if name.startswith("ortc.") and name.endswith(".__main__")]:
        # Each is run as a program, by its package's name.
        del sys.modules[name]
    # OpenBLAS has threads from its import on, ends them before a fork, and starts others when it computes.
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208
        raise RuntimeError("an import has started a thread, which a fork would be without")
    gc.collect()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(place / f"{key}.new"))
    listener.listen(64)
    (place / f"{key}.new").rename(place / f"{key}.sock")
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ, None)
    selector.register(owner, selectors.EVENT_READ, None)
    children: dict[int, Child] = {}
    while True:
        for event, _ in selector.select():
            if event.fileobj is listener:
                task = _fork(listener, selector, children)
                if task is not None:
                    return task
            elif event.fileobj == owner:
                for child in children.values():
                    _kill(child, signal.SIGKILL)
                raise SystemExit(0)
            else:
                _attend(event.fileobj, event.data, selector, children)


def _fork(
    listener: socket.socket, selector: selectors.BaseSelector, children: dict[int, Child]
) -> dict[str, Any] | None:
    connection, _ = listener.accept()
    asked = _received(connection)
    if asked is None:
        connection.close()
        return None
    task, descriptors = asked
    pid = os.fork()
    if pid == 0:
        selector.close()
        listener.close()
        connection.close()
        for child in children.values():
            os.close(child.watch)
            child.connection.close()
        _become(task, descriptors)
        return task
    for descriptor in descriptors:
        os.close(descriptor)
    child = children[pid] = Child(pid, os.pidfd_open(pid), connection)
    selector.register(child.watch, selectors.EVENT_READ, child)
    selector.register(connection, selectors.EVENT_READ, child)
    with contextlib.suppress(OSError):
        connection.send(b"+")
    return None


def _received(connection: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    connection.settimeout(30)
    try:
        head, descriptors, _, _ = socket.recv_fds(connection, 4, 3)
        wanted, content = int.from_bytes(head, "big"), b""
        while len(content) < wanted:
            piece = connection.recv(wanted - len(content))
            if not piece:
                return None
            content += piece
    except OSError:
        return None
    connection.settimeout(None)
    return json.loads(content), list(descriptors)


def _attend(place: Any, child: Child, selector: selectors.BaseSelector, children: dict[int, Child]) -> None:
    """A process has ended, or its client passes a signal on or has ended."""
    if child.pid not in children:
        return
    if place == child.watch:
        _, status = os.waitpid(child.pid, 0)
        del children[child.pid]
        selector.unregister(child.watch)
        os.close(child.watch)
        if child.connection.fileno() >= 0:
            selector.unregister(child.connection)
            with contextlib.suppress(OSError):
                child.connection.send(status.to_bytes(4, "big"))
            child.connection.close()
        return
    try:
        numbers = child.connection.recv(16)
    except OSError:
        numbers = b""
    for number in numbers or [signal.SIGKILL]:
        _kill(child, number)
    if not numbers:
        selector.unregister(child.connection)
        child.connection.close()


def _kill(child: Child, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child.pid, number)


def _become(task: dict[str, Any], descriptors: list[int]) -> None:
    """Make this process what the client would have been."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    for descriptor in descriptors:
        os.close(descriptor)
    os.chdir(task["directory"])
    os.umask(task["umask"])
    os.environ.clear()
    os.environ.update(task["environment"])
    tempfile.tempdir = None
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()


if __name__ == "__main__":
    try:
        task = main()
    except BaseException:
        Path(sys.argv[1], f"{sys.argv[2]}.ended").touch()
        raise
    from warm import default_signals

    default_signals(task["ignored"])
    sys.orig_argv[:] = task["words"]
    sys.argv[:] = ["-m", *task["arguments"]]
    if not sys.flags.safe_path:
        sys.path[0] = task["directory"]
    module = task["module"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    del task
    runpy._run_module_as_main(module)
