"""Inputs for every case: of the declared shape and range, from real samples where there are any."""

import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortc.common.arrays import Array, write_arrays
from ortc.common.errors import StageError
from ortc.frontend.samples.calibration import CALIBRATION_SAMPLES, SYNTHETIC_CALIBRATION, calibration_inputs
from ortc.frontend.samples.inputs import (
    BATCH,
    MASK,
    MAX_SAMPLES,
    POSITIONS,
    InputFactory,
    Samples,
    padded_cases,
    synthetic,
)
from ortc.frontend.samples.sources import read_samples
from ortc.frontend.samples.texts import Frame, Padding
from ortc.plan.plan import AxisPlan, CasePlan, InputPlan, Shape
from ortc.plan.shape_matrix import shape_matrix

BATCH_AXIS = AxisPlan(name="batch", min=1, typical=1, max=16)
SEQUENCE = AxisPlan(name="sequence", min=1, typical=8, max=32)
AXES = (BATCH_AXIS, SEQUENCE)
IDS = InputPlan(name="input_ids", dtype="int64", shape=("batch", "sequence"), range=(0, 99))
ATTENTION = InputPlan(name=MASK, dtype="int64", shape=("batch", "sequence"), fill=1)
TYPES = InputPlan(name="token_type_ids", dtype="int64", shape=("batch", "sequence"), range=(0, 1))
TEXT = (IDS, ATTENTION, TYPES)
PIXELS = InputPlan(name="pixels", dtype="float32", shape=("batch", 2, 3))
TEXTS = Samples(
    texts=tuple(tuple(range(10 * i + 10, 10 * i + 10 + 3 + i)) for i in range(5)),
    frame=Frame((101,), (102,), (0,), 0, (0,)),
    padding=Padding(7),
)


def case(padded: bool = False, **sizes: int) -> CasePlan:
    return CasePlan(shape=Shape(sizes=tuple(sizes.items())), padded=padded)


@given(
    st.sampled_from(["float64", "float32", "int64", "int32", "uint8", "bool"]),
    st.sampled_from([None, (0, 1), (0, 100)]),
    st.integers(1, 4),
)
def test_synthetic_data_is_in_range_and_seeded(dtype: str, bounds: tuple[int, int] | None, size: int) -> None:
    if dtype == "bool":
        bounds = None
    tensor = InputPlan.model_validate({"name": "x", "dtype": dtype, "shape": ["n", 50], "range": bounds})
    found = synthetic(tensor, {"n": size}, "seed")
    assert (found.shape, found.dtype) == ((size, 50), np.dtype(dtype))
    assert found.tobytes() == synthetic(tensor, {"n": size}, "seed").tobytes()
    assert found.tobytes() != synthetic(tensor, {"n": size}, "another seed").tobytes()
    if bounds is not None:
        assert bounds[0] <= found.min()
        assert found.max() <= bounds[1]
    elif np.dtype(dtype).kind != "f":
        assert set(np.unique(found)) == {0, 1}


def test_synthetic_data_reaches_both_ends_of_its_range() -> None:
    tensor = InputPlan(name="x", dtype="int64", shape=(1000,), range=(3, 5))
    assert set(synthetic(tensor, {}, "x")) == {3, 4, 5}
    negative = InputPlan(name="x", dtype="int8", shape=(1000,), range=(-128, -127))
    assert set(synthetic(negative, {}, "x")) == {-128, -127}


def test_synthetic_data_is_the_same_on_every_machine() -> None:
    tensor = InputPlan(name="x", dtype="int64", shape=(6,), range=(0, 30521))
    assert synthetic(tensor, {}, "input_ids").tolist() == [23606, 13117, 25431, 4652, 20137, 13361]
    assert synthetic(InputPlan(name="m", dtype="int64", shape=(2,), fill=1), {}, "x").tolist() == [1, 1]


def test_floats_without_a_range_are_standard_normal() -> None:
    found = synthetic(InputPlan(name="x", dtype="float32", shape=(20_000,)), {}, "x")
    assert abs(float(found.mean())) < 0.05
    assert abs(float(found.std()) - 1) < 0.05


FACTORIES = {
    "synthetic": InputFactory(TEXT, AXES, Samples()),
    "text": InputFactory(TEXT, AXES, TEXTS),
    "arrays": InputFactory(
        TEXT, AXES, Samples(arrays={t.name: np.ones((3, 5), dtype=np.int64) * (t is not TYPES) for t in TEXT})
    ),
}


