"""What a build is made of, for ortc.lock."""

from __future__ import annotations

from ortc.build.context import Context
from ortc.build.lock import Ingredients
from ortc.build.observation import observed, samples_key_of
from ortc.build.task_metric import metric_action
from ortc.common.digests import sha256_file, templates_digest
from ortc.common.values import digest
from ortc.execution.code_closure import whole_code
from ortc.frontend.samples.sources import samples_digest
from ortc.inspection.entrypoint import entrypoint_digest, entrypoint_files
from ortc.spec.accuracy import SamplesFunction
from ortc.spec.model_sources import PyTorchSource, models_beside


def ingredients(context: Context) -> Ingredients:
    """Digests of all that a build reads, and versions of its tools.

    Raises:
        StageError: something that the spec names cannot be found, or an entry point fails.
    """
    plan, workspace = context.plan, context.workspace
    samples, metric = plan.accuracy.samples, plan.accuracy.metric
    entrypoints = [metric.entrypoint] if metric is not None else []
    sources = (plan.model, *models_beside(plan.model).values())
    entrypoints += [source.entrypoint for source in sources if isinstance(source, PyTorchSource)]
    beside_it = {
        f"{role}/{name}": sha256 for role, files in workspace.beside.items() for name, sha256 in files.digests().items()
    }
    code = [whole_code(), templates_digest(), *(entrypoint_digest(entry, workspace.root) for entry in entrypoints)]
    beside = {
        f"{name} beside `{entry}`": sha256_file(path)
        for entry in entrypoints
        for name, path in entrypoint_files(entry, workspace.root).items()
    }
    states, data = observed(context, metric_action(context))
    return Ingredients(
        states={name: state.sha256 for name, state in states.items()},
        opaque={name: list(state.opaque) for name, state in states.items() if state.opaque},
        data=data,
        files={**workspace.fetched.digests(), **beside_it},
        samples_sha256=None if samples is None else _samples(context, samples),
        code_sha256=digest(code),
        beside=beside,
        tools=context.tools,
    )


def _samples(context: Context, samples: str | SamplesFunction) -> str | None:
    """The digest of the samples: of files, or of what a function gives."""
    if isinstance(samples, SamplesFunction):
        return samples_key_of(context)
    return samples_digest(samples, context.workspace.root)
