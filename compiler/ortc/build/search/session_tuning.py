"""What is done to the variant that won: session settings that make it faster, weights packed for this processor."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ortc.build.search.races import start
from ortc.build.search.ranking import FIRST_ROUNDS, FIRST_RUNS, QUICK_ROUNDS
from ortc.build.stage_results import Skip
from ortc.build.stages import PREPACK
from ortc.build.target_result import Tried
from ortc.build.variant import VariantBuilder
from ortc.bundle.manifest import to_json
from ortc.bundle.session_file import Prepacked, session_file
from ortc.common.errors import NotApplicable
from ortc.common.statistics import Interval, median, ratio_of_rounds
from ortc.evaluation.accuracy import CPU
from ortc.evaluation.budget_gates import size_verdicts
from ortc.evaluation.gates import describe
from ortc.evaluation.noise import race_noise, starts_noise
from ortc.evaluation.report import Race
from ortc.execution.host import processor
from ortc.passes.canonical import PREPACKED_FILE
from ortc.passes.variant_graph import VariantGraph

TUNING_ROUNDS, TUNING_RUNS = 10, 8
TUNING_GAIN = 1.02
"""A tuning must be clearly more than this many times faster than the plain session, or it is noise."""
PACKING_GAIN = 1.05
"""A start with packed weights must be this many times faster to be worth their disk."""

BUSY = "session not tuned: the machine was too busy to compare sessions"

Racer = Callable[..., Race]


def tune(builder: VariantBuilder, entry: Tried, race: Racer, *, quick: bool) -> tuple[Tried, str | None]:
    """The winner with the session settings that make it fastest, and what they are called."""
    target = builder.target
    if not target.tuning or target.tuned is not None:
        return entry, None
    sessions = {"plain": entry.made.variant.session}
    contenders = {"plain": entry.with_tuning(None)}
    for tuning in target.tuning:
        session = tuning.apply(entry.made.variant.session)
        if session not in sessions.values():
            sessions[tuning.name], contenders[tuning.name] = session, entry.with_tuning(tuning)
    if len(contenders) == 1:
        return contenders["plain"], None
    gains = _gains(contenders, race, QUICK_ROUNDS if quick else FIRST_ROUNDS, FIRST_RUNS)
    if gains is None:
        return contenders["plain"], BUSY
    contenders = {n: entry for n, entry in contenders.items() if n == "plain" or gains[n].value > 1 / TUNING_GAIN}
    if len(contenders) == 1:
        return contenders["plain"], None
    if not quick:
        gains = _gains(contenders, race, TUNING_ROUNDS, TUNING_RUNS)
        if gains is None:
            return contenders["plain"], BUSY
    best = max(gains, key=lambda name: gains[name].value)
    gain = gains[best]
    if gain.low is None or gain.low <= TUNING_GAIN:
        return contenders["plain"], None
    return contenders[best], f"session `{best}`"


def _gains(contenders: dict[str, Tried], race: Racer, rounds: int, runs: int) -> dict[str, Interval] | None:
    """How many times faster than the plain session each of the others is; None where the machine was too busy."""
    outcome = race(list(contenders.values()), rounds, runs, names=list(contenders))
    if race_noise(outcome):
        return None
    found = {contender.name: contender.rounds for contender in outcome.contenders}
    return {name: ratio_of_rounds(found["plain"], values) for name, values in found.items() if name != "plain"}


def prepack(builder: VariantBuilder, entry: Tried, verify: Callable[[Tried], Tried]) -> tuple[Tried, str | None]:
    """The winner with its weights packed for this processor besides, where that is asked for, right, and faster.

    Args:
        builder: of the target.
        entry: the variant that won.
        verify: judges a variant at every case.

    Returns:
        What ships, and what is to be said of it.
    """
    if not builder.target.prepack:
        return entry, None
    try:
        packed = verify(_packed(builder, entry))
    except NotApplicable as error:
        return entry, f"weights not packed: {error.message}"
    if packed.failed is not None:
        return entry, f"weights not packed: {describe(packed.failed)}"
    starts = [start(builder, candidate) for candidate in (entry, packed)]
    if any(map(starts_noise, starts)):
        return entry, "weights not packed: the machine was too busy to compare starts"
    before, after = (median(one.seconds) for one in starts)
    times = f"starts in {1000 * after:.0f} ms instead of {1000 * before:.0f} ms"
    if before < after * PACKING_GAIN:
        return entry, f"weights not packed: {times}"
    return packed, f"weights packed for this processor: {times}"


def _packed(builder: VariantBuilder, entry: Tried) -> Tried:
    """A variant with packed weights besides, to be judged anew.

    Raises:
        NotApplicable: there is nothing to pack, or nothing that this machine could pack it for.
        StageError: the runtime fails.
    """
    made = entry.made
    first = made.session.providers[0].name
    if first != CPU:
        raise NotApplicable(f"{first} packs them in its own way")
    if builder.target.is_web:
        raise NotApplicable("browsers do not say what processor they run on")
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
