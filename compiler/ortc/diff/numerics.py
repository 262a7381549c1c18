"""What two bundles compute: each run by its own loader in its own pinned environment, on the golden inputs of both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ortc.build.progress import Progress
from ortc.bundle.interpreter import interpreter_of
from ortc.bundle.manifest import GoldenInfo
from ortc.common.arrays import Array, Arrays, read_arrays
from ortc.common.digests import sha256_file
from ortc.common.errors import StageError
from ortc.diff.bundles import Bundle
from ortc.diff.report import CaseDistance, GoldenDistance, Numerics, OutputDistance
from ortc.evaluation.accuracy_gates import differs
from ortc.evaluation.compare import compare
from ortc.execution.action_cache import Store
from ortc.execution.browser.chromium import find_chromium
from ortc.execution.host import Host
from ortc.execution.node.program import find_node
from ortc.execution.worker import Worker, is_for_node
from ortc.execution.worker_process import WorkerError
from ortc.spec.vocabulary import WEB

A, B = "A", "B"
_GPU = ("CUDAExecutionProvider", "TensorrtExecutionProvider")


@dataclass(frozen=True)
class Runnable:
    """A bundle with the interpreter of its own environment."""

    side: str
    bundle: Bundle
    interpreter: Path


@dataclass(frozen=True)
class _Case:
    """Inputs, and the golden case of either bundle that has them."""

    name: str
    inputs: Arrays
    masks: Mapping[str, Array]
    before: GoldenInfo | None
    after: GoldenInfo | None


def why_not_here(side: str, bundle: Bundle, host: Host) -> str | None:
    """Why a bundle cannot be run on a host; None when it can."""
    if WEB in bundle.manifest.platforms:
        return None if find_chromium() is not None else f"{side} is for browsers, and there is no Chromium on this host"
    if host.platform not in bundle.manifest.platforms:
        return f"{side} is for {', '.join(bundle.manifest.platforms)}, this host is {host.platform}"
    if is_for_node(bundle.path) and find_node() is None:
        return f"{side} is for Node.js, and there is none on this host"
    if not host.gpus and any(provider.name in _GPU for provider in bundle.session.providers):
        return f"{side} needs a GPU, and this host has none"
    return None


def prepare(
    before: Bundle, after: Bundle, host: Host, store: Store, progress: Progress
) -> tuple[Runnable, Runnable] | str:
    """Both bundles ready to be run, or why they cannot be on this host.

    Raises:
        StageError: an environment cannot be made.
    """
    for side, bundle in ((A, before), (B, after)):
        if (reason := why_not_here(side, bundle, host)) is not None:
            return reason
    ready = [_ready(side, bundle, store, progress) for side, bundle in ((A, before), (B, after))]
    return ready[0], ready[1]


def _ready(side: str, bundle: Bundle, store: Store, progress: Progress) -> Runnable:
    made: list[bool] = []
    with progress.step("environment", side) as step:
        root = store.root / "environments"
        interpreter = interpreter_of(bundle.path, root, on_make=lambda: made.append(True))
        step.cached = not made
    return Runnable(side, bundle, interpreter)


def numerics(before: Runnable, after: Runnable, platform: str) -> Numerics:
    """Outputs of both on the golden inputs of both, and of each against its own golden outputs.

    A bundle that does not load or run, because a file is damaged for example, is told in `failed`.

    Raises:
        StageError: golden files cannot be read.
    """
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Worker.for_bundle(one.side, one.interpreter, one.bundle.path))
            for one in (before, after)
        ]
        failed = []
        for one, worker in zip((before, after), workers, strict=True):
            try:
                worker.call("load", bundle=str(one.bundle.path), verify="full", selftest=False, warmup=False)
            except WorkerError as error:
                failed.append(f"{one.side} does not load: {error.message}")
        if failed:
            return Numerics(platform=platform, failed=tuple(failed))
        cases: list[CaseDistance] = []
        golden: tuple[list[GoldenDistance], list[GoldenDistance]] = ([], [])
        for case in _cases(before.bundle, after.bundle):
            answers: list[Arrays] = []
            problem = None
            for index, (one, worker) in enumerate(zip((before, after), workers, strict=True)):
                try:
                    answers.append(worker.run(case.inputs))
                except WorkerError as error:
                    if error.code != "input":
                        failed.append(f"{one.side} fails at {case.name}: {error.message}")
                    problem = f"{one.side} does not run on these inputs: {error.message}"
                    continue
                if (own := (case.before, case.after)[index]) is not None:
                    expected = _arrays(one.bundle, own.outputs)
                    golden[index].append(
                        GoldenDistance(case=own.name, outputs=_distances(expected, answers[-1], case.masks))
                    )
            of: Literal["A", "B", "both"] = "both" if case.before and case.after else "A" if case.before else "B"
            outputs = () if problem else _distances(answers[0], answers[1], case.masks)
            cases.append(CaseDistance(case=case.name, golden_of=of, outputs=outputs, problem=problem))
    return Numerics(
        platform=platform,
        failed=tuple(failed),
        cases=tuple(cases),
        golden_before=tuple(golden[0]),
        golden_after=tuple(golden[1]),
    )


def _cases(before: Bundle, after: Bundle) -> Iterator[_Case]:
    """Golden cases of both; those with equal inputs once."""
    of_after = {sha256_file(after.file(golden.inputs)): golden for golden in after.manifest.golden}
    for golden in before.manifest.golden:
        twin = of_after.pop(sha256_file(before.file(golden.inputs)), None)
        yield _case(before, golden, golden, twin)
    for golden in of_after.values():
        yield _case(after, golden, None, golden)


def _case(bundle: Bundle, golden: GoldenInfo, before: GoldenInfo | None, after: GoldenInfo | None) -> _Case:
    inputs = _arrays(bundle, golden.inputs)
    mask = None if golden.mask is None else inputs.get(golden.mask)
    if mask is not None and golden.mask_is_padding:
        mask = mask == 0
    names = golden.masked_outputs
    if names is None:
        names = tuple(output.name for output in bundle.manifest.outputs)
    masks = {} if mask is None else dict.fromkeys(names, mask)
    return _Case(golden.name, inputs, masks, before, after)


def _arrays(bundle: Bundle, name: str) -> Arrays:
    try:
        return read_arrays(bundle.file(name))
    except (OSError, ValueError) as error:
        raise StageError(f"{bundle.path / name} cannot be read: {error}") from error


def _distances(expected: Arrays, actual: Arrays, masks: Mapping[str, Array]) -> tuple[OutputDistance, ...]:
    """Of the outputs that both have; the interface tells of the others."""
    found = [compare(name, array, actual[name], masks.get(name)) for name, array in expected.items() if name in actual]
    return tuple(
        OutputDistance(output=entry.output, max_abs=None, cosine=None, problem=entry.problem or "integer values differ")
        if entry.problem is not None or differs(entry)
        else OutputDistance(output=entry.output, max_abs=entry.max_abs, cosine=entry.cosine)
        for entry in found
    )
