"""Pack the weights of a variant for this processor, besides the form that runs on any."""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path

from ortc.build.stage_results import Skip
from ortc.build.stages import PREPACK
from ortc.build.tried import Tried
from ortc.build.variant import VariantBuilder
from ortc.bundle.manifest import to_json
from ortc.bundle.session_file import Prepacked, session_file
from ortc.common.errors import NotApplicable
from ortc.evaluation.accuracy import CPU
from ortc.evaluation.budget_gates import size_verdicts
from ortc.execution.host import processor
from ortc.passes.canonical import PREPACKED_FILE
from ortc.passes.variant_graph import VariantGraph


def packed(builder: VariantBuilder, entry: Tried) -> Tried:
    """A variant with packed weights besides, to be judged again.

    Raises:
        NotApplicable: there is nothing to pack, or nothing that this machine could pack it for.
        StageError: the runtime fails.
    """
    made = entry.made
    first = made.session.providers[0].name
    if first != CPU:
        raise NotApplicable(f"{first} packs them in its own way")
    if builder.target.is_javascript:
        raise NotApplicable("loaders in JavaScript open one graph, whatever processor they run on")
    if not builder.promised:
        raise NotApplicable(f"this host is {builder.platform}, none of the target's platforms")
    if not (kind := processor()):
        raise NotApplicable("this host does not say what processor it has")
    interpreter, session = builder.runner(made), to_json(session_file(made.session, made.level))
    inputs = {
        "variant": entry.key,
        "session": session,
        "processor": kind,
        "runtime": made.variant.runtime.model_dump(mode="json"),
        "variables": builder.context.variables,
    }

    def work(output: Path) -> VariantGraph | Skip:
        from ortc.passes.prepack import prepack

        with tempfile.TemporaryDirectory(prefix="plain-", dir=builder.context.workspace.work) as scratch:
            for name, file in made.files().items():
                # Copies: ONNX reads no external data through links.
                shutil.copyfile(file, Path(scratch) / name)
            try:
                return prepack(interpreter, Path(scratch), output, session, made.graph)
            except NotApplicable as error:
                return Skip(skip=error.message)

    done = builder.context.run(PREPACK.action(f"{builder.target.name}: {made.variant.name}", inputs), work)
    if isinstance(graph := done.result, Skip):
        raise NotApplicable(graph.skip)
    new = made.packed(
        partial(builder.context.workspace.proven, done),
        graph,
        Prepacked(file=f"model/{PREPACKED_FILE}", processor=kind, runtime=made.variant.runtime.version),
    )
    verdicts = size_verdicts(builder.target, made.variant, graph.bytes, builder.platform)
    return Tried(made=new, key=done.key, check=None, verdicts=verdicts, lowered=entry.lowered)
