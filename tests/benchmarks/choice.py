"""Choice: does `ortc build` ship what a race of everything that passes finds?

Every variant of the profile is built by itself, with the gate of accuracy open, and raced in one interleaved run; that
race and each variant's worst cosine say what should ship at every gate. What does ship is asked of a build for each
gate. Likewise for the two objectives: their bundles race each other by both measures.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

import records
from catalogue import Model
from counting import run_counted
from race import scheduling
from runners import inputs_of, say
from workshop import HERE, home, model_directory

from ortc.common.arrays import write_arrays
from ortc.common.statistics import median
from ortc.evaluation import latency
from ortc.evaluation.report import Race
from ortc.execution.host import Host, cores
from ortc.execution.runtime_environment import environment

GATES = (0.98, 0.995, 0.999)
TARGET = "auto"
RUNS = 10
OPEN = 0.5
"""A cosine that every variant keeps."""

Json = dict[str, Any]


def choice(model: Model, *, host: Host, rounds: int) -> None:
    """Build, race and keep what came out.

    Args:
        model: with trained weights: those of seeded ones say nothing about accuracy.
        host: this machine.
        rounds: of both races.

    Raises:
        RuntimeError: a build fails for another reason than that its variant cannot be had.
    """
    shipped = {str(gate): _build(model, f"gate-{gate}", f"accuracy.cosine={gate}") for gate in GATES}
    say("  shipped: " + ", ".join(f"{gate} {entry['variant']}" for gate, entry in shipped.items()))
    base = next(iter(shipped.values()))
    names = [decision["variant"] for decision in base["decisions"] if decision["outcome"] != "left out"]
    found = {name: _build(model, name, f"accuracy.cosine={OPEN}", variant=name) for name in names}
    entrants = [_entrant(name, entry["bundle"]) for name, entry in found.items() if entry["error"] is None]
    race = _race(model, host, entrants, rounds, "latency")
    objectives = {
        "latency": base,
        "throughput": _build(
            model, "throughput", f"accuracy.cosine={GATES[0]}", f"targets.{TARGET}.objective=throughput"
        ),
    }
    both = [_entrant(name, entry["bundle"]) for name, entry in objectives.items()]
    measures: tuple[Literal["latency", "throughput"], ...] = ("latency", "throughput")
    crowds = {quantity: _race(model, host, both, rounds, quantity) for quantity in measures}
    document: Json = {
        "kind": "choice",
        "model": model.name,
        "shape": dict(zip(model.axes, model.main_shape, strict=True)),
        "host": host.model_dump(mode="json"),
        "threads": cores(),
        "scheduling": [scheduling()],
        "shipped": {gate: entry["variant"] for gate, entry in shipped.items()},
        "variants": {
            name: {"parity": entry["parity"], "error": entry["error"], "rounds": _rounds(race, name)}
            for name, entry in found.items()
        },
        "objectives": {
            name: {
                "variant": entry["variant"],
                "session": entry["tuning"] or "plain",
                **{quantity: _rounds(raced, name) for quantity, raced in crowds.items()},
            }
            for name, entry in objectives.items()
        },
    }
    records.write(records.place(host.fingerprint(), "choice", model.name), document)
    for name, entry in document["variants"].items():
        times = [value for turn in entry["rounds"] for value in turn]
        say(f"  {name}: {entry['parity']}, {f'{median(times):.2f} ms' if times else entry['error']}")


def _build(model: Model, label: str, *overrides: str, variant: str | None = None) -> Json:
    """The target's part of the report of a build, with its bundle; `error` says why there is none."""
    model_directory(model)
    output = home() / "choice" / model.name / label
    output.mkdir(parents=True, exist_ok=True)
    spec = HERE / "specs" / f"{model.name}.yaml"
    command = [sys.executable, "-m", "ortc", "build", str(spec), "-t", TARGET, "-o", str(output)]
    command += [part for override in overrides for part in ("--set", override)]
    command += [] if variant is None else ["--variant", variant]
    environment_ = {"ORTC_CACHE_DIR": str(home() / "ortc-cache")}
    cost = run_counted(command, directory=HERE.parents[1], variables=environment_, log=output / "log.txt")
    base = output / f"bench-{model.name}"
    reports = sorted(base.glob("*.report.json"))
    if not reports or (cost.exit_code and variant is None):
        raise RuntimeError(f"ortc build {spec.name} {' '.join(overrides)} fails:\n{cost.tail()}")
    report = json.loads(reports[0].read_text("utf-8"))
    (target,) = report["targets"]
    return {**target, "error": target["error"] if cost.exit_code else None, "bundle": base / report["version"] / TARGET}


def _entrant(name: str, bundle: Path) -> latency.Entrant:
    requirements = (bundle / "requirements.txt").read_text("utf-8")
    interpreter = environment(requirements, home() / "ortc-cache" / "environments")
    return latency.Entrant(name, interpreter, bundle, cores())


def _race(
    model: Model, host: Host, entrants: list[latency.Entrant], rounds: int, quantity: Literal["latency", "throughput"]
) -> Race:
    say(f"  race, {quantity}: {', '.join(entrant.name for entrant in entrants)}")
    with tempfile.TemporaryDirectory() as scratch:
        inputs = Path(scratch) / "inputs.npz"
        write_arrays(inputs, inputs_of(model, model.main_shape, padded=False))
        return latency.race(
            entrants,
            None,
            inputs,
            measure=quantity,
            shape=model.label(model.main_shape),
            host=host,
            threads=cores(),
            rounds=rounds,
            runs=RUNS,
        )


def _rounds(race: Race, name: str) -> list[list[float]]:
    """Milliseconds by round, to four places."""
    found = next((contender for contender in race.contenders if contender.name == name), None)
    return [] if found is None else [[round(value, 4) for value in turn] for turn in found.rounds]
