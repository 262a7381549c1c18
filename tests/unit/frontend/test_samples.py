"""Inputs for every case: of the declared shape and range, from real samples where there are any."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.sample_inputs import (
    ATTENTION,
    AXES,
    BATCH_AXIS,
    IDS,
    PIXELS,
    TEXT,
    TEXTS,
    TYPES,
    case,
    rows,
)

from ortc.common.arrays import Array, write_arrays
from ortc.common.errors import StageError
from ortc.frontend.samples.inputs import (
    BATCH,
    MASK,
    MAX_SAMPLES,
    POSITIONS,
    InputFactory,
    Samples,
    synthetic,
)
from ortc.frontend.samples.sources import read_samples
from ortc.frontend.samples.texts import Frame, Padding
from ortc.plan.plan import AxisPlan, CasePlan, InputPlan
from ortc.plan.shape_matrix import shape_matrix


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


def test_strings_are_drawn_from_examples() -> None:
    words = InputPlan(name="word", dtype="string", shape=("batch",), examples=("red", "dark green"))
    drawn = synthetic(words, {"batch": 50}, "seed")
    assert set(drawn.tolist()) == {"red", "dark green"}
    assert (drawn == synthetic(words, {"batch": 50}, "seed")).all()
    rows = InputPlan(name="rows", dtype="string", shape=("batch", 2), examples=(("red", "big"), ("green", "small")))
    assert set(map(tuple, synthetic(rows, {"batch": 50}, "seed").tolist())) == {("red", "big"), ("green", "small")}
    assert synthetic(rows, {"batch": 0}, "seed").shape == (0, 2)
    grid = InputPlan(name="grid", dtype="string", shape=("batch", 1), examples=("red",))
    assert synthetic(grid, {"batch": 3}, "seed").tolist() == [["red"]] * 3
