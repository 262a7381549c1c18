"""Stages as values, and the three runners over them: execute, look up, record."""

from __future__ import annotations

from pathlib import Path

import pytest

from ortc.build.dry_run import Lookup
from ortc.build.executor import Executor
from ortc.build.progress import Progress
from ortc.build.runner import Runner, UnknownResult, nothing
from ortc.build.stage import Action, Stage
from ortc.build.stages import EXPORT, STAGES
from ortc.common.values import Frozen
from ortc.diff.stages import ActionRecorder
from ortc.execution.action_cache import Store


class Counted(Frozen):
    nodes: int


COUNT: Stage[Counted] = Stage("count", ("opset",), Counted)
GUESS: Stage[Counted] = Stage("guess", ("opset",), Counted, assume=lambda _: Counted(nodes=0))
TIMED: Stage[Counted] = Stage("timed", ("opset",), Counted, is_final=lambda found: found.nodes > 0)


def asked(stage: Stage[Counted] = COUNT, opset: int = 17) -> Action[Counted]:
    return stage.action("linear", {"opset": opset})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def test_every_stage_has_a_label_of_its_own() -> None:
    labels = [stage.label for stage in STAGES]
    assert len(labels) == len(set(labels))
    assert all((stage.code is None) <= ("code" not in stage.inputs) for stage in STAGES)


@pytest.mark.parametrize("inputs", [{}, {"opset": 17, "seed": 1}])
def test_inputs_that_nobody_declared_are_refused(inputs: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"count depends on \['opset'\], and was given"):
        COUNT.action("linear", inputs)


def test_the_digest_of_the_code_is_an_input() -> None:
    action = EXPORT.action("dynamo", {"model": {}, "export": {}, "exporter": "dynamo"})
    assert action.inputs["code"] == EXPORT.code_sha256


def test_what_was_executed_is_looked_up(store: Store) -> None:
    lookup = Lookup("spec", store)
    before = lookup.run(asked(), nothing)
    with pytest.raises(UnknownResult, match="count"):
        _ = before.result
    done = Executor("spec", store, Progress()).run(asked(), lambda _: Counted(nodes=3))
    after = lookup.run(asked(), nothing)
    assert after.result == done.result == Counted(nodes=3)
    assert [(entry.state, entry.reason) for entry in lookup.foreseen] == [("will run", "never done"), ("cached", "")]


def test_an_action_is_executed_once(store: Store) -> None:
    executor = Executor("spec", store, Progress())
    executor.run(asked(), lambda _: Counted(nodes=3))
    assert executor.run(asked(), nothing).result.nodes == 3
    again = Executor("spec", store, Progress(), frozenset({"count"}))
    assert again.run(asked(), lambda _: Counted(nodes=4)).result.nodes == 4
    assert again.run(asked(), nothing).result.nodes == 4


def test_a_result_that_is_not_final_holds_for_one_build(store: Store) -> None:
    executor = Executor("spec", store, Progress())
    executor.run(asked(TIMED), lambda _: Counted(nodes=0))
    assert executor.run(asked(TIMED), nothing).result.nodes == 0
    assert Lookup("spec", store).run(asked(TIMED), nothing).known is None
    assert [time.noisy for time in executor.progress.times] == [True, False]


def test_a_lookup_takes_all_steps_before_it_stops(store: Store) -> None:
    lookup = Lookup("spec", store)
    steps = [lambda opset=opset: lookup.run(asked(opset=opset), nothing).result for opset in (17, 18)]
    with pytest.raises(UnknownResult):
        lookup.each(steps)
    assert len(lookup.foreseen) == 2


def test_what_is_recorded_succeeds_where_its_stage_assumes_a_result(tmp_path: Path) -> None:
    recorder: Runner = ActionRecorder("spec", tmp_path)
    assert recorder.run(asked(GUESS), nothing).result == Counted(nodes=0)
    assert recorder.run(asked(), nothing).known is None
    assert isinstance(recorder, ActionRecorder)
    assert [entry.stage for entry in recorder.recorded] == ["guess", "count"]
