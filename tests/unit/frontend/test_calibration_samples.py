"""Which samples judge, which calibrate, and masks that a plan did not know of."""

from collections.abc import Iterable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.support.sample_inputs import ATTENTION, AXES, BATCH_AXIS, IDS, PIXELS, SEQUENCE, TEXT, TEXTS, case

from ortc.common.arrays import Array
from ortc.frontend.samples.calibration import CALIBRATION_SAMPLES, SYNTHETIC_CALIBRATION, calibration_inputs
from ortc.frontend.samples.inputs import (
    MASK,
    MAX_SAMPLES,
    InputFactory,
    Samples,
    padded_cases,
    synthetic,
)
from ortc.frontend.samples.texts import Frame, Padding
from ortc.plan.plan import InputPlan
from ortc.plan.shape_matrix import shape_matrix


@given(st.integers(2, 9))
def test_samples_are_split_into_what_judges_and_what_calibrates(count: int) -> None:
    arrays: dict[str, Array] = {"a": np.arange(count), "b": np.arange(count) * 10}
    texts = tuple((number, number) for number in range(count))
    for samples in (
        Samples(arrays=arrays),
        Samples(texts=texts, frame=Frame((1,), (2,), (0,), 0, (0,)), padding=Padding(3)),
    ):
        halves = samples.split()
        assert [len(half) for half in halves] == [-(-count // 2), count // 2]
        for half in halves:
            assert (half.frame, half.padding) == (samples.frame, samples.padding)
            if arrays := dict(half.arrays):
                # An input's rows stay beside those of the others.
                assert np.array_equal(arrays["a"] * 10, arrays["b"])
        rows = [[*half.texts, *(int(value) for value in half.arrays.get("a", ()))] for half in halves]
        assert not set(rows[0]) & set(rows[1])
        assert len(rows[0]) + len(rows[1]) == count


def test_a_single_sample_is_both() -> None:
    one = Samples(texts=((1, 2),))
    assert one.split() == (one, one)
    assert Samples().split() == (Samples(), Samples())


def rows_of(feeds: Iterable[dict[str, Array]], name: str) -> set[bytes]:
    return {row.tobytes() for arrays in feeds for row in arrays[name]}


def test_nothing_is_judged_on_what_it_was_calibrated_on() -> None:
    pixels = np.random.default_rng(1).standard_normal((9, 2, 3)).astype(np.float32)
    judged, calibration = Samples(arrays={"pixels": pixels}).split()
    factory = InputFactory((PIXELS,), (BATCH_AXIS,), judged, calibration)
    ranges = rows_of(calibration_inputs(factory), "pixels")
    cases, _ = shape_matrix((BATCH_AXIS,), None)
    answers = rows_of([factory.case(entry) for entry in cases], "pixels")
    answers |= rows_of([arrays for _, arrays in factory.real()], "pixels")
    assert answers == {row.tobytes() for row in pixels[::2]}
    assert ranges == {row.tobytes() for row in pixels[1::2]}


def test_calibration_takes_more_samples_than_are_judged() -> None:
    pixels = np.arange(2 * (CALIBRATION_SAMPLES + 9) * 6, dtype=np.float32).reshape(-1, 2, 3)
    factory = InputFactory((PIXELS,), (BATCH_AXIS,), *Samples(arrays={"pixels": pixels}).split())
    # The longest request and the shortest come before the samples, one a request.
    found = list(calibration_inputs(factory))[2:]
    assert len(found) == CALIBRATION_SAMPLES == len(rows_of(found, "pixels"))
    assert sum(len(arrays["pixels"]) for _, arrays in factory.real()) == MAX_SAMPLES


def test_calibration_of_texts_is_by_texts_of_their_own() -> None:
    judged, calibration = TEXTS.split()
    factory = InputFactory(TEXT, AXES, judged, calibration)
    found = list(calibration_inputs(factory))
    tokens = {int(token) for arrays in found for token in arrays["input_ids"].ravel()} - {101, 102, 7}
    assert tokens <= {token for text in calibration.texts for token in text}
    assert not tokens & {token for text in judged.texts for token in text}
    # The longest request is among them, and none has padding, which has activations of its own.
    assert (1, SEQUENCE.max) in {arrays["input_ids"].shape for arrays in found}
    assert all(arrays[MASK].all() for arrays in found)


def test_calibration_without_samples_is_seeded_and_not_what_cases_are_made_of() -> None:
    factory = InputFactory((PIXELS,), (BATCH_AXIS,), Samples())
    found = list(calibration_inputs(factory))
    assert len(found) == SYNTHETIC_CALIBRATION
    assert [a["pixels"].tobytes() for a in found] == [a["pixels"].tobytes() for a in calibration_inputs(factory)]
    cases, _ = shape_matrix((BATCH_AXIS,), None)
    assert not rows_of(found, "pixels") & rows_of([factory.case(entry) for entry in cases], "pixels")


def test_boxes_are_boxes() -> None:
    boxes = InputPlan(name="bbox", dtype="int64", shape=("batch", "sequence", 4), range=(0, 1023))
    found = synthetic(boxes, {"batch": 4, "sequence": 32}, "x")
    left, top, right, bottom = (found[..., index] for index in range(4))
    assert (left <= right).all()
    assert (top <= bottom).all()
    assert found.min() < 100
    assert found.max() > 900
    shares = synthetic(
        boxes.model_copy(update={"dtype": "float32", "range": (0.0, 1.0)}), {"batch": 2, "sequence": 8}, "x"
    )
    assert (shares[..., 0] <= shares[..., 2]).all()


PIXEL_MASK = InputPlan(name="pixel_mask", dtype="int64", shape=("batch", 8, 6), range=(0, 1), fill=1)
IMAGE = InputPlan(name="pixel_values", dtype="float32", shape=("batch", 3, 8, 6))
WAVE = InputPlan(name="input_values", dtype="float32", shape=("batch", "sequence"))


def test_masks_that_a_plan_did_not_know_of_have_padded_cases() -> None:
    plain, _ = shape_matrix(AXES, None)
    for inputs in ((IMAGE, PIXEL_MASK), (WAVE, ATTENTION)):
        factory = InputFactory(inputs, AXES, Samples())
        padded = padded_cases(factory, plain)
        assert padded
        assert all(case.padded for case in padded)
        for found in padded:
            mask = factory.case(found)[inputs[1].name]
            assert (mask[0] == 1).all() or len(mask) == 1
            assert all((row == 0).any() and (row == 1).any() for row in mask[1:] if row.size > 2)
            assert (factory.case(found.model_copy(update={"padded": False}))[inputs[1].name] == 1).all()
    # Text is padded by the plan, and images without a mask are not padded at all.
    known, _ = shape_matrix(AXES, "sequence")
    assert padded_cases(InputFactory(TEXT, AXES, Samples()), known) == []
    assert padded_cases(InputFactory((IMAGE,), AXES, Samples()), plain) == []


def test_token_types_of_several_columns() -> None:
    columns = InputPlan(name="token_type_ids", dtype="int64", shape=("batch", "sequence", 7))
    found = InputFactory((IDS, ATTENTION, columns), AXES, TEXTS).case(case(batch=2, sequence=8))
    assert found["token_type_ids"].shape == (2, 8, 7)
