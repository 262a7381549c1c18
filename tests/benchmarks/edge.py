"""Edge: what INT8 costs all-MiniLM-L6-v2 in accuracy, bytes and time, and what it answers on ARM64.

Both objectives of the edge profile, built from the repository's own specs with a full search, beside ONNX Runtime by
hand in fp32 and in dynamic INT8. Everybody answers the same sentences in the same batches: the half of the samples that
the builds judge by, on which nothing was calibrated. `edge` compares the answers, `edge-race` the times.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import records
from catalogue import EAGER
from catalogue import model as model_of
from counting import run_counted
from race import TURN_SECONDS, scheduling
from runners import Absent, Entrant, entrants, inputs_of, say
from workshop import HERE, home, model_directory

from ortc.bundle.emulation import emulation
from ortc.bundle.manifest import Manifest
from ortc.common.arrays import Array, Arrays, write_arrays
from ortc.common.digests import sha256_file
from ortc.common.values import digest
from ortc.evaluation.embeddings import check_embeddings, pooled
from ortc.evaluation.turns import REST_SECONDS, Turn, interleave
from ortc.execution.host import Host, cores
from ortc.execution.runtime_environment import environment
from ortc.execution.worker import Worker
from ortc.frontend.samples.inputs import InputFactory
from ortc.frontend.samples.sources import load_samples
from ortc.plan.checks import check_spec
from ortc.plan.resolve import resolve
from ortc.spec.accuracy import Embeddings

ROOT = HERE.parents[1]
MODEL = "minilm"
TARGET = "edge"
BASELINE = "ort-fp32"
BY_HAND = (BASELINE, "ort-int8")
OURS = {"edge-size": "bert-small", "edge-latency": "bert"}
"""Specs by the contender that their edge bundle is."""
SHAPES = ((1, 32), (1, 128))
ARM64 = "linux/arm64"

Json = dict[str, Any]


@dataclass(frozen=True)
class Contender:
    """Who answers: facts, what starts a process, and the bundle that it is to load, of ours."""

    name: str
    facts: Json
    open: Callable[[], Worker]
    bundle: Path | None = None

    @contextmanager
    def loaded(self, worker: Worker | None = None) -> Iterator[tuple[Worker, list[Json]]]:
        """A process that holds the model, and what its golden answers said; by default the contender's own process."""
        with worker or self.open() as running:
            golden = []
            if self.bundle is not None:
                loaded = running.call("load", bundle=str(self.bundle), verify="full", selftest=True, warmup=False)
                golden = [
                    {"name": case["name"], **{key: float(f"{case[key]:.6g}") for key in ("max_abs", "cosine")}}
                    for case in loaded["golden"]
                ]
            yield running, golden


def edge(*, host: Host, threads: int) -> None:
    """Build, answer the held-out sentences here and on an emulated ARM64, and keep how far that is from PyTorch.

    Raises:
        RuntimeError: a bundle or an artifact cannot be made.
        StageError: a bundle does not answer, or ARM64 cannot be emulated.
    """
    batches, declared, sentences = _sentences()
    reference, *others = _contenders(threads)
    with reference.loaded() as (worker, _):
        expected = [_answer(worker, batch) for batch in batches]
    document: Json = {
        "kind": "edge",
        "model": MODEL,
        "host": host.model_dump(mode="json"),
        "threads": threads,
        "samples": {"sha256": sentences, "batches": len(batches)},
        "contenders": {},
        "emulated": {},
    }
    for contender in others:
        with contender.loaded() as (worker, golden):
            answers = [_answer(worker, batch) for batch in batches]
        found = _embeddings(batches, expected, answers, declared)
        document["contenders"][contender.name] = {**contender.facts, **found, "golden": golden}
        say(f"  {contender.name}: {document['contenders'][contender.name]}")
        if contender.bundle is not None:
            document["emulated"][contender.name] = _emulated(contender, batches, expected, answers, declared)
            say(f"  {contender.name} on {ARM64}: {document['emulated'][contender.name]}")
    records.write(_place(host, "edge"), document)


def edge_race(*, host: Host, threads: int, rounds: int) -> None:
    """Race the bundles and the hand-made graphs at every shape; what was there before is replaced.

    Args:
        host: this machine.
        threads: of every contender.
        rounds: at each shape.

    Raises:
        RuntimeError: a bundle or an artifact cannot be made.
    """
    _, *others = _contenders(threads)
    races = {}
    for shape in SHAPES:
        label = model_of(MODEL).label(shape)
        with tempfile.TemporaryDirectory() as scratch:
            inputs = Path(scratch) / "inputs.npz"
            write_arrays(inputs, inputs_of(model_of(MODEL), shape, padded=False))
            races[label] = _race(others, inputs, rounds)
        middle = {name: float(np.median(np.concatenate(turns))) for name, turns in races[label].items()}
        say(f"  {label}, p50 ms: " + ", ".join(f"{name} {value:.2f}" for name, value in middle.items()))
    document = {
        "kind": "edge-race",
        "model": MODEL,
        "host": host.model_dump(mode="json"),
        "threads": threads,
        "scheduling": [scheduling()],
        "rest_seconds": REST_SECONDS,
        "identities": {contender.name: contender.facts["identity"] for contender in others},
        "races": races,
    }
    records.write(_place(host, "edge-race"), document)


def _race(contenders: list[Contender], inputs: Path, rounds: int) -> dict[str, list[list[float]]]:
    """Milliseconds of every counted run, by contender and round."""
    with ExitStack() as stack:
        workers = {entry.name: stack.enter_context(entry.loaded())[0] for entry in contenders}
        turns = [Turn(name, worker) for name, worker in workers.items()]
        found = interleave(turns, inputs, rounds, threads=cores(), turn=TURN_SECONDS).contenders
    return {entry.name: [[round(value, 4) for value in turn] for turn in entry.rounds] for entry in found}


