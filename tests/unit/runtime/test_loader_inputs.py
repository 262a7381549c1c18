"""What the loader says about inputs, before the model sees them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.support import bundles

loader = bundles.runtime_module("loader")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with loader.Model.load(bundles.text().write(tmp_path_factory.mktemp("text") / "bundle")) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with loader.Model.load(bundles.linear().write(tmp_path_factory.mktemp("linear") / "bundle")) as loaded:
        yield loaded


def ids(batch: int = 2, sequence: int = 3, dtype: str = "int64") -> Any:
    return np.ones((batch, sequence), dtype=dtype)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"input 'ids' is missing\. Send int64 of shape \[batch, sequence\]"),
        ({"ids": ids()}, "input 'mask' is missing"),
        ({"ids": ids(), "msk": ids()}, r"input 'msk' is unknown\. Expected ids, mask\. Did you mean 'mask'\?"),
        ({"ids": ids(), "mask": ids(), "zzz": ids()}, r"input 'zzz' is unknown\. Expected ids, mask\.$"),
        ({"ids": ids(), "mask": ids(), 3: ids()}, "input 3 is unknown"),
        ({"ids": ids(dtype="int32"), "mask": ids()}, r"'ids' is int32, the model takes int64\. Send array\.astype"),
        ({"ids": ids(dtype="float64"), "mask": ids()}, "'ids' is float64, the model takes int64"),
        ({"ids": ids(dtype=">i8"), "mask": ids()}, "'ids' is >i8, the model takes int64"),
        ({"ids": [[1, 2, 3]], "mask": ids()}, r"'ids' is a list\. Send numpy\.array\(value, dtype=numpy\.int64\)"),
        ({"ids": 3, "mask": ids()}, "'ids' is a int"),
        ({"ids": None, "mask": ids()}, "'ids' is a NoneType"),
        ({"ids": np.ma.masked_array(ids()), "mask": ids()}, "'ids' is a MaskedArray"),
        ({"ids": ids()[0], "mask": ids()}, r"'ids' has shape \[3\]\. Send 2 axes: \[batch, sequence\]"),
        ({"ids": np.array(1), "mask": ids()}, r"'ids' has shape \[\]\. Send 2 axes"),
        ({"ids": ids(5), "mask": ids(5)}, r"'ids' has shape \[5, 3\]: axis 0 \(batch\) is 5\. Send 1 to 4"),
        ({"ids": ids(2, 13), "mask": ids(2, 13)}, r"axis 1 \(sequence\) is 13\. Send 1 to 12"),
        ({"ids": ids(0), "mask": ids(0)}, r"axis 0 \(batch\) is 0\. Send 1 to 4"),
        ({"ids": ids(2, 0), "mask": ids(2, 0)}, r"axis 1 \(sequence\) is 0\. Send 1 to 12"),
        ({"ids": ids(), "mask": ids(2, 4)}, r"'mask' has sequence 4, input 'ids' has sequence 3\. Send the same"),
        ({"ids": ids() * 50, "mask": ids()}, r"'ids' holds values from 50 to 50\. Send values from 0 to 49"),
        ({"ids": ids() * -1, "mask": ids()}, "'ids' holds values from -1 to -1"),
        ([ids(), ids()], r"inputs is a list\. Expected a dict"),
        (ids(), r"inputs is a ndarray\. Expected a dict"),
    ],
)
def test_wrong_inputs_are_told_what_to_send(model: Any, inputs: Any, message: str) -> None:
    with pytest.raises(loader.InputError, match=message) as caught:
        model.run(inputs)
    assert (caught.value.code, caught.value.exit_code) == ("input", 10)


def test_fixed_sizes_are_checked(linear: Any) -> None:
    with pytest.raises(loader.InputError, match=r"'x' has shape \[2, 5\]: axis 1 is 5\. Send 4\."):
        linear.run({"x": np.zeros((2, 5), np.float32)})


def test_a_range_of_a_float_input_refuses_nan(tmp_path: Any) -> None:
    recipe = bundles.linear()
    recipe.manifest["inputs"][0]["range"] = [-10.0, 10.0]
    with loader.Model.load(recipe.write(tmp_path / "bundle")) as model:
        model.run({"x": np.full((1, 4), 10, np.float32)})
        for value in (10.5, np.nan, np.inf):
            with pytest.raises(loader.InputError, match="holds values from"):
                model.run({"x": np.full((1, 4), value, np.float32)})


def test_an_axis_whose_least_size_is_zero_takes_empty_inputs(tmp_path: Any) -> None:
    recipe = bundles.text()
    recipe.manifest["axes"][0]["min"] = 0
    with loader.Model.load(recipe.write(tmp_path / "bundle")) as model:
        assert model.run({"ids": ids(0), "mask": ids(0)})["hidden"].shape == (0, 3, 8)
        assert model.example({"batch": 0})["ids"].shape == (0, 5)
        assert model.example({"batch": 0})["mask"].shape == (0, 5)


def test_sizes_between_the_multiples_of_an_axis_are_refused(tmp_path: Any) -> None:
    recipe = bundles.linear()
    recipe.manifest["axes"][0]["multiple_of"] = 4
    recipe.manifest["warmup"] = [{"batch": 4}]
    with loader.Model.load(recipe.write(tmp_path / "bundle"), selftest=False) as model:
        model.run({"x": np.zeros((8, 4), np.float32)})
        with pytest.raises(loader.InputError, match="Send a multiple of 4"):
            model.run({"x": np.zeros((6, 4), np.float32)})


def test_memory_layout_does_not_matter(linear: Any) -> None:
    x = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    for view in (x[::2, ::2], x[:4, ::-2], np.asfortranarray(x[:4, :4]), x.T[:3, :4]):
        assert not view.flags["C_CONTIGUOUS"]
        found, expected = linear.run({"x": view}), linear.run({"x": view.copy(order="C")})
        assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_read_only_arrays_are_taken(linear: Any) -> None:
    x = np.zeros((1, 4), np.float32)
    x.flags.writeable = False
    linear.run({"x": x})


def test_outputs_are_chosen_by_name(linear: Any) -> None:
    x = {"x": np.zeros((2, 4), np.float32)}
    assert list(linear.run(x)) == ["y", "label"]
    assert list(linear.run(x, ["label"])) == ["label"]
    assert list(linear.run(x, ("label", "y"))) == ["label", "y"]
    for wrong in (["lable"], "y", []):
        with pytest.raises(loader.InputError, match="outputs"):
            linear.run(x, wrong)
    with pytest.raises(loader.InputError, match="Did you mean 'label'"):
        linear.run(x, ["lable"])


def test_a_value_that_only_the_graph_can_judge_is_the_callers_error(tmp_path: Any) -> None:
    recipe = bundles.text()
    recipe.manifest["inputs"][0]["range"] = None
    with loader.Model.load(recipe.write(tmp_path / "bundle")) as model:
        with pytest.raises(loader.InputError, match="out of data bounds"):
            model.run({"ids": ids() * 1000, "mask": ids()})
        model.run({"ids": ids(), "mask": ids()})  # and the session goes on


ARRAYS = hnp.arrays(
    dtype=st.sampled_from([np.int64, np.int32, np.float32, np.bool_]),
    shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=14),
)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["ids", "mask", "idx", ""]),
        st.one_of(
            ARRAYS,
            hnp.arrays(np.int64, st.tuples(st.integers(1, 4), st.integers(1, 12)), elements=st.integers(0, 49)),
            st.none(),
            st.lists(st.integers()),
        ),
    )
)
def test_any_inputs_are_answered_or_refused_with_an_input_error(model: Any, inputs: dict[str, Any]) -> None:
    try:
        answer = model.run(inputs)
    except loader.InputError:
        return
    assert inputs.keys() == {"ids", "mask"}
    assert answer["hidden"].shape == (*inputs["ids"].shape, 8)
    assert inputs["ids"].shape == inputs["mask"].shape
    assert inputs["ids"].dtype == inputs["mask"].dtype == np.int64


@settings(deadline=None)
@given(batch=st.integers(1, 4), sequence=st.integers(1, 12))
def test_examples_of_every_allowed_size_are_valid(model: Any, batch: int, sequence: int) -> None:
    inputs = model.example({"batch": batch, "sequence": sequence})
    assert inputs["ids"].shape == (batch, sequence)
    model.run(inputs)


def test_examples_repeat_the_golden_inputs(model: Any) -> None:
    found = model.example({"batch": 3, "sequence": 4})
    assert found["ids"].tolist() == [[0, 1, 2, 0], [3, 4, 5, 3], [0, 1, 2, 0]]
    assert model.example()["ids"].shape == (1, 5)
    with pytest.raises(loader.InputError, match=r"axis 'bach' is unknown\. Expected batch, sequence\. Did you mean"):
        model.example({"bach": 1})


def test_examples_without_golden_inputs_stay_within_the_range(tmp_path: Any) -> None:
    recipe = bundles.text()
    recipe.golden, recipe.manifest["golden"] = [], []
    with loader.Model.load(recipe.write(tmp_path / "bundle"), selftest=False) as model:
        inputs = model.example({"batch": 4, "sequence": 12})
        assert inputs["ids"].min() >= 0
        assert inputs["ids"].max() <= 49
        assert len(np.unique(inputs["ids"])) > 5
        assert (inputs["mask"] == 1).all()


@pytest.mark.parametrize("sizes", [{"batch": 3, "sequence": 5}, {"batch": 1, "sequence": 12}, {"sequence": 1}])
def test_made_token_ids_end_once_where_the_model_needs_it(tmp_path: Any, sizes: dict[str, int]) -> None:
    recipe = bundles.text()
    recipe.manifest["inputs"][0]["end"] = 2
    recipe.golden[0]["ids"] = np.array([[1, 0, 2], [3, 2, 4]])
    with loader.Model.load(recipe.write(tmp_path / "bundle")) as model:
        made = model.example(sizes)["ids"]
        assert ((made == 2).sum(axis=1) == 1).all()
        assert (made[:, -1] == 2).all()
        model.run(model.example(sizes))


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((1, 1)), "'text' is float64, the model takes strings. Send numpy.array.value, dtype=str"),
        (np.array([[b"a"]]), "the model takes strings"),
        (np.array([["a", 1]], dtype=object)[:, 1:], "holds a value that is a int and no str"),
        (np.array([["a\0b"]]), "holds a string with a NUL character"),
        (np.array([["\ud800"]]), "half of a surrogate pair"),
        (np.array(["a"]), r"Send 2 axes: .batch, 1."),
        ([["a"]], r"Send numpy.array\(value, dtype=str\)"),
    ],
)
def test_only_strings_of_unicode_are_taken_for_strings(array: Any, said: str) -> None:
    interface = bundles.runtime_module("loading.interface").interface_of(STRINGS)
    watch = bundles.runtime_module("loading.numerics").NanWatch()
    with pytest.raises(loader.InputError, match=said):
        interface.check({"text": array}, watch)
    for fits in (np.array([["a"]]), np.array([["a"], ["É😀"]], dtype=object), np.array([[""]])):
        interface.check({"text": fits}, watch)
    assert interface.inputs[0].type == "string"


def test_examples_of_strings_are_golden_ones_or_empty() -> None:
    interface = bundles.runtime_module("loading.interface").interface_of(STRINGS)
    assert interface.example({"batch": 2}, {})["text"].tolist() == [[""], [""]]
    assert interface.example({"batch": 3}, {"text": np.array([["a"], ["b"]])})["text"].tolist() == [["a"], ["b"], ["a"]]


STRINGS = {
    "axes": [{"name": "batch", "min": 1, "typical": 1, "max": 4}],
    "inputs": [{"name": "text", "dtype": "string", "shape": ["batch", 1]}],
    "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch"]}],
}


SUM = {"terms": [["past", 1], ["sequence", 1]], "constant": 1}
CACHE: dict[str, Any] = {
    "axes": [
        {"name": "past", "min": 1, "typical": 2, "max": 8},
        {"name": "sequence", "min": 1, "typical": 1, "max": 4},
        {
            "name": "total",
            "min": 3,
            "typical": 4,
            "max": 13,
            "equals": {"terms": [["past", 1], ["sequence", 1]], "constant": 1},
        },
    ],
    "inputs": [
        {"name": "ids", "dtype": "int64", "shape": ["sequence"]},
        {"name": "mask", "dtype": "int64", "shape": ["total"]},
        {"name": "cache", "dtype": "float32", "shape": ["past"]},
    ],
    "outputs": [{"name": "y", "dtype": "float32", "shape": ["total"]}],
}


def test_sizes_that_do_not_add_up_are_refused() -> None:
    interface = bundles.runtime_module("loading.interface").interface_of(CACHE)
    watch = bundles.runtime_module("loading.numerics").NanWatch()
    example = interface.example({"past": 5, "total": 9}, {})
    assert {name: array.shape for name, array in example.items()} == {"ids": (1,), "mask": (7,), "cache": (5,)}
    interface.check(example, watch)
    wrong = {**example, "mask": np.ones(6, np.int64)}
    with pytest.raises(loader.InputError, match=r"total is 6\. Send past \+ sequence \+ 1, which is 7\."):
        interface.check(wrong, watch)


def test_sums_of_unknown_axes_are_malformed() -> None:
    axes = [*CACHE["axes"][:1], CACHE["axes"][2]]
    with pytest.raises(ValueError, match="'sequence', which is no axis"):
        bundles.runtime_module("loading.interface").interface_of({**CACHE, "axes": axes, "inputs": [], "outputs": []})
