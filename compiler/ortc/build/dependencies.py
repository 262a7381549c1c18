"""What went into a build besides the compiler itself, for the provenance of its bundles."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ortc.build.context import Context
from ortc.build.observation import observed
from ortc.build.task_metric import metric_action
from ortc.bundle.assemble import Material, loaded_sources
from ortc.bundle.supply_chain.provenance import Dependency
from ortc.common.digests import sha256_file
from ortc.inspection.entrypoint import entrypoint_files
from ortc.inspection.image_files import image_files
from ortc.inspection.repository import ADAPTER_PLACE
from ortc.plan.plan import SourcePlan, TargetPlan
from ortc.spec.accuracy import SamplesFunction
from ortc.spec.model_sources import Adapter, HuggingFaceSource, PyTorchSource, models_beside

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
FROM_REMOTE = "result of a remote cache"
DIGESTED = re.compile(r"(?P<name>[^@]+)@sha256:(?P<sha256>[0-9a-f]{64})")


def dependencies(context: Context, material: Material, target: TargetPlan) -> tuple[Dependency, ...]:
    """Everything that decided the bytes of a bundle and can be named by a digest.

    Args:
        context: of the build.
        material: the model.
        target: of the bundle.

    Raises:
        StageError: the code of an entry point cannot be found any more.
    """
    source = context.plan.model
    read = {file.name: file.sha256 for file in loaded_sources(material)}
    merged = {name: sha256 for name, sha256 in read.items() if name.startswith(f"{ADAPTER_PLACE}/")}
    model = {name: sha256 for name, sha256 in read.items() if name not in merged}
    found = [
        *_repository(source, "model", model),
        *_sources(model, "model", getattr(source, "license", None)),
        *_adapter(source, merged),
        *_code(source, "model", context.workspace.root),
        *_beside(context),
        *_samples(context),
    ]
    metric = context.plan.accuracy.metric
    if metric is not None:
        found += _files(entrypoint_files(metric.entrypoint, context.workspace.root), "metric code")
    _, data = observed(context, metric_action(context))
    found += [Dependency(name=name, role="data", digest={"sha256": sha256}) for name, sha256 in sorted(data.items())]
    found += () if target.image is None else base_image(target.image.base_image)
    found += [
        Dependency(
            name=entry.stage,
            role=FROM_REMOTE,
            digest={"sha256": entry.record_sha256},
            uri=entry.uri,
            annotations={"key": entry.key, "subject": entry.subject},
        )
        for _, entry in sorted(context.runner.from_remote.items())
    ]
    return tuple(found)


def base_image(image: str) -> tuple[Dependency, ...]:
    """The base image of a Dockerfile, with its digest where it is pinned by one."""
    pinned = DIGESTED.fullmatch(image)
    if pinned is None:
        return (Dependency(name=image, role="base image", digest={}, uri=f"docker://{image}"),)
    digest = {"sha256": pinned["sha256"]}
    return (Dependency(name=pinned["name"], role="base image", digest=digest, uri=f"docker://{image}"),)


def _sources(files: Mapping[str, str], role: str, license_: str | None) -> Iterator[Dependency]:
    """Files with their digests, and the licence that the spec states of them."""
    stated = {} if license_ is None else {"license": license_}
    for name, sha256 in files.items():
        yield Dependency(name=name, role=role, digest={"sha256": sha256}, annotations=stated)


def _adapter(source: SourcePlan, files: Mapping[str, str]) -> Iterator[Dependency]:
    """The adapter that was merged into the model: its repository where it is of the hub, and its files."""
    adapter = source.adapter if isinstance(source, HuggingFaceSource) else None
    if adapter is None:
        return
    names = {name.removeprefix(f"{ADAPTER_PLACE}/"): sha256 for name, sha256 in files.items()}
    yield from _repository(adapter, "adapter", names)
    yield from _sources(files, "adapter", adapter.license)


def _repository(source: SourcePlan | Adapter, role: str, files: Mapping[str, str]) -> Iterator[Dependency]:
    """The repository of the hub at its commit; nothing where a branch or a directory is named."""
    if (
        not isinstance(source, HuggingFaceSource | Adapter)
        or not source.id
        or not _COMMIT.fullmatch(source.revision or "")
    ):
        return
    declared = {name: sha256 for name, sha256 in source.files.items() if name in files}
    verified = declared == {name: files[name] for name in declared} and len(declared) == len(files)
    yield Dependency(
        name=source.id,
        role=f"{role} repository",
        digest={"gitCommit": str(source.revision)},
        uri=f"pkg:huggingface/{source.id}@{source.revision}",
        annotations={"verified": "sha256 of every file" if verified else "files by this commit"},
    )


def _beside(context: Context) -> Iterator[Dependency]:
    """The models beside the one that ships."""
    for role, source in models_beside(context.plan.model).items():
        files = context.workspace.beside[role].digests()
        yield from _repository(source, role, files)
        for name, sha256 in files.items():
            yield Dependency(name=f"{role}/{name}", role=role, digest={"sha256": sha256})
        yield from _code(source, role, context.workspace.root)


def _samples(context: Context) -> Iterator[Dependency]:
    samples = context.plan.accuracy.samples
    if samples is None:
        return
    if isinstance(samples, SamplesFunction):
        yield from _files(entrypoint_files(samples.entrypoint, context.workspace.root), "samples code")
        return
    path = context.workspace.root / samples
    files = image_files(path) if path.is_dir() else [path]
    for file in files:
        # A path of the spec, which is no path of this machine.
        name = samples if file == path else f"{samples.rstrip('/')}/{file.relative_to(path).as_posix()}"
        yield Dependency(name=name, role="samples", digest={"sha256": sha256_file(file)})


def _code(source: SourcePlan, role: str, root: Path) -> Iterator[Dependency]:
    if isinstance(source, PyTorchSource):
        yield from _files(entrypoint_files(source.entrypoint, root), f"{role} code")


def _files(files: Mapping[str, Path], role: str) -> Iterator[Dependency]:
    for name, path in sorted(files.items()):
        yield Dependency(name=name, role=role, digest={"sha256": sha256_file(path)})
