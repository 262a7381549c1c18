"""The search of a target's variants, step by step, over a bench that only answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from tests.support.plans import ROOT, plan, target, variant

from ortc.build.search.precision_ladder import NodeError, Sensitivity, Step
from ortc.build.search.ranking import FIRST_ROUNDS, QUICK_ROUNDS, SECOND_ROUNDS
from ortc.build.search.target_search import QUICK_STARTS, TargetSearch
from ortc.build.search.workbench import Workbench
from ortc.build.tried import Tried
from ortc.bundle.assemble import Made
from ortc.bundle.session_file import Prepacked
from ortc.common.errors import NotApplicable
from ortc.evaluation import latency
from ortc.evaluation.report import Check, Contender, Race, Starts, Verdict
from ortc.execution.host import Host
from ortc.passes.variant_graph import VariantGraph
from ortc.plan.plan import LeftOut, Plan, TargetPlan, TuningPlan, VariantPlan

AMD64 = "linux/amd64"
HOST = Host(platform=AMD64, cpu="x", isa=(), cores=2, memory=2**30, gpus=())
PLAN = plan(ROOT / "specs" / "bert.yaml", targets=("cpu",))
WRONG = Verdict(gate="cosine", platform=AMD64, outcome="fail", value=0.9, bound=0.98, comparison=">=")
NOT_MADE = Verdict(gate="applies", platform=AMD64, outcome="fail", said="nothing to merge", required="can be made")
NOT_RUN = Verdict(gate="runs", platform=AMD64, outcome="fail", said="no kernel", required="runs")
FP32, INT8 = variant("fp32", "fp32"), variant("int8", "int8")


class TableWorkbench:
    """Answers by the names of variants, and notes what it was asked."""

    def __init__(
        self,
        milliseconds: Mapping[str, float],
        *,
        wrong: Mapping[str, Verdict] | None = None,
        graphs: Mapping[str, str] | None = None,
        starts: Mapping[str, float] | None = None,
        search: str = "full",
        runnable: bool = True,
        promised: bool = True,
        **changes: Any,
    ) -> None:
        self.milliseconds, self.wrong, self.graphs = milliseconds, wrong or {}, graphs or {}
        self.starts = starts or {}
        self.plan: Plan = PLAN.model_copy(update={"search": search})
        self.target: TargetPlan = target(**{"tuning": (), "objective": "latency", "left_out": (), **changes})
        self.platform, self.runnable, self.promised = AMD64, runnable, promised
        self.asked: list[str] = []
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def make(self, variant: VariantPlan, level: Any, tuning: TuningPlan | None = None) -> Tried:
        self.asked.append(f"make {variant.name}")
        size = 25 if variant.precision == "int8" else 100
        graph = VariantGraph(bytes=size, domains={}, operators={}, sha256=self.graphs.get(variant.name, variant.name))
        failed = (NOT_MADE,) if self.wrong.get(variant.name) == NOT_MADE else ()
        return Tried(Made(variant, level, dict, graph, tuning), variant.name, None, failed, None)

    def make_each(self, variants: Sequence[VariantPlan], level: Any, tuning: TuningPlan | None) -> list[Tried]:
        return [self.make(variant, level, tuning) for variant in variants]

    def glance_each(self, entries: Sequence[Tried]) -> list[Tried]:
        self.asked.append(f"glance {' '.join(map(named, entries))}")
        return [replace(entry, verdicts=(NOT_RUN,)) if self.verdict(entry) == NOT_RUN else entry for entry in entries]

    def end_makers(self) -> None:
        self.asked.append("end makers")

    def unload(self) -> None:
        self.asked.append("unload")

    def judge(self, entry: Tried) -> Tried:
        self.asked.append(f"judge {named(entry)}")
        return self.judged(entry)

    def verify(self, entry: Tried) -> Tried:
        self.asked.append(f"verify {named(entry)}")
        return self.judged(entry)

    def judged(self, entry: Tried) -> Tried:
        found = self.verdict(entry)
        return replace(entry, check=Check(), verdicts=() if found is None else (found,))

    def verdict(self, entry: Tried) -> Verdict | None:
        """What stands against a variant; a mix of precisions is right once its worst node is in float32."""
        return None if "n0" in entry.made.variant.exclude else self.wrong.get(entry.made.variant.name)

    def race(self, entries: Sequence[Tried], rounds: int, runs: int, **options: Any) -> Race:
        names = options.get("names") or [named(entry) for entry in entries]
        beside = [*names, *(["PyTorch eager"] if options.get("with_reference") else [])]
        where = f" at {options['shape']}" if options.get("shape") else ""
        self.asked.append(f"race {' '.join(names)}, {rounds} rounds{where}")
        contenders = tuple(
            Contender(name=name, rounds=((self.milliseconds.get(name, 50.0),) * runs,) * rounds) for name in beside
        )
        return Race(shape="batch=1", host=HOST, threads=2, contenders=contenders)

    def start(self, entry: Tried, starts: int) -> Starts:
        name = f"{named(entry)}-packed" if entry.made.prepacked else named(entry)
        self.asked.append(f"start {name}, {starts} times")
        return Starts(seconds=(self.starts.get(name, 0.2),) * starts, peak_rss_bytes=7)

    def reference_start(self) -> Starts | None:
        self.asked.append("start PyTorch")
        return Starts(seconds=(2.0,), peak_rss_bytes=9)

    def pack(self, entry: Tried) -> Tried:
        if "fp32-packed" not in self.starts:
            raise NotApplicable("too few weights")
        packed = Prepacked(file="model/prepacked.onnx", processor="x", runtime="1")
        return replace(entry, made=entry.made.packed(dict, entry.made.graph, packed), check=None)

    def sensitivity(self, entry: Tried) -> Sensitivity:
        self.asked.append(f"sensitivity {named(entry)}")
        nodes = tuple(
            NodeError(name=f"n{i}", operator="MatMul", shape=(2, 2), elements=4, in_blocks=True, error=1.0 / (i + 1))
            for i in range(4)
        )
        steps = (Step(step=1, bytes=50, p50_ms=1.0, verdicts=()),)
        return Sensitivity(nodes=nodes, steps=steps)

    def environment_bytes(self, entry: Tried) -> int:
        return 128_000_000


def named(entry: Tried) -> str:
    return entry.made.variant.name


def searched(bench: TableWorkbench) -> tuple[TargetSearch, Any]:
    seen: Workbench = bench
    search = TargetSearch(seen)
    return search, search.find()


def reasons(search: TargetSearch) -> dict[str, tuple[str, str]]:
    return {name: (entry.outcome, entry.reason) for name, entry in search.against.decisions.items()}


def test_the_steps_of_a_search_in_their_order() -> None:
    bench = TableWorkbench({"fp32": 30.0, "int8": 10.0}, variants=(FP32, INT8))
    search, outcome = searched(bench)
    assert named(outcome.winner) == "int8"
    assert outcome.reason == "fastest that passes"
    assert bench.asked[:6] == [
        *("make fp32", "make int8", "glance fp32 int8", "end makers"),
        *(f"race fp32 int8, {FIRST_ROUNDS} rounds", "verify int8"),
    ]
    assert bench.asked[6:10] == [
        *("unload", "start PyTorch", f"race int8, {latency.ROUNDS} rounds", f"start int8, {latency.START_RUNS} times")
    ]
    assert reasons(search) == {"fp32": ("rejected", "slower than int8")}
    assert outcome.numbers.p50_ms.value == 10.0
    assert outcome.numbers.eager_p50_ms.value == 50.0
    assert (outcome.numbers.peak_rss_bytes, outcome.numbers.start_seconds.value) == (7, 0.2)


def test_what_is_wrong_is_told_and_the_next_one_ships() -> None:
    bench = TableWorkbench({"fp32": 30.0, "int8": 10.0}, wrong={"int8": WRONG}, variants=(FP32, INT8))
    search, outcome = searched(bench)
    assert named(outcome.winner) == "fp32"
    assert [named(entry) for entry in search.against.failed] == ["int8"]
    assert reasons(search) == {"int8": ("rejected", "cosine is 0.90000, must be >= 0.98")}


def test_variants_that_no_race_needs() -> None:
    """What cannot be made, what does not load, and what is the same graph as another."""
    others = (variant("unmade", "fp32"), variant("unloaded", "fp32"), variant("twin", "fp32"))
    wrong = {"unmade": NOT_MADE, "unloaded": NOT_RUN}
    left_out = (LeftOut(variant="elsewhere", reason="no wheels"),)
    bench = TableWorkbench({}, wrong=wrong, graphs={"twin": "fp32"}, variants=(FP32, *others), left_out=left_out)
    search, outcome = searched(bench)
    assert named(outcome.winner) == "fp32"
    assert "glance fp32 unloaded" in bench.asked
    assert not [step for step in bench.asked if step.startswith("race") and step.count(" ") > 3]
    found = reasons(search)
    assert found["twin"] == ("rejected", "the same graph as fp32")
    assert found["elsewhere"] == ("left out", "no wheels")
    assert "nothing to merge" in found["unmade"][1]
    assert "no kernel" in found["unloaded"][1]


def test_nothing_passes() -> None:
    bench = TableWorkbench({}, wrong={"fp32": WRONG, "int8": WRONG}, variants=(FP32, INT8))
    search, outcome = searched(bench)
    assert outcome is None
    assert {named(entry) for entry in search.against.failed} == {"fp32", "int8"}
    assert not [step for step in bench.asked if step.startswith(("start", "sensitivity"))]


def test_a_quick_search_measures_less() -> None:
    close = {"fp32": 12.0, "int8": 10.0}
    bench = TableWorkbench(close, variants=(FP32, INT8), search="quick")
    _, outcome = searched(bench)
    assert (
        f"race int8 fp32, {QUICK_ROUNDS} rounds" in bench.asked
        or f"race fp32 int8, {QUICK_ROUNDS} rounds" in bench.asked
    )
    assert bench.asked[-2:] == [f"race int8, {latency.QUICK_ROUNDS} rounds", f"start int8, {QUICK_STARTS} times"]
    assert outcome.elsewhere == ()
    bench = TableWorkbench(close, variants=(FP32, INT8))
    _, outcome = searched(bench)
    assert [step for step in bench.asked if f"{SECOND_ROUNDS} rounds" in step]
    assert outcome.elsewhere
    assert {entry.fastest for entry in outcome.elsewhere} == {"int8"}


def test_the_smallest_gives_way_where_it_breaks_a_budget_of_time() -> None:
    changes: dict[str, Any] = {"objective": "size", "latency": {"p99": 0.02}}
    bench = TableWorkbench({"fp32": 10.0, "int8": 30.0}, variants=(FP32, INT8), **changes)
    search, outcome = searched(bench)
    assert named(outcome.winner) == "fp32"
    assert "latency p99 is 30 ms" in reasons(search)["int8"][1]
    # On a host that is none of the target's platforms, times say nothing.
    search, outcome = searched(TableWorkbench({"int8": 30.0}, variants=(FP32, INT8), promised=False, **changes))
    assert named(outcome.winner) == "int8"
    assert outcome.timed == ()


def test_a_slow_start_is_judged_before_anything_is_measured() -> None:
    changes: dict[str, Any] = {"start": 0.5, "variants": (FP32, INT8)}
    bench = TableWorkbench({"fp32": 30.0, "int8": 10.0}, starts={"int8": 0.9, "fp32": 0.1}, **changes)
    search, outcome = searched(bench)
    assert named(outcome.winner) == "fp32"
    assert "start is 900 ms" in reasons(search)["int8"][1]
    assert f"race int8, {latency.ROUNDS} rounds" not in bench.asked


@pytest.mark.parametrize("wrong", [{}, {"fp32": WRONG}])
def test_a_host_that_cannot_run_the_target(wrong: dict[str, Verdict]) -> None:
    """The first that is right ships; nothing is raced, and what comes after it is not made."""
    third = variant("third", "fp32")
    bench = TableWorkbench({}, wrong=wrong, variants=(FP32, INT8, third), runnable=False, promised=False)
    search, outcome = searched(bench)
    winner = "int8" if wrong else "fp32"
    assert named(outcome.winner) == winner
    assert outcome.reason == "not measured: this host lacks the target's hardware"
    assert (outcome.race, outcome.numbers, outcome.timed) == (None, None, ())
    assert {step.split()[0] for step in bench.asked} == {"make", "judge"}
    assert "make third" not in bench.asked
    assert reasons(search)["third"] == (
        "left out",
        f"not measured: this host lacks the target's hardware, and {winner} comes first",
    )


@pytest.mark.parametrize("runnable", [True, False])
def test_a_variant_that_is_wrong_as_a_whole_is_refined(runnable: bool) -> None:
    inexact = INT8.model_copy(update={"fallback": ("fp32",)})
    bench = TableWorkbench({}, wrong={"int8": WRONG}, variants=(inexact,), runnable=runnable, promised=runnable)
    search, outcome = searched(bench)
    assert outcome.winner.made.variant.exclude == ("n0",)
    assert "sensitivity int8" in bench.asked
    assert [trade.variant for trade in search.against.trades] == ["int8"]
    assert "of 4 nodes 1 in floating point" in outcome.reason


def test_a_session_that_is_clearly_faster_is_taken() -> None:
    tuning = TuningPlan(
        name="spinning", concurrency=FP32.session.concurrency, intra_op=None, options={}, config_entries={"a": "1"}
    )
    for milliseconds, note in ((5.0, "session `spinning`"), (10.0, None)):
        bench = TableWorkbench({"plain": 10.0, "spinning": milliseconds}, variants=(FP32,), tuning=(tuning,))
        _, outcome = searched(bench)
        assert (outcome.winner.made.tuning == tuning) is (note is not None)
        assert outcome.reason == "; ".join(filter(None, ("the only variant that was tried", note)))


@pytest.mark.parametrize(
    ("starts", "said"),
    [
        ({}, "weights not packed: too few weights"),
        ({"fp32": 1.0, "fp32-packed": 0.5}, "weights packed for this processor: starts in 500 ms instead of 1000 ms"),
        ({"fp32": 1.0, "fp32-packed": 1.0}, "weights not packed: starts in 1000 ms instead of 1000 ms"),
    ],
)
def test_packed_weights_ship_where_the_start_is_faster(starts: dict[str, float], said: str) -> None:
    bench = TableWorkbench({}, starts=starts, variants=(FP32,), prepack=True)
    _, outcome = searched(bench)
    assert outcome.reason.endswith(said)
    assert (outcome.winner.made.prepacked is not None) is said.startswith("weights packed")