@pytest.mark.parametrize("name", FACTORIES)
@pytest.mark.parametrize("case", shape_matrix(AXES, "sequence")[0], ids=str)
def test_cases_have_exactly_their_shape(name: str, case: CasePlan) -> None:
    sizes = case.shape.as_dict()
    feeds = FACTORIES[name].case(case)
    assert list(feeds) == [tensor.name for tensor in TEXT]
    for tensor in TEXT:
        assert feeds[tensor.name].shape == (sizes["batch"], sizes["sequence"])
        assert feeds[tensor.name].dtype == np.int64
        assert feeds[tensor.name].flags.c_contiguous
    lengths = feeds[MASK].sum(axis=1)
    # The mask is ones, then zeros.
    assert (feeds[MASK] == (np.arange(sizes["sequence"]) < lengths[:, None])).all()
    assert lengths.min() >= 1
    if not case.padded:
        assert (lengths == sizes["sequence"]).all()
    elif sizes["batch"] > 1:
        # Full and padded rows in one batch: what one does to the other must show.
        assert lengths[0] == sizes["sequence"]
        assert lengths[1:].max() < sizes["sequence"]
    else:
        assert lengths[0] == sizes["sequence"] - 1


def test_text_fills_exactly_the_length_in_its_frame() -> None:
    factory = InputFactory(TEXT, AXES, TEXTS)
    ids = factory.case(case(batch=2, sequence=7))["input_ids"]
    # The first sample has three ids; the next one's follow. The second row starts with the second sample.
    assert ids.tolist() == [[101, 10, 11, 12, 20, 21, 102], [101, 20, 21, 22, 23, 30, 102]]
    assert factory.case(case(batch=1, sequence=2))["input_ids"].tolist() == [[101, 102]]
    assert factory.case(case(batch=1, sequence=1))["input_ids"].tolist() == [[10]]


def test_padding_of_text_is_the_pad_token() -> None:
    feeds = InputFactory(TEXT, AXES, TEXTS).case(case(padded=True, batch=2, sequence=6))
    assert feeds[MASK].tolist() == [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]]
    assert feeds["input_ids"].tolist() == [[101, 10, 11, 12, 20, 102], [101, 20, 102, 7, 7, 7]]
    assert not feeds["token_type_ids"].any()


def test_real_texts_keep_their_own_lengths() -> None:
    (name, feeds), *more = InputFactory(TEXT, AXES, TEXTS).real()
    assert (name, more) == ("samples 1-5", [])
    assert feeds[MASK].sum(axis=1).tolist() == [5, 6, 7, 8, 9]
    assert feeds["input_ids"].shape == (5, 9)
    assert feeds["input_ids"][0].tolist() == [101, 10, 11, 12, 102, 7, 7, 7, 7]
    assert feeds["input_ids"][4].tolist() == [101, 50, 51, 52, 53, 54, 55, 56, 102]


def test_long_texts_are_cut_and_short_ones_padded_to_the_bounds() -> None:
    axes = (BATCH_AXIS, AxisPlan(name="sequence", min=4, typical=4, max=8, multiple_of=4))
    samples = Samples(texts=((1,), tuple(range(20))), frame=Frame((101,), (102,), (0,), 0, (0,)))
    (_, feeds), *_ = InputFactory(TEXT, axes, samples).real()
    assert feeds["input_ids"].tolist() == [[101, 1, 102, 0, 0, 0, 0, 0], [101, 0, 1, 2, 3, 4, 5, 102]]
    (_, feeds), *_ = InputFactory(TEXT, axes, Samples(texts=((1,),), frame=Frame((101,), (102,), (0,), 0, (0,)))).real()
    assert feeds["input_ids"].shape == (1, 4)


def test_texts_fit_a_model_of_fixed_length() -> None:
    inputs = tuple(tensor.model_copy(update={"shape": ("batch", 6)}) for tensor in TEXT)
    (_, feeds), *_ = InputFactory(inputs, (BATCH_AXIS,), TEXTS).real()
    assert feeds["input_ids"].shape == (5, 6)
    assert feeds[MASK].sum(axis=1).tolist() == [5, 6, 6, 6, 6]


def numbered(count: int) -> Samples:
    return Samples(
        arrays={"pixels": np.arange(count, dtype=np.float32)[:, None, None] + np.zeros((1, 2, 3), np.float32)}
    )


def rows(batches: list[tuple[str, dict[str, Array]]]) -> list[list[int]]:
    return [feeds["pixels"][:, 0, 0].astype(int).tolist() for _, feeds in batches]


