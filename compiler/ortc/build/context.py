"""What all stages of one build share: plan, places, caches, and the reference process, started when first needed."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ortc.build.lock import Ingredients
from ortc.build.observation import built, check_built, observed
from ortc.build.progress import Progress
from ortc.common.digests import templates_digest
from ortc.common.disk import DiskFullError
from ortc.common.errors import StageError
from ortc.common.values import digest
from ortc.execution.action_cache import Entry, Store
from ortc.execution.action_record import action_key
from ortc.execution.code_closure import code_of, whole_code
from ortc.execution.files_opened import Opened, Recorder, latest
from ortc.execution.host import Host, cores, numeric_variables
from ortc.execution.runtime_environment import environment
from ortc.execution.worker import Worker, WorkerError
from ortc.execution.worker_pool import at_once
from ortc.frontend.fetch import Fetched
from ortc.frontend.reference.trained import MAY_BE_DRAWN, refuse_drawn
from ortc.frontend.samples.sources import samples_digest
from ortc.inspection.entrypoint import entrypoint_digest
from ortc.plan.plan import Plan, SourcePlan
from ortc.plan.texts import with_text
from ortc.spec.accuracy import Metric
from ortc.spec.model_sources import OnnxSource, PyTorchSource
from ortc.spec.runtimes import pins

T = TypeVar("T")
EXPORT_TOOLS = ("torch", "transformers", "onnx", "onnx-ir", "onnxscript", "numpy")


def tool_versions() -> dict[str, str]:
    """Versions of what takes part in making a graph."""
    versions = {name: importlib.metadata.version(name) for name in EXPORT_TOOLS}
    return {"python": ".".join(map(str, sys.version_info[:3])), **versions}


@dataclass(frozen=True)
class RemoteResult:
    """A result that a remote cache gave: `uri` names the record without its place, `record_sha256` is its digest."""

    stage: str
    subject: str
    key: str
    uri: str
    record_sha256: str


@dataclass
class Context:
    """One build of one spec."""

    plan: Plan
    root: Path
    store: Store
    host: Host
    progress: Progress
    work: Path
    stack: ExitStack
    fetched: Fetched
    tools: dict[str, str] = field(default_factory=tool_versions)
    variables: dict[str, str] = field(default_factory=numeric_variables)
    teacher: Fetched | None = None
    remeasured: frozenset[str] = frozenset()
    """Stages that measure again in spite of the cache, each action once."""
    states: dict[str, dict[str, str]] = field(default_factory=dict)
    expected: dict[str, str] | None = None
    opened: Opened = field(default_factory=Opened)
    """What the entry point of the model read, besides its code and the files that the spec names."""
    from_remote: dict[str, RemoteResult] = field(default_factory=dict)
    """Results that a remote cache gave, now or in an earlier build, by key."""
    _measured: dict[str, Entry] = field(default_factory=dict)
    """What this build measured of those, and on a busy machine: the cache has none of it."""
    _reference: Worker | None = None
    _opened: dict[str, Any] | None = None
    _is_timed: bool = False

    def __post_init__(self) -> None:
        self.plan = with_text(self.plan, self.fetched.directory)

    @property
    def has_reference(self) -> bool:
        """Whether PyTorch can run the model; an ONNX source is its own reference."""
        return not isinstance(self.plan.model, OnnxSource)

    def model_key(self) -> dict[str, Any]:
        """Everything that decides what the model computes, for cache keys."""
        return source_key(self.plan.model, self.fetched, self)

    def metric_inputs(self, declared: Metric) -> dict[str, Any]:
        """What the task metric of the reference depends on, besides what it reads."""
        return {
            "model": self.model_key(),
            "interface": self.plan.export.model_dump(mode="json", include={"axes", "inputs", "outputs"}),
            "metric": declared.entrypoint,
            "module": entrypoint_digest(declared.entrypoint, self.root),
            "code": code_of("metric"),
        }

    def ingredients(self) -> Ingredients:
        """What this build is made of, for ortc.lock."""
        samples = self.plan.accuracy.samples
        metric = self.plan.accuracy.metric
        entrypoints = [metric.entrypoint] if metric is not None else []
        teacher = self.plan.model.teacher
        sources = (self.plan.model, *([] if teacher is None else [teacher.model]))
        entrypoints += [source.entrypoint for source in sources if isinstance(source, PyTorchSource)]
        taught = {} if self.teacher is None else self.teacher.digests()
        code = [whole_code(), templates_digest(), *(entrypoint_digest(entry, self.root) for entry in entrypoints)]
        states, data = observed(self, None if metric is None else self.metric_inputs(metric))
        return Ingredients(
            states=states,
            data=data,
            files={**self.fetched.digests(), **{f"teacher/{name}": sha256 for name, sha256 in taught.items()}},
            samples_sha256=None if samples is None else samples_digest(samples, self.root),
            code_sha256=digest(code),
            tools=self.tools,
        )

    def observe(self, source: PyTorchSource, fetched: Fetched) -> dict[str, Any] | None:
        """Run the entry point of a model: digests of all parts of the module that it builds, and what it read.

        Returns:
            None in a dry run, which runs nothing of the user's.

        Raises:
            StageError: it fails.
        """
        if fetched is self.fetched:
            worker = self.reference()
            found = {"parts": worker.call("state")["parts"], "opened": self._opened}
            if source.weights in MAY_BE_DRAWN:
                return found
            refuse_drawn(source, found["parts"], worker.call("state of another")["parts"])
            return found
        request = {
            "model": source.model_dump(mode="json"),
            "directory": str(fetched.directory),
            "root": str(self.root),
        }
        with Worker.for_reference() as worker:
            found = worker.call("build", **request, other=False)
            if source.weights not in MAY_BE_DRAWN:
                refuse_drawn(source, found["parts"], worker.call("build", **request, other=True)["parts"])
            return found

    def recorder(self) -> Recorder:
        """Record what a function of the spec reads in this process, besides the model's files and the cache."""
        return Recorder(self.store.root, self.work, self.fetched.directory)

    def run(
        self,
        stage: str,
        subject: str,
        inputs: dict[str, Any],
        action: Any,
        is_final: Callable[[dict[str, Any]], bool] | None = None,
    ) -> Entry:
        """Run a cacheable action of a stage, with progress.

        A result that `is_final` does not accept holds for this build alone.
        """
        key, again = action_key(stage, inputs), stage in self.remeasured
        with self.progress.step(stage, subject) as step:
            entry = self._measured.get(key)
            if entry is None:
                try:
                    name = f"{self.plan.name}: {subject}"
                    entry = self.store.run(stage, inputs, action, name, is_final=is_final, again=again)
                finally:
                    for warning in self.store.warnings():
                        self.progress.note(warning)
                if entry.origin is not None:
                    self.from_remote[key] = RemoteResult(
                        stage=stage,
                        subject=name,
                        key=key,
                        uri=entry.origin,
                        record_sha256=self.store.records.sha256(key),
                    )
                step.cached, step.remote = entry.cached, entry.found == "remote"
                step.noisy = is_final is not None and not is_final(entry.result)
                if again or step.noisy:
                    self._measured[key] = entry
            else:
                step.cached = True
        return entry

    def run_recorded(
        self, stage: str, subject: str, inputs: dict[str, Any], action: Any
    ) -> tuple[dict[str, Any], Entry]:
        """Run a cacheable action whose result has `opened`, what a function of the spec read; again if that changed."""
        while True:
            inputs, _ = latest(self.store, stage, inputs, self.root)
            entry = self.run(stage, subject, inputs, action)
            if entry.pending or entry.found != "remote" or latest(self.store, stage, inputs, self.root)[0] == inputs:
                return inputs, entry

    def each(self, steps: Sequence[Callable[[], T]]) -> list[T]:
        """Do steps that do not depend on each other."""
        return at_once(steps)

    def reference(self, *, timed: bool = False) -> Worker:
        """The process that has the model in PyTorch.

        Raises:
            StageError: the model cannot be loaded.
        """
        self._is_timed = False
        if self._reference is None:
            worker = Worker.for_reference()
            with ExitStack() as starting:
                starting.enter_context(worker)
                self.load_reference(worker)
                source = self.plan.model
                if isinstance(source, PyTorchSource) and self.expected is not None and not timed:
                    check_built(self.expected, worker.call("state")["parts"], source.entrypoint)
                self.stack.push(starting.pop_all())
            self._reference = worker
        return self._reference

    def timed_reference(self) -> Worker:
        """A process that has the model in PyTorch and has done nothing but answer what is timed.

        One that has exported holds more memory and more threads than a user's would.

        Raises:
            StageError: the model cannot be loaded.
        """
        if not self._is_timed:
            self.fresh_reference()
        worker = self.reference(timed=True)
        self._is_timed = True
        return worker

    def load_reference(self, worker: Worker) -> None:
        """Have a reference process load the model, with as many threads as a bundle takes.

        Raises:
            StageError: the model cannot be loaded.
        """
        loaded = worker.call(
            "load",
            model=self.plan.model.model_dump(mode="json"),
            export=self.plan.export.model_dump(mode="json"),
            directory=str(self.fetched.directory),
            root=str(self.root),
            threads=cores(),
        )
        self._opened = loaded["opened"]

    def fresh_reference(self) -> None:
        """End the reference process; the next use starts another."""
        self._is_timed = False
        if self._reference is not None:
            self._reference.__exit__(None, None, None)
            self._reference = None

    def interpreter(self, pin_set: str, platforms: tuple[str, ...]) -> Path:
        """The interpreter of a pinned runtime environment on this host.

        Raises:
            StageError: it cannot be made.
        """
        with self.progress.step("environment", pin_set) as step:
            requirements = pins(pin_set).requirements_txt(platforms)
            made: list[bool] = []
            path = environment(requirements, self.store.root / "environments", on_make=lambda: made.append(True))
            step.cached = not made
        return path


def source_key(source: SourcePlan, fetched: Fetched, context: Context) -> dict[str, Any]:
    """Everything that decides what a model of a build computes, for cache keys."""
    key: dict[str, Any] = {
        "source": source.model_dump(mode="json", exclude={"mirrors", "files", "path", "teacher"}),
        "files": fetched.digests(),
        "tools": context.tools,
        "variables": context.variables,
        "code": code_of("model"),
    }
    if isinstance(source, PyTorchSource):
        key["module"] = entrypoint_digest(source.entrypoint, context.root)
        key["state"] = built(context, source, fetched)
    return key


def error_data(error: StageError) -> dict[str, Any]:
    """A failure as cacheable data."""
    return {"message": error.message, "help": error.help, "details": list(error.details)}


def is_of_the_model(error: StageError) -> bool:
    """Whether no exporter could do better: the model does what no graph can."""
    return isinstance(error, WorkerError) and error.code == "NotRepeatableError"


def is_deterministic(error: StageError) -> bool:
    """Whether the same inputs would fail again: not so for a process that died or hung, or a disk that was full."""
    if isinstance(error, DiskFullError):
        return False
    return not isinstance(error, WorkerError) or error.code not in ("died", "timeout", "internal")
