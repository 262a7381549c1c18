"""Try one architecture: the compiler's own stages over its spec, with the PyTorch model in this process.

`python trial.py` reads requests as JSON lines, `{"architecture": …, "opset": 20, "variants": […]}`, and answers each
with what was found. What a build does in processes of their own is done here by the same code: importing torch for each
of fifty models would take longer than the models do.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catalogue import Architecture

from ortc.build.context import Context, opened
from ortc.build.executor import Executor
from ortc.build.model import build_model
from ortc.build.progress import Progress
from ortc.build.reference_process import ReferenceProcess
from ortc.build.runner import Done, Work
from ortc.build.stage import Action, R
from ortc.build.stages import SHAPE_MATRIX
from ortc.build.variant import VariantBuilder
from ortc.build.workspace import Workspace
from ortc.common.errors import OrtcError
from ortc.common.resources import cache_root
from ortc.evaluation.gates import describe as told
from ortc.evaluation.report import Check
from ortc.execution.action_cache import Store
from ortc.execution.worker import Worker
from ortc.execution.worker_process import WorkerError
from ortc.execution.worker_protocol import reply
from ortc.frontend.__main__ import Server
from ortc.plan.checks import check_spec
from ortc.plan.resolve import resolve

Json = dict[str, Any]


class Here(Worker):
    """The reference process's operations, in this process."""

    def __init__(self) -> None:
        super().__init__("reference", [])
        self._server = Server()

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        self._scratch.cleanup()

    def call(self, operation: str, **arguments: object) -> Json:
        """One operation, as the process would do it."""
        answer = reply(self._server.operations, json.dumps({"op": operation, **arguments}))
        if not answer["ok"]:
            error = answer["error"]
            raise WorkerError(
                error["code"], error["message"], help=error.get("help"), details=tuple(error.get("details") or ())
            )
        result: Json = answer.get("result") or {}
        return result


class InProcess(ReferenceProcess):
    """A reference in this process."""

    def new_worker(self) -> Worker:
        """The model in PyTorch."""
        return Here()


@dataclass
class Trial(Executor):
    """Executes actions, and keeps what the check of the exported graph says.

    `worst` is the greatest difference of the graph as it was exported, over the shape matrix.
    """

    worst: float | None = field(default=None, init=False)

    def run(self, action: Action[R], work: Work[R]) -> Done[R]:
        """Execute an action."""
        done = super().run(action, work)
        if isinstance(done.known, Check) and action.stage.name == SHAPE_MATRIX.name:
            differences = [found.max_abs for case in done.known.cases for found in case.differences]
            self.worst = max(differences, default=None)
        return done


@contextlib.contextmanager
def context_of(architecture: Architecture, opset: int) -> Iterator[tuple[Context, Trial]]:
    """A build of an architecture's spec, in directories that are removed at the end."""
    with tempfile.TemporaryDirectory(prefix="ortc-architecture-") as name, ExitStack() as stack:
        root = Path(name)
        (root / "pyproject.toml").touch()
        (root / "model").mkdir()
        (root / "model" / "config.json").write_text(json.dumps(architecture.config), "utf-8")
        spec = root / "spec.yaml"
        # JSON is YAML.
        spec.write_text(json.dumps(architecture.spec(opset)), "utf-8")
        checked = check_spec(spec)
        plan = resolve(checked.loaded.spec, checked.profiles)
        store = Store(root / "cache")
        # Runtime environments are shared: making one downloads.
        environments = cache_root() / "environments"
        environments.mkdir(parents=True, exist_ok=True)
        (root / "cache").mkdir(exist_ok=True)
        (root / "cache" / "environments").symlink_to(environments)
        (root / "work").mkdir()
        workspace, runner = Workspace.with_files(plan, root, store, root / "work"), Trial(plan.name, store, Progress())
        context = stack.enter_context(opened(plan, workspace, runner, runner.progress))
        context.reference = InProcess(plan, workspace, context.modules, stack)
        yield context, runner


INSTALLED = re.compile(r"/[^\s\"']*/site-packages/")
"""Where this machine keeps packages, which says nothing to readers of the record."""


def trial(architecture: Architecture, opset: int, variants: Sequence[str]) -> Json:
    """What became of one architecture at one opset, and of some of the target's variants.

    Returns:
        `exporter` and `max_abs` where the exported graph is right over the whole shape matrix, else `error` with its
        help and the place; of each variant its verdict, `max_abs` and the worst `cosine`; and the seconds it took.
    """
    begin = time.monotonic()
    found: Json = {"name": architecture.name, "opset": opset}
    try:
        with context_of(architecture, opset) as (context, runner):
            model = build_model(context)
            target = context.plan.targets[0]
            builder = VariantBuilder(context, model, target)
            exported = model.material.exported
            found |= {
                "exporter": exported.exporter,
                "reason": model.material.exporter_reason,
                "cases": len(context.plan.cases),
                "inputs": {tensor.name: list(tensor.shape) for tensor in exported.inputs},
                "outputs": [output.name for output in exported.outputs],
                "max_abs": runner.worst,
            }
            for variant in target.variants:
                if variant.name in variants:
                    made = builder.verify(builder.make(variant, target.graph_levels[0]))
                    found[variant.name] = "pass" if made.failed is None else told(made.failed)
                    values = [entry for case in (made.check.cases if made.check else ()) for entry in case.differences]
                    if values:
                        cosines = [entry.cosine for entry in values if entry.cosine is not None]
                        found[f"{variant.name} max_abs"] = max(entry.max_abs for entry in values)
                        found[f"{variant.name} cosine"] = min(cosines, default=None)
    except OrtcError as error:
        found |= {
            "error": error.message,
            "help": error.help,
            "details": [INSTALLED.sub("", detail) for detail in error.details],
            "kind": type(error).__name__,
        }
    found["seconds"] = round(time.monotonic() - begin, 1)
    return found


def main() -> None:
    """Answer requests until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    # Exporters print, through whatever they find.
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        found = trial(Architecture(**request["architecture"]), request["opset"], request["variants"])
        answers.write(json.dumps(found) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