def _place(host: Host, kind: str) -> Path:
    return records.place(host.fingerprint(), kind, MODEL)


def _sentences() -> tuple[list[Arrays], Embeddings, str]:
    """The held-out sentences in batches, how they are pooled, and the digest of all samples."""
    checked = check_spec(ROOT / "specs" / f"{OURS['edge-latency']}.yaml", ())
    plan = resolve(checked.loaded.spec, checked.profiles, (TARGET,))
    declared, samples = plan.accuracy.embeddings, plan.accuracy.samples
    if declared is None or not isinstance(samples, str):
        raise RuntimeError(f"{checked.loaded.spec.name} promises nothing of the embeddings of a file's samples")
    directory = model_directory(model_of(MODEL))
    found = load_samples(samples, checked.loaded.root, directory, plan.export.inputs or (), plan.export.axes)
    judged, _ = found.split()
    factory = InputFactory(plan.export.inputs or (), plan.export.axes, judged)
    return [arrays for _, arrays in factory.real()], declared, sha256_file(checked.loaded.root / samples)


def _contenders(threads: int) -> list[Contender]:
    """PyTorch first, then the hand-made graphs and our bundles."""
    found = []
    for entry in entrants(model_of(MODEL), SHAPES[0], (EAGER, *BY_HAND), threads):
        if isinstance(entry, Absent):
            raise RuntimeError(f"{entry.name}: {entry.reason}")
        found.append(Contender(entry.name, _facts_of(entry), entry.open))
    return [*found, *(_bundle(name, spec) for name, spec in OURS.items())]


def _facts_of(entry: Entrant) -> Json:
    kept = {key: entry.facts[key] for key in ("identity", "precision", "bytes")}
    return kept | {"versions": {name: entry.facts["versions"].get(name) for name in ("onnxruntime", "torch")}}


def _bundle(name: str, spec: str) -> Contender:
    """`ortc build` of the edge target of one of the repository's specs.

    Raises:
        RuntimeError: it fails.
    """
    output, cache = home() / "edge", home() / "ortc-cache"
    output.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "ortc", "build", f"specs/{spec}.yaml", "-t", TARGET, "-o", str(output)]
    # The race is what times: whoever only compares answers may do so on a busy machine.
    command += ["--set", f"targets.{TARGET}.latency_budget.p99=60s"]
    log = output / f"{spec}.log.txt"
    cost = run_counted(command, directory=ROOT, variables={"ORTC_CACHE_DIR": str(cache)}, log=log)
    if cost.exit_code:
        raise RuntimeError(f"ortc build specs/{spec}.yaml fails:\n{cost.tail()}")
    (report,) = (json.loads(path.read_text("utf-8")) for path in (output / spec).glob("*.report.json"))
    (target,) = report["targets"]
    directory = output / spec / report["version"] / TARGET
    manifest = _manifest(directory)
    mix = target["mix"] or {"blocks": [], "exclude": []}
    facts = {
        # Of what is run; a manifest may say more from one version of ortc to the next.
        "identity": digest([file.sha256 for file in manifest.files if file.path.startswith("model/")])[:16],
        "precision": manifest.variant.precision,
        "bytes": manifest.model.bytes,
        "versions": {manifest.runtime.package: manifest.runtime.version},
        "variant": manifest.variant.name,
        "weights_alone": len(mix["blocks"]),
        "in_floating_point": len(mix["exclude"]),
    }
    interpreter = environment((directory / "requirements.txt").read_text("utf-8"), cache / "environments")
    return Contender(name, facts, lambda: Worker.for_bundle(name, interpreter, directory), directory)


def _manifest(bundle: Path) -> Manifest:
    return Manifest.model_validate_json((bundle / "manifest.json").read_bytes())


def _answer(worker: Worker, batch: Arrays) -> Array:
    """The main output: all of these models have one."""
    (answer,) = worker.run(batch).values()
    return answer


def _embeddings(batches: list[Arrays], expected: list[Array], actual: list[Array], declared: Embeddings) -> Json:
    """How far pooled embeddings are from the expected ones, to five places."""
    both = []
    for answers in (expected, actual):
        pairs = zip(batches, answers, strict=True)
        both.append(
            np.concatenate([pooled({"output": answer}, declared, batch["attention_mask"]) for batch, answer in pairs])
        )
    found = check_embeddings(*both).model_dump()
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in found.items()}


def _emulated(
    contender: Contender, batches: list[Arrays], expected: list[Array], here: list[Array], declared: Embeddings
) -> Json:
    """The same sentences on an emulated ARM64, by the bundle's own loader and pinned requirements."""
    bundle = contender.bundle
    if bundle is None:
        raise RuntimeError(f"{contender.name} is no bundle")
    requirements = (bundle / "requirements.txt").read_text("utf-8")
    found = emulation(ARM64, _manifest(bundle), requirements, home() / "ortc-cache" / "environments", say)
    variables = {**found.environment, "ORT_INTRA_OP_NUM_THREADS": "1"}
    worker = Worker.emulated(contender.name, found.command, variables, bundle)
    with contender.loaded(worker) as (running, golden):
        answers = [_answer(running, batch) for batch in batches]
    masks = [batch["attention_mask"] != 0 for batch in batches]
    triples = zip(answers, here, masks, strict=True)
    return {
        "platform": ARM64,
        "processor": found.description,
        "golden": golden,
        **_embeddings(batches, expected, answers, declared),
        "to_this_host": {
            "max_abs": float(f"{max(float(np.abs(there - near)[mask].max()) for there, near, mask in triples):.3g}"),
            "cosine_min": _embeddings(batches, here, answers, declared)["cosine_min"],
        },
    }