def test_arrays_go_in_batches() -> None:
    found = InputFactory((PIXELS,), (BATCH_AXIS,), numbered(11)).real()
    assert [name for name, _ in found] == ["samples 1-8", "samples 9-11"]
    assert rows(found) == [list(range(8)), [8, 9, 10]]


def test_long_samples_go_in_smaller_batches() -> None:
    """One row of these is as much work as all of a short batch, and a bundle repeats a batch at every start."""
    axes = (BATCH_AXIS, AxisPlan(name="sequence", min=1, typical=128, max=200))
    texts = tuple((1,) * length for length in (3, 100, 3, 3, 198, 500, 2, 2))
    found = InputFactory(TEXT, axes, Samples(texts=texts, frame=Frame((101,), (102,), (0,), 0, (0,)))).real()
    assert [name for name, _ in found] == ["samples 1-2", "samples 3-4", "samples 5-5", "samples 6-6", "samples 7-8"]
    assert all(feeds["input_ids"].size <= POSITIONS for _, feeds in found)
    pixels = PIXELS.model_copy(update={"shape": ("batch", "height", 3)})
    tall = AxisPlan(name="height", min=1, typical=2, max=300)
    arrays = {"pixels": np.zeros((5, 100, 3), np.float32)}
    found = InputFactory((pixels,), (BATCH_AXIS, tall), Samples(arrays=arrays)).real()
    assert [feeds["pixels"].shape[0] for _, feeds in found] == [2, 2, 1]


def test_many_samples_are_thinned_evenly() -> None:
    found = InputFactory((PIXELS,), (BATCH_AXIS,), numbered(1000)).real()
    taken = [row for batch in rows(found) for row in batch]
    assert len(taken) == MAX_SAMPLES
    assert (taken[0], taken[-1]) == (0, 999)
    assert {b - a for a, b in itertools.pairwise(taken)} == {7, 8}


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 30), st.sampled_from([1, 2, 3, 5]))
def test_every_sample_is_in_some_batch_within_the_bounds(count: int, low: int, more: int, step: int) -> None:
    axis = AxisPlan(name="batch", min=low * step, typical=low * step, max=(low + more) * step, multiple_of=step)
    found = rows(InputFactory((PIXELS,), (axis,), numbered(count)).real())
    assert {row for batch in found for row in batch} == set(range(count))
    for batch in found:
        assert axis.min <= len(batch) <= axis.max
        assert len(batch) % step == 0
        assert len(batch) <= max(BATCH, axis.min, step)


def test_a_model_of_fixed_batch_is_checked_on_real_samples_too() -> None:
    fixed = PIXELS.model_copy(update={"shape": (4, 2, 3)})
    assert rows(InputFactory((fixed,), (), numbered(6)).real()) == [[0, 1, 2, 3], [4, 5, 0, 1]]


def test_nothing_real_without_samples_or_a_common_first_dimension() -> None:
    assert InputFactory((PIXELS,), (BATCH_AXIS,), Samples()).real() == []
    scalar = InputPlan(name="scale", dtype="float32", shape=())
    arrays = {"pixels": np.ones((2, 2, 3), np.float32), "scale": np.ones(2, np.float32)}
    factory = InputFactory((PIXELS, scalar), (BATCH_AXIS,), Samples(arrays=arrays))
    assert (factory.batch_axis, factory.real()) == (None, [])
    assert InputFactory((PIXELS,), (BATCH_AXIS,), Samples()).batch_axis == "batch"


def test_arrays_are_tiled_and_cut_to_a_case() -> None:
    factory = InputFactory((PIXELS,), (BATCH_AXIS,), numbered(3))
    assert rows([("", factory.case(case(batch=7)))]) == [[0, 1, 2, 0, 1, 2, 0]]
    assert rows([("", factory.case(case(batch=2)))]) == [[0, 1]]


def test_a_padded_case_of_arrays_has_its_own_mask() -> None:
    arrays = {"input_ids": np.ones((2, 4), dtype=np.int64), MASK: np.ones((2, 4), dtype=np.int64)}
    factory = InputFactory((IDS, ATTENTION), AXES, Samples(arrays=arrays))
    assert factory.case(case(padded=True, batch=2, sequence=4))[MASK].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 2, 3)), "are float64 with 3 dimensions; the spec declares float32 with 3"),
        (np.zeros((3, 2), np.float32), "are float32 with 2 dimensions"),
        (np.zeros((3, 2, 4), np.float32), r"have shape \[3, 2, 4\]"),
    ],
)
def test_arrays_must_be_as_declared(array: Array, message: str) -> None:
    factory = InputFactory((PIXELS,), (BATCH_AXIS,), Samples(arrays={"pixels": array}))
    with pytest.raises(StageError, match=message):
        factory.real()
    with pytest.raises(StageError, match=message):
        factory.case(case(batch=1))


