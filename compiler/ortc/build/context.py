"""What all stages of one build share: plan, workspace, host, reference process, and the runner that takes actions."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ortc.build.executor import Executor
from ortc.build.plain_runtime import CHECK_PINS
from ortc.build.progress import Progress
from ortc.build.reference_process import Modules, ReferenceProcess
from ortc.build.runner import Done, Runner, Work, latest_action
from ortc.build.stage import Action, R
from ortc.build.stages import FETCH
from ortc.build.workspace import Workspace
from ortc.common.disk import DiskFullError, room
from ortc.common.errors import StageError
from ortc.execution.action_cache import Store
from ortc.execution.cache_users import in_use
from ortc.execution.host import Host, describe, numeric_variables
from ortc.execution.work_directory import workplace
from ortc.execution.worker_process import WorkerError
from ortc.plan.plan import Plan
from ortc.plan.texts import with_text
from ortc.spec.model_sources import OnnxSource, reference_of
from ortc.spec.runtimes import pins

EXPORT_TOOLS = ("torch", "transformers", "onnx", "onnx-ir", "onnxscript", "numpy")


def tool_versions() -> dict[str, str]:
    """Versions of what takes part in making a graph."""
    versions = {name: importlib.metadata.version(name) for name in EXPORT_TOOLS}
    return {"python": ".".join(map(str, sys.version_info[:3])), **versions}


@dataclass
class Context:
    """One build of one spec.

    Attributes:
        plan: what is built.
        workspace: where.
        host: this machine.
        progress: told of every stage.
        runner: executes actions, looks them up, or records them.
        reference: the process that has the model in PyTorch.
        modules: what is known of the modules that entry points build.
        tools: versions of what takes part in making a graph.
        variables: of the environment, which numeric libraries read.
    """

    plan: Plan
    workspace: Workspace
    host: Host
    progress: Progress
    runner: Runner
    reference: ReferenceProcess
    modules: Modules
    tools: dict[str, str] = field(default_factory=tool_versions)
    variables: dict[str, str] = field(default_factory=numeric_variables)

    @property
    def has_reference(self) -> bool:
        """Whether PyTorch can run the model; an ONNX file is its own reference unless the spec names another."""
        return not isinstance(self.plan.model, OnnxSource) or reference_of(self.plan.model) is not None

    @property
    def reference_runtime(self) -> str | None:
        """The digest of the requirements that an ONNX file answers in; None where PyTorch answers."""
        return None if self.has_reference else pins(CHECK_PINS).sha256

    def run(self, action: Action[R], work: Work[R]) -> Done[R]:
        """Have the runner take an action."""
        return self.runner.run(action, work)

    def run_with_files(self, action: Action[R], work: Work[R]) -> Done[R]:
        """Have the runner take an action that reads files by a function of the spec; again if those changed."""
        store, root = self.workspace.store, self.workspace.root
        while True:
            action = latest_action(store, action, root)[0]
            done = self.run(action, work)
            if done.entry is None or done.entry.found != "remote" or latest_action(store, action, root)[0] == action:
                return done


@contextmanager
def opened(plan: Plan, workspace: Workspace, runner: Runner, progress: Progress | None = None) -> Iterator[Context]:
    """A build on this host over a workspace, whatever its runner does with actions; its processes end with the block.

    Args:
        plan: what is built, and may take texts.
        workspace: with the model's files, or what stands for them.
        runner: takes the actions.
        progress: told of every stage; nobody is when None.
    """
    plan, modules = with_text(plan, workspace.fetched.directory), Modules()
    with ExitStack() as stack:
        reference = ReferenceProcess(plan, workspace, modules, stack)
        yield Context(plan, workspace, describe(), progress or Progress(), runner, reference, modules)


@contextmanager
def executed(
    plan: Plan, root: Path, store: Store, progress: Progress, remeasured: frozenset[str] = frozenset()
) -> Iterator[Context]:
    """A build that executes its actions, with the model's files at hand.

    Args:
        plan: what to build.
        root: what the spec's relative paths resolve against.
        store: finished actions, source files, runtime environments.
        progress: told of every stage.
        remeasured: names of stages of times that are done again though their results are in the cache.

    Raises:
        StageError: a file of the model cannot be had, or the cache has no room.
    """
    with ExitStack() as stack:
        with room(("the cache", store.root)):
            stack.enter_context(in_use(store.root))
            work = stack.enter_context(workplace(store.root))
        with progress.step(FETCH, plan.name):
            workspace = Workspace.with_files(plan, root, store, work)
        runner = Executor(plan.name, store, progress, remeasured)
        yield stack.enter_context(opened(plan, workspace, runner, progress))


def is_of_the_model(error: StageError) -> bool:
    """Whether no exporter could do better: the model does what no graph can."""
    return isinstance(error, WorkerError) and error.code == "NotRepeatableError"


def is_deterministic(error: StageError) -> bool:
    """Whether the same inputs would fail again: not so for a process that died or hung, or a disk that was full."""
    if isinstance(error, DiskFullError):
        return False
    return not isinstance(error, WorkerError) or error.code not in ("died", "timeout", "internal")
