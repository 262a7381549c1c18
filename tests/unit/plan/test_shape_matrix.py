"""The shape matrix covers the bounds it promises, and says what it leaves out."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from ortc.plan.plan import AxisPlan, Shape, settled
from ortc.plan.shape_matrix import MAX_COMBINATIONS, corners, shape_matrix, sizes, without_largest
from ortc.spec.relations import Relation


@st.composite
def axis(draw: st.DrawFn, name: str = "a") -> AxisPlan:
    step = draw(st.sampled_from([1, 1, 2, 8, 14]))
    low, middle, high = sorted(draw(st.lists(st.integers(1, 400), min_size=3, max_size=3)))
    return AxisPlan(name=name, min=low * step, typical=middle * step, max=high * step, multiple_of=step)


@st.composite
def several_axes(draw: st.DrawFn) -> tuple[AxisPlan, ...]:
    return tuple(draw(axis(name)) for name in "abcd"[: draw(st.integers(0, 4))])


@given(axis())
def test_sizes_hold_the_bounds_and_an_odd_one_between(axis: AxisPlan) -> None:
    found = sizes(axis)
    step = axis.multiple_of
    assert list(found) == sorted(set(found))
    assert {axis.min, axis.typical, axis.max} <= set(found)
    assert all(axis.min <= size <= axis.max and size % step == 0 for size in found)
    between = [n for n in range(axis.min // step, axis.max // step) if n % 2 and n * step not in (axis.min, axis.max)]
    if between:
        # Unless typical is the only odd size there is, one that nobody named is taken too.
        assert any((size // step) % 2 and axis.min < size < axis.max for size in found)
    assert len(found) <= 4


def test_the_odd_size_is_in_the_middle_of_the_scale() -> None:
    assert sizes(AxisPlan(name="sequence", min=1, typical=128, max=512)) == (1, 23, 128, 512)
    assert sizes(AxisPlan(name="batch", min=1, typical=1, max=16)) == (1, 5, 16)
    assert sizes(AxisPlan(name="height", min=224, typical=224, max=448, multiple_of=14)) == (224, 322, 448)
    assert sizes(AxisPlan(name="fixed", min=4, typical=4, max=4)) == (4,)
    assert sizes(AxisPlan(name="batch", min=1, typical=1, max=2)) == (1, 2)


@given(several_axes(), st.booleans())
def test_every_combination_is_checked_or_left_out_with_a_reason(axes: tuple[AxisPlan, ...], padded: bool) -> None:
    cases, skipped = shape_matrix(axes, axes[-1].name if axes and padded else None)
    checked = [tuple(case.shape.as_dict().values()) for case in cases if not case.padded]
    left_out = [tuple(case.shape.as_dict().values()) for case in skipped]
    assert sorted(checked + left_out) == sorted(itertools.product(*(sizes(axis) for axis in axes)))
    assert all(case.reason for case in skipped)
    for corner in ("min", "typical", "max"):
        assert tuple(getattr(axis, corner) for axis in axes) in checked
    for axis in axes:
        # Each axis goes through all its sizes, whatever is left out.
        assert {case.shape.as_dict()[axis.name] for case in cases} == set(sizes(axis))
    if len(checked) + len(left_out) <= MAX_COMBINATIONS:
        assert not skipped
    else:
        assert len(checked) <= 1 + 4 * len(axes) + 2


@given(several_axes())
def test_padding_doubles_the_cases_that_have_room_for_it(axes: tuple[AxisPlan, ...]) -> None:
    if not axes:
        return
    cases, _ = shape_matrix(axes, axes[-1].name)
    for case in cases:
        twin = case.model_copy(update={"padded": not case.padded})
        assert (twin in cases) == (case.padded or case.shape.as_dict()[axes[-1].name] > 1)
    assert not any(case.padded for case in shape_matrix(axes, None)[0])


def test_a_model_without_axes_has_one_case() -> None:
    cases, skipped = shape_matrix((), None)
    assert [str(case) for case in cases] == ["fixed shape"]
    assert skipped == ()


def test_cases_are_written_for_people() -> None:
    cases, _ = shape_matrix((AxisPlan(name="batch", min=2, typical=2, max=2),), "batch")
    assert [str(case) for case in cases] == ["batch=2", "batch=2, padded"]


@given(several_axes(), st.booleans(), st.data())
def test_a_quick_search_keeps_the_corners_and_what_is_measured(
    axes: tuple[AxisPlan, ...], padded: bool, data: st.DataObject
) -> None:
    cases, skipped = shape_matrix(axes, axes[-1].name if axes and padded else None)
    measured = {data.draw(st.sampled_from(cases)).shape}
    kept, left = corners(axes, cases, skipped, measured)
    bounds = {axis.name: (axis.min, axis.max) for axis in axes}

    def is_corner(shape: Shape) -> bool:
        return all(size in bounds[name] for name, size in shape.sizes)

    assert set(kept) <= set(cases)
    assert {case.shape for case in kept} == {case.shape for case in cases if is_corner(case.shape)} | measured
    # Each shape of the matrix is looked at or told to be left out, once.
    assert left[: len(skipped)] == skipped
    more = [case.shape for case in left[len(skipped) :]]
    assert len(more) == len(set(more))
    assert set(more) == {case.shape for case in cases} - {case.shape for case in kept}
    assert all(case.reason for case in left)
    # Where rows can be of different lengths, that is looked at in every corner.
    assert {case.shape for case in kept if case.padded} == {
        case.shape for case in cases if case.padded and (is_corner(case.shape) or case.shape in measured)
    }


def test_corners_of_an_encoder() -> None:
    axes = (
        AxisPlan(name="batch", min=1, typical=1, max=16),
        AxisPlan(name="sequence", min=1, typical=128, max=512),
    )
    cases, skipped = shape_matrix(axes, "sequence")
    at = Shape(sizes=(("batch", 1), ("sequence", 128)))
    kept, left = corners(axes, cases, skipped, {at})
    assert {tuple(case.shape.as_dict().values()) for case in kept} == {(1, 1), (1, 128), (1, 512), (16, 1), (16, 512)}
    assert {tuple(case.shape.as_dict().values()) for case in left} == {
        (1, 23),
        (5, 1),
        (5, 23),
        (5, 128),
        (5, 512),
        (16, 23),
        (16, 128),
    }


def test_the_largest_shape_is_left_out_where_every_axis_is_still_looked_at() -> None:
    axes = (
        AxisPlan(name="batch", min=1, typical=1, max=16),
        AxisPlan(name="sequence", min=1, typical=128, max=512),
    )
    cases, _ = shape_matrix(axes, "sequence")
    kept = without_largest(axes, cases)
    assert {case.shape.sizes for case in set(cases) - set(kept)} == {(("batch", 16), ("sequence", 512))}
    # One axis, or an axis that no other case has at its greatest size.
    alone, _ = shape_matrix(axes[:1], None)
    assert without_largest(axes[:1], alone) == alone
    few = tuple(case for case in cases if case.shape.as_dict()["batch"] == 1 or case not in kept)
    assert without_largest(axes, few) == few
    assert without_largest((), shape_matrix((), None)[0]) == shape_matrix((), None)[0]


def test_sizes_that_follow_from_others_go_with_them() -> None:
    total = AxisPlan(
        name="total", min=2, typical=20, max=72, equals=Relation(terms=(("past", 1), ("sequence", 1)), constant=0)
    )
    axes = (
        total,
        AxisPlan(name="past", min=1, typical=16, max=64),
        AxisPlan(name="sequence", min=1, typical=4, max=8),
    )
    cases, skipped = shape_matrix(axes, None)
    shapes = [case.shape.as_dict() for case in cases]
    assert skipped == ()
    assert len(shapes) == 16
    assert all(list(shape) == ["total", "past", "sequence"] for shape in shapes)
    assert all(shape["total"] == shape["past"] + shape["sequence"] for shape in shapes)
    kept, _ = corners(axes, cases, (), set())
    assert {(case.shape.as_dict()["past"], case.shape.as_dict()["sequence"]) for case in kept} == {
        (1, 1),
        (1, 8),
        (64, 1),
        (64, 8),
    }
    # No other case has the greatest sum.
    assert without_largest(axes, cases) == cases
    assert settled(axes, {"total": 5, "past": 3, "sequence": 4}) == {"total": 7, "past": 3, "sequence": 4}
