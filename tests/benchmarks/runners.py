"""Contenders as processes that one driver can talk to, ours and the peers' alike."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalogue import EAGER, EARLY, OURS, PEERS, TITLES, Model
from counting import QUIET
from workshop import CONTENDERS, artifact_of, bundles_of, home, python_of, versions_of

from ortc.common.arrays import Array, Arrays
from ortc.execution.worker import Worker
from ortc.frontend.samples.inputs import InputFactory, Samples
from ortc.frontend.samples.sources import load_samples
from ortc.plan.checks import check_spec
from ortc.plan.plan import CasePlan, Shape
from ortc.plan.resolve import resolve


@dataclass(frozen=True)
class Entrant:
    """A contender that is ready to run.

    Attributes:
        facts: identity, versions and what else is worth keeping.
        worker: the command of its worker process.
        first: the commands that start, answer once and print seconds and bytes, by how the start is done.
        bundle: ours alone.
    """

    name: str
    facts: dict[str, Any]
    worker: tuple[str, ...]
    first: dict[str, tuple[str, ...]]
    bundle: Path | None = None

    def open(self) -> Worker:
        """A worker, not yet started."""
        return Worker(TITLES[self.name], list(self.worker), environment=variables())

    def load(self, worker: Worker) -> None:
        """Have a started worker load the model; a peer's does so on its own."""
        if self.bundle is not None:
            worker.call("load", bundle=str(self.bundle), verify="none", selftest=False, warmup=False)

    def answer(self, worker: Worker, inputs: Arrays) -> Array:
        """The main output."""
        outputs = worker.run(inputs)
        if self.bundle is None:
            return outputs["output"]
        manifest = json.loads((self.bundle / "manifest.json").read_text("utf-8"))
        return outputs[manifest["outputs"][0]["name"]]


@dataclass(frozen=True)
class Absent:
    """A contender that cannot take part, and why."""

    name: str
    reason: str


def variables() -> dict[str, str]:
    """Of every contender's process; torch.compile keeps its code where the next process finds it."""
    return {**QUIET, "TORCHINDUCTOR_CACHE_DIR": str(home() / "inductor")}


def entrants(model: Model, shape: tuple[int, ...], names: tuple[str, ...], threads: int) -> Iterator[Entrant | Absent]:
    """The contenders of a race in the order of the catalogue; those that cannot be made are absent."""
    for peer in PEERS:
        if peer.name not in names and peer.name != EAGER:
            continue
        artifact, made = artifact_of(peer, model)
        if made.failure is not None:
            yield Absent(peer.name, made.failure)
            continue
        script = (str(python_of(peer.environment)), "-s", str(CONTENDERS / peer.script))
        options = tuple(part for option in peer.options for part in ("--option", option))
        settings = ("--artifact", str(artifact), "--threads", str(threads), *options)
        facts = {
            "identity": f"{made.identity} {python_of(peer.environment).parent.parent.name}",
            "versions": versions_of(peer.environment),
            "precision": peer.precision,
            "bytes": made.bytes or None,
        }
        yield Entrant(
            peer.name,
            facts,
            (*script, "worker", *settings),
            {"": (*script, "first", *settings, "--inputs", "{inputs}")},
        )
    if wanted := [name for name in (*OURS, EARLY) if name in names]:
        bundles = bundles_of(model, shape, wanted)
        for name in wanted:
            bundle = bundles[name]
            loader = (str(bundle.interpreter), "-E", "-s", "-B", str(bundle.directory / "runtime" / "loader.py"))
            sizes = ",".join(f"{axis}={size}" for axis, size in zip(model.axes, shape, strict=True))
            bench = (*loader, "bench", "--no-warmup", "--runs", "1", "--warmup", "0", "--shape", sizes)
            manifest = json.loads((bundle.directory / "manifest.json").read_text("utf-8"))
            facts = {
                "identity": bundle.identity,
                "versions": {manifest["runtime"]["package"]: manifest["runtime"]["version"]},
                "precision": manifest["variant"]["precision"],
                "variant": bundle.variant,
                "bytes": bundle.bytes,
                "measured_at": model.label(shape),
            }
            yield Entrant(
                name,
                facts,
                (*loader, "worker"),
                {
                    "verify=fast": (*bench, "--verify", "fast", "--no-selftest"),
                    "every file hashed, golden answers": (*bench, "--verify", "full"),
                },
                bundle.directory,
            )


def inputs_of(model: Model, shape: tuple[int, ...], *, padded: bool) -> Arrays:
    """One request: real sentences where the spec has samples, else seeded values; the same for every contender."""
    spec = Path(__file__).parent / "specs" / f"{model.name}.yaml"
    checked = check_spec(spec, ())
    plan = resolve(checked.loaded.spec, checked.profiles, ())
    samples = Samples()
    if plan.accuracy.samples:
        root, directory = checked.loaded.root, home() / "models" / model.name
        samples = load_samples(plan.accuracy.samples, root, directory, plan.export.inputs or (), plan.export.axes)
    factory = InputFactory(plan.export.inputs or (), plan.export.axes, samples)
    sizes = tuple(zip(model.axes, shape, strict=True))
    return factory.case(CasePlan(shape=Shape(sizes=sizes), padded=padded))


def first_answer(command: tuple[str, ...], inputs: Path) -> tuple[float, int]:
    """Seconds from the start of a process to its first answer, and its peak resident bytes.

    Raises:
        RuntimeError: it fails.
    """
    import os

    started = time.monotonic()
    filled = [part.replace("{inputs}", str(inputs)) for part in command]
    done = subprocess.run(
        [*filled, "--started", str(started)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **variables()},
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} does not start:\n{done.stderr[-3000:]}")
    answer = json.loads(done.stdout)
    if "result" in answer:
        result = answer["result"]
        return float(result["start_to_first_answer_seconds"]), int(result["peak_rss_bytes"])
    return float(answer["seconds"]), int(answer["peak_rss_bytes"])


def say(text: str) -> None:
    """Progress, to stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
