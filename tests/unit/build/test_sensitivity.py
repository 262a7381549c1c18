"""Which nodes are kept in higher precision: layers by repeated shapes, and the ladder of mixes."""

from __future__ import annotations

import pytest
from tests.support import plans

from ortc.build.search.precision_ladder import Ladder, NodeError, Step, search_steps
from ortc.evaluation.report import Verdict
from ortc.passes.quantization.mixed_graphs import Mix, Node, layers
from ortc.spec.quantization import DynamicQuantization, Quantization, WeightQuantization

BLOCK = ((384, 384), (384, 384), (384, 1536), (1536, 384))


def node(name: str, shape: tuple[int, ...] = (64, 64), *, operator: str = "MatMul", in_blocks: bool = True) -> Node:
    return Node(name=name, operator=operator, shape=shape, in_blocks=in_blocks)


def nodes(*shapes: tuple[int, ...]) -> list[Node]:
    return [node(f"n{index}", shape) for index, shape in enumerate(shapes)]


def sizes(*shapes: tuple[int, ...]) -> list[int]:
    return [len(group) for group in layers(nodes(*shapes))]


def test_layers_are_what_repeats() -> None:
    assert sizes((9, 9), *BLOCK * 5, (384, 2)) == [1, 4, 4, 4, 4, 4, 1]


def test_equal_shapes_are_layers_of_one() -> None:
    assert sizes(*[(8, 8)] * 4) == [1, 1, 1, 1]


def test_without_repetition_each_node_is_its_own_group() -> None:
    assert sizes((1, 2), (3, 4), (5, 6)) == [1, 1, 1]
    assert sizes((1, 2)) == [1]
    assert layers([]) == []


def test_no_node_is_lost_or_doubled() -> None:
    given = nodes((2, 2), (3, 3), *BLOCK * 3, (384, 384), (7, 7), (7, 7))
    assert [one for group in layers(given) for one in group] == given


def errors(count: int, *, blocks: bool = True) -> list[NodeError]:
    return [
        NodeError(name=f"n{i}", operator="MatMul", shape=(2, 2), elements=4, in_blocks=blocks, error=1.0 / (i + 1))
        for i in range(count)
    ]


DYNAMIC = DynamicQuantization(kind="dynamic", operators=("MatMul",))
WEIGHTS = WeightQuantization(kind="weight-only", bits=8, operators=("MatMul",))


def ladder(count: int, *fallback: str, blocks: bool = True, quantization: Quantization = DYNAMIC) -> Ladder:
    variant = plans.variant("int8-dynamic", "int8").model_copy(
        update={"quantization": quantization, "fallback": fallback}
    )
    return Ladder(variant, errors(count, blocks=blocks))


def test_the_worst_nodes_come_first() -> None:
    steps = ladder(4, "int8-weights", "fp32")
    assert steps.mix(0) == Mix()
    assert steps.mix(1) == Mix(blocks=("n0",))
    assert steps.mix(4) == Mix(blocks=("n0", "n1", "n2", "n3"))
    assert steps.mix(5) == Mix(exclude=("n0",))
    assert steps.mix(6) == Mix(exclude=("n0", "n1"))
    assert steps.mix(7) == Mix(blocks=("n1", "n2", "n3"), exclude=("n0",))
    assert steps.mix(steps.top) == Mix(blocks=("n2", "n3"), exclude=("n0", "n1"))
    assert steps.flights() == [(0, 4), (4, 6), (6, 8)]


@pytest.mark.parametrize(
    ("given", "flights"),
    [
        (ladder(10, "fp32"), [(0, 5)]),
        (ladder(10, "int8-weights"), [(0, 10)]),
        (ladder(10, "int8-weights", blocks=False), []),
        (ladder(10, "int8-weights", "fp32", blocks=False), [(0, 5)]),
        (ladder(10, "int8-weights", "fp32", quantization=WEIGHTS), [(0, 5)]),
        (ladder(1, "fp32"), []),
    ],
    ids=["floats", "weights", "no blocks", "no blocks but floats", "weights are integers already", "half of one"],
)
def test_at_least_half_of_the_nodes_hold_integers(given: Ladder, flights: list[tuple[int, int]]) -> None:
    assert given.flights() == flights


def searched(given: Ladder, right: set[int]) -> tuple[list[int], list[int]]:
    """Steps that were measured, and those of them that pass."""

    def measure(step: int, mix: Mix) -> Step:
        assert mix == given.mix(step)
        gates = () if step in right else (failing,)
        return Step(step=step, bytes=1, p50_ms=None, verdicts=gates)

    failing = Verdict(gate="cosine", platform="linux/amd64", outcome="fail", observed="0.5", limit=">= 0.9")
    found = search_steps(given, measure)
    return [entry.step for entry in found], [entry.step for entry in found if entry.passes]


def test_the_least_step_that_passes_is_found_by_halving() -> None:
    steps, passing = searched(ladder(16, "int8-weights"), set(range(5, 17)))
    assert min(passing) == 5
    assert len(steps) <= 6
    assert steps == sorted(steps)


def test_floating_point_is_tried_where_integer_weights_are_not_enough() -> None:
    assert min(searched(ladder(8, "int8-weights", "fp32"), {9, 10, 11, 12, 13, 14, 15, 16})[1]) == 9


def test_what_nothing_makes_right_is_given_up() -> None:
    steps, passing = searched(ladder(8, "int8-weights", "fp32"), set())
    assert (steps, passing) == ([0, 8, 12, 16], [])


def test_what_is_right_already_is_left_alone() -> None:
    assert searched(ladder(8, "fp32"), set(range(9))) == ([0], [0])
