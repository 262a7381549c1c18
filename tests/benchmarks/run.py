"""The benchmarks: ours against the peers, on one machine, in interleaved runs.

    python tests/benchmarks/run.py [STEP ...] [--models bert-base] [--shapes 1x128] [--only ortc,openvino]

Steps are prepare, race, start, costs, choice, edge, edge-race, serving, texts-prepare, texts, web, soak, busy and
render; without one, all of them in turn. Each goes on where it was left: what is made is kept in `$ORTC_BENCH_DIR`
(default: `ortc-bench` in the user's cache directory), what is measured in tests/benchmarks/data/.
"""

from __future__ import annotations

import argparse
import os
import sys

import busy
import render
import serving_race
import serving_soak
import texts_race
from catalogue import EAGER, EARLY, MODELS, OURS, PEERS, Model
from choice import choice
from costs import costs
from edge import edge, edge_race
from race import race
from runners import Absent, entrants, say
from start import start
from web_race import web_race
from workshop import home

from ortc.execution.host import cores, describe

STEPS = (
    *("prepare", "race", "start", "costs", "choice", "edge", "edge-race", "serving", "texts-prepare", "texts", "web"),
    *("soak", "busy", "render"),
)
NAMES = (*OURS, EARLY, *(peer.name for peer in PEERS))


def main() -> int:
    """Run the steps asked for.

    Returns:
        0; 1 or 7 of `busy.main`; 2 when an argument names nothing known.
    """
    parser = _options()
    arguments = parser.parse_args()
    steps = tuple(arguments.steps) or STEPS
    known = {entry.name: entry for entry in MODELS}
    prefixes = tuple(arguments.only.split(","))
    names = tuple(name for name in NAMES if name.startswith(prefixes) or name == EAGER)
    racing = tuple(name for name in names if name != EARLY)
    for asked, choices in ((steps, STEPS), (arguments.models.split(","), tuple(known))):
        for name in asked:
            if name not in choices:
                parser.error(f"`{name}` is none of {', '.join(choices)}")
    # The specs of the seeded models say where those lie by this variable.
    os.environ["ORTC_BENCH_DIR"] = str(home())
    host, threads = describe(), cores()
    say(f"{host.cpu}, {host.cores} cores, fingerprint {host.fingerprint()}; {threads} threads each")
    for model in (known[name] for name in arguments.models.split(",")):
        shapes = _shapes(model, arguments.shapes)
        if "prepare" in steps:
            _prepare(model, shapes, racing, threads)
        for shape in shapes if "race" in steps else ():
            say(f"race {model.name} {model.label(shape)}")
            race(model, shape, racing, host=host, threads=threads, rounds=arguments.rounds, seconds=arguments.seconds)
        if "start" in steps:
            say(f"start {model.name}")
            start(model, names, host=host, threads=threads, rounds=arguments.starts, seconds=arguments.seconds)
        if "costs" in steps:
            say(f"costs {model.name}")
            costs(model, racing, host=host)
        if "choice" in steps and not model.seeded:
            say(f"choice {model.name}")
            choice(model, host=host, rounds=arguments.rounds)
    if "edge" in steps:
        say("edge")
        edge(host=host, threads=threads)
    if "edge-race" in steps:
        say("edge-race")
        edge_race(host=host, threads=threads, rounds=arguments.rounds)
    if "serving" in steps:
        serving_race.main(host, threads, arguments.rounds)
    for step, begin in (("texts-prepare", texts_race.prepare), ("texts", texts_race.main)):
        if step in steps:
            begin(host, threads, arguments.rounds, prefixes)
    if "web" in steps:
        say("web")
        web_race(host=host, rounds=arguments.rounds)
    if "soak" in steps:
        serving_soak.main(host)
    if "busy" in steps:
        say("busy")
        if (code := busy.main([])) != 0:
            return code
    if "render" in steps:
        render.main()
    return 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"{', '.join(STEPS)}; default: all of them")
    parser.add_argument("--models", default=",".join(entry.name for entry in MODELS), help="default: all")
    parser.add_argument("--shapes", help="batch x sequence, or batch: 1x128,4x16; default: all of the model's")
    parser.add_argument("--only", default="", help="contenders whose names begin so: ortc,openvino; eager always runs")
    parser.add_argument("--rounds", type=int, default=12, help="rounds that a race shall have (default: 12)")
    parser.add_argument("--starts", type=int, default=5, help="starts of each contender (default: 5)")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no further round of a race after this time")
    return parser


def _shapes(model: Model, asked: str | None) -> tuple[tuple[int, ...], ...]:
    """The model's shapes out of those asked for; a batch alone stands for itself at every sequence."""
    if asked is None:
        return model.shapes
    wanted = asked.split(",")
    return tuple(shape for shape in model.shapes if model.label(shape) in wanted or str(shape[0]) in wanted)


def _prepare(model: Model, shapes: tuple[tuple[int, ...], ...], names: tuple[str, ...], threads: int) -> None:
    """Make everything that the races need."""
    for shape in shapes:
        say(f"prepare {model.name} for {model.label(shape)}")
        for entry in entrants(model, shape, names, threads):
            say(f"  {entry.name}: {entry.reason if isinstance(entry, Absent) else entry.facts}")


if __name__ == "__main__":
    sys.exit(main())
