"""The process that has the model in PyTorch: started when it is first needed, and ended when it would disturb."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ortc.build.workspace import Workspace, about
from ortc.common.errors import StageError
from ortc.execution.files_opened import Opened
from ortc.execution.host import cores
from ortc.execution.worker import Worker
from ortc.execution.worker_process import WorkerError
from ortc.passes.canonical import Exported
from ortc.plan.plan import Plan, SourcePlan
from ortc.spec.model_sources import PyTorchSource, Reference, reference_of


class Observed(NamedTuple):
    """The module of an entry point: its digest, what stands for it in keys, and objects that nothing can see into."""

    sha256: str
    key: str
    opaque: tuple[str, ...] = ()


@dataclass
class Modules:
    """What is known of the modules that entry points build, and of the samples that a function gives.

    Attributes:
        given: what the function of the samples gave, and its digest, once it has run.
        states: what is known of them, by what decides them.
        expected: digests of the parts of the model, once they are known.
        opened: what the model's entry point read, besides its code and the files that the spec names.
    """

    given: tuple[list[object], str] | None = None
    states: dict[str, Observed] = field(default_factory=dict)
    expected: dict[str, str] | None = None
    opened: Opened = field(default_factory=Opened)


@dataclass
class ReferenceProcess:
    """The reference of one build.

    Attributes:
        plan: whose model is loaded.
        workspace: with the model's files.
        modules: what the model's module has to be.
        stack: ends the process with the build.
        opened: what the entry point read when the process loaded the model.
        interface: the inputs and outputs of the ONNX file that was made from the model; None for any other source.
    """

    plan: Plan
    workspace: Workspace
    modules: Modules
    stack: ExitStack
    opened: dict[str, Any] | None = field(default=None, init=False)
    interface: Exported | None = field(default=None, init=False)
    _worker: Worker | None = field(default=None, init=False)
    _is_timed: bool = field(default=False, init=False)

    def worker(self, *, timed: bool = False) -> Worker:
        """The process, which may have done anything before.

        Raises:
            StageError: the model cannot be loaded.
        """
        self._is_timed = False
        if self._worker is None:
            worker = self.new_worker()
            with ExitStack() as starting:
                starting.enter_context(worker)
                self.load(worker)
                source = self.plan.model
                if isinstance(source, PyTorchSource) and self.modules.expected is not None and not timed:
                    check_built(self.modules.expected, worker.call("state")["parts"], source.entrypoint)
                self.stack.push(starting.pop_all())
            self._worker = worker
        return self._worker

    def timed(self) -> Worker:
        """A process that has done nothing but answer what is timed.

        One that has exported holds more memory and more threads than a user's would.

        Raises:
            StageError: the model cannot be loaded.
        """
        if not self._is_timed:
            self.end()
        worker = self.worker(timed=True)
        self._is_timed = True
        return worker

    def end(self) -> None:
        """End the process; the next use starts another."""
        self._is_timed = False
        if self._worker is not None:
            self._worker.__exit__(None, None, None)
            self._worker = None

    def new_worker(self) -> Worker:
        """The worker that is started."""
        return Worker.for_reference()

    def load(self, worker: Worker, *, other: bool = False) -> None:
        """Have a process load the model, with as many threads as a bundle takes.

        With `other`, every random number that its entry point draws is another.

        Raises:
            StageError: the model cannot be loaded.
        """
        if (declared := reference_of(self.plan.model)) is not None:
            self._load_reference(worker, declared)
            return
        loaded = call_for(
            self.plan.model,
            worker,
            "load",
            model=self.plan.model.model_dump(mode="json"),
            export=self.plan.export.model_dump(mode="json"),
            directory=str(self.workspace.fetched.directory),
            root=str(self.workspace.root),
            threads=cores(),
            other=other,
        )
        if not other:
            self.opened = loaded["opened"]

    def _load_reference(self, worker: Worker, declared: Reference) -> None:
        """Have a process load the model that the ONNX file was made from, with the file's inputs."""
        if self.interface is None:
            raise StageError("the interface of the ONNX file is not known yet")
        # Outputs are named alike once all are known.
        export = self.plan.export.model_copy(update={"inputs": self.interface.inputs, "outputs": declared.outputs})
        with about("reference"):
            call_for(
                declared.model,
                worker,
                "load",
                model=declared.model.model_dump(mode="json"),
                export=export.model_dump(mode="json"),
                directory=str(self.workspace.beside["reference"].directory),
                root=str(self.workspace.root),
                threads=cores(),
                answers=[output.name for output in self.interface.outputs],
            )


def call_for(source: SourcePlan, worker: Worker, operation: str, **arguments: object) -> dict[str, Any]:
    """One request that runs the entry point of a source.

    Raises:
        StageError: the worker says so; or its process ended, which the user's code may have done.
    """
    try:
        return worker.call(operation, **arguments)
    except WorkerError as error:
        if error.code == "died" and isinstance(source, PyTorchSource) and error.help is None:
            error.message = f"`{source.entrypoint}` ended the process in which it runs: {error.message}"
            error.help = "a function that a spec names returns its result; it does not end its process"
            error.details = error.details[-3:]
        raise


def check_built(expected: dict[str, str], parts: dict[str, str], entrypoint: str) -> None:
    """Refuse an entry point that builds another module every time.

    Raises:
        StageError: naming a part that differs.
    """
    if parts == expected:
        return
    differing = [name for name in {**expected, **parts} if expected.get(name) != parts.get(name)]
    raise StageError(
        f"`{entrypoint}` builds another module each time that it is called: `{differing[0]}` differs"
        + (f", and {len(differing) - 1} more" if len(differing) > 1 else ""),
        help="what was proven must be what ships: load trained weights (`model.weights`), or seed every random number "
        "generator that the function draws from (ortc seeds torch's)",
    )