def test_real_arrays_must_be_within_the_bounds() -> None:
    arrays = {"input_ids": np.ones((2, 40), dtype=np.int64)}
    with pytest.raises(StageError, match="have size 40 along `sequence`; the spec declares 1 to 32"):
        InputFactory((IDS,), AXES, Samples(arrays=arrays)).real()
    axes = (BATCH_AXIS, AxisPlan(name="sequence", min=2, typical=2, max=32, multiple_of=2))
    with pytest.raises(StageError, match="have size 7 along `sequence`; the spec declares 2 to 32 in steps of 2"):
        InputFactory((IDS,), axes, Samples(arrays={"input_ids": np.ones((2, 7), dtype=np.int64)})).real()


def test_samples_must_be_for_the_models_inputs() -> None:
    with pytest.raises(StageError, match="lack an array for the input `pixels`"):
        InputFactory((PIXELS,), (BATCH_AXIS,), Samples(arrays={"other": np.ones((1, 1))}))
    with pytest.raises(StageError, match="first input is not `input_ids`"):
        InputFactory((PIXELS,), (BATCH_AXIS,), TEXTS)


def test_npz_samples(tmp_path: Path) -> None:
    write_arrays(tmp_path / "ok.npz", {"a": np.ones((3, 2)), "b": np.ones(3)})
    assert len(read_samples(tmp_path / "ok.npz", None)) == 3
    write_arrays(tmp_path / "uneven.npz", {"a": np.ones((3, 2)), "b": np.ones(4)})
    write_arrays(tmp_path / "none.npz", {"a": np.ones((0, 2))})
    write_arrays(tmp_path / "scalar.npz", {"a": np.array(1)})
    write_arrays(tmp_path / "empty.npz", {})
    for name in ("uneven", "none", "scalar", "empty"):
        with pytest.raises(StageError, match="the same number of samples along axis 0"):
            read_samples(tmp_path / f"{name}.npz", None)
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(StageError, match=r"cannot read the samples `broken\.npz`"):
        read_samples(tmp_path / "broken.npz", None)
    with (tmp_path / "single.npz").open("wb") as stream:
        np.save(stream, np.ones(3))
    with pytest.raises(StageError, match="a single array"):
        read_samples(tmp_path / "single.npz", None)
    with pytest.raises(StageError, match="No such file"):
        read_samples(tmp_path / "missing.npz", None)
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    with pytest.raises(StageError, match="cannot read the samples"):
        read_samples(tmp_path / "objects.npz", None)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A directory with a tokenizer of whole words: [CLS] $A [SEP] around a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {"[PAD]": 5, "[CLS]": 1, "[SEP]": 2, "a": 10, "b": 11, "c": 12}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[PAD]"))  # noqa: S106  # a word, no secret)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_text_samples(model: Path) -> None:
    (model / "lines.txt").write_text("a b\n\n  c  \n\na b c a b c\n", "utf-8")
    found = read_samples(model / "lines.txt", model)
    # Neither the tokenizer's own padding nor its truncation is the spec's.
    assert found == Samples(
        texts=((10, 11), (12,), (10, 11, 12, 10, 11, 12)), frame=Frame((1,), (2,), (0,), 0, (0,)), padding=Padding(5)
    )


def test_text_samples_that_cannot_be_used(model: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = model / "lines.txt"
    path.write_text("a b", "utf-8")
    for directory in (None, tmp_path_factory.mktemp("other")):
        with pytest.raises(StageError, match=r"the model's files have no tokenizer\.json"):
            read_samples(path, directory)
    path.write_text(" \n\n", "utf-8")
    with pytest.raises(StageError, match="are empty"):
        read_samples(path, model)
    path.write_bytes(b"a \xff")
    with pytest.raises(StageError, match="not UTF-8: byte 2"):
        read_samples(path, model)


def test_a_model_without_a_mask_has_nothing_to_pad() -> None:
    factory = InputFactory((IDS,), AXES, Samples())
    feeds = factory.case(case(padded=True, batch=2, sequence=4))
    assert (list(feeds), feeds["input_ids"].shape) == (["input_ids"], (2, 4))
    texts = InputFactory((IDS,), AXES, TEXTS).case(case(padded=True, batch=2, sequence=4))
    assert texts["input_ids"].tolist() == [[101, 10, 11, 102], [101, 20, 21, 102]]


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
