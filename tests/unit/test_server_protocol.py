"""The JSON of the Open Inference Protocol: what the server makes of a request body."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.support import bundles

loader = bundles.runtime_module("loader")
server = bundles.runtime_module("server")

FLOATS = (loader.Tensor("x", np.dtype("float32"), ("batch", 2)),)
INTEGERS = (loader.Tensor("x", np.dtype("int64"), ("batch", 2)),)


def request(**changes: Any) -> bytes:
    entry = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4.5]} | changes
    return json.dumps({"inputs": [entry]}).encode()


@pytest.mark.parametrize("data", [[1, 2, 3, 4.5], [[1, 2], [3, 4.5]]])
def test_data_may_be_flat_or_nested(data: Any) -> None:
    arrays, asked, identifier = server.decode(request(data=data), FLOATS)
    assert arrays["x"].dtype == np.float32
    assert arrays["x"].tolist() == [[1, 2], [3, 4.5]]
    assert (asked, identifier) == (None, None)


def test_outputs_and_id_are_taken() -> None:
    body = json.loads(request()) | {"id": "7", "outputs": [{"name": "y", "parameters": {}}]}
    assert server.decode(json.dumps(body).encode(), FLOATS)[1:] == (["y"], "7")
    assert server.decode(json.dumps(body | {"outputs": []}).encode(), FLOATS)[1] is None


def test_integers_and_booleans_keep_every_value() -> None:
    extremes = [-(2**63), 2**63 - 1]
    arrays, _, _ = server.decode(request(datatype="INT64", shape=[1, 2], data=extremes), INTEGERS)
    assert arrays["x"].tolist() == [extremes]
    unsigned = (loader.Tensor("x", np.dtype("uint64"), (2,)),)
    arrays, _, _ = server.decode(request(datatype="UINT64", shape=[2], data=[0, 2**64 - 1]), unsigned)
    assert arrays["x"].tolist() == [0, 2**64 - 1]
    booleans = (loader.Tensor("x", np.dtype("bool"), (2,)),)
    arrays, _, _ = server.decode(request(datatype="BOOL", shape=[2], data=[True, False]), booleans)
    assert arrays["x"].tolist() == [True, False]


def test_empty_data_is_an_empty_array() -> None:
    arrays, _, _ = server.decode(request(shape=[0, 2], data=[]), FLOATS)
    assert arrays["x"].shape == (0, 2)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"9" * 5000, "not JSON"),
        (b"[]", "expected a JSON object"),
        (b"{}", "expected a JSON object"),
        (b'{"inputs": {}}', "expected a JSON object"),
        (b'{"inputs": [3]}', "every input needs a name"),
        (b'{"inputs": [{"name": 3}]}', "every input needs a name"),
        (b'{"inputs": [], "id": 3}', "id is not a string"),
        (b'{"inputs": [], "outputs": ["y"]}', "outputs is not a list"),
        (request(datatype="FLOAT"), "datatype is 'FLOAT', expected one of BOOL"),
        (request(datatype=["FP32"]), "datatype is"),
        (request(datatype="FP64"), "datatype is FP64, the model takes FP32"),
        (request(shape=[2, 3]), r"shape is \[2, 3\], data has shape \[4\]"),
        (request(shape=[4], data=[[1, 2], [3, 4]]), r"shape is \[4\], data has shape \[2, 2\]"),
        (request(shape=[-2, -2]), "shape is not a list of sizes"),
        (request(shape=[2.0, 2]), "shape is not a list of sizes"),
        (request(shape=[True, 2]), "shape is not a list of sizes"),
        (request(shape=4), "shape is not a list of sizes"),
        (request(data="AAAA"), "data is not a list"),
        (request(data=None), "binary data is not supported"),
        (request(data=["1", "2", "3", "4"]), "not FP32"),
        (request(data=[None, 1, 2, 3]), "not FP32"),
        (request(data=[{}, 1, 2, 3]), "not FP32"),
        (request(data=[True, False, True, False]), "not FP32"),
        (request(data=[[1, 2], [3]]), "regular nesting"),
        (request(data=[1e39, 1, 1, 1]), "too large for FP32"),
        (request().replace(b"4.5", b"NaN"), "NaN is not a JSON number"),
        (request().replace(b"4.5", b"-Infinity"), "-Infinity is not a JSON number"),
        (request().replace(b"4.5", b"1e999"), "too large for FP32"),
        (b'{"inputs": [%s, %s]}' % ((request()[12:-2],) * 2), "input 'x' is given twice"),
    ],
)
def test_what_is_no_request_is_told_why(body: bytes, message: str) -> None:
    with pytest.raises(server.HttpError, match=message) as caught:
        server.decode(body, FLOATS)
    assert caught.value.status == 400


@pytest.mark.parametrize("data", [[1.5, 2], [1.0, 2.0], [2**63, 0], [-(2**63) - 1, 0], [2**70, 0], [True, False]])
def test_nothing_but_integers_becomes_an_integer(data: Any) -> None:
    with pytest.raises(server.HttpError, match="INT64"):
        server.decode(request(datatype="INT64", shape=[1, 2], data=data), INTEGERS)


def test_narrow_integers_are_checked_against_their_limits() -> None:
    bytes_ = (loader.Tensor("x", np.dtype("uint8"), (1,)),)
    for value in (256, -1):
        with pytest.raises(server.HttpError, match="outside UINT8, which is 0 to 255"):
            server.decode(request(datatype="UINT8", shape=[1], data=[value]), bytes_)
    with pytest.raises(server.HttpError, match="outside UINT64"):
        server.decode(
            request(datatype="UINT64", shape=[2], data=[-1, 2**63]), (loader.Tensor("x", np.dtype("uint64"), (2,)),)
        )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("x") | JSON,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | JSON,
        "datatype": st.sampled_from([*server.DATATYPES, "BYTES"]) | JSON,
        "data": st.lists(st.integers() | st.floats() | st.booleans(), max_size=8) | JSON,
    },
)
REQUEST = st.fixed_dictionaries(
    {"inputs": st.lists(ENTRY, max_size=3) | JSON}, optional={"outputs": JSON, "id": JSON, "parameters": JSON}
)


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=60), (JSON | REQUEST).map(lambda value: json.dumps(value).encode())))
def test_any_body_gives_arrays_or_a_bad_request(body: bytes) -> None:
    try:
        arrays, _, _ = server.decode(body, FLOATS)
    except server.HttpError:
        return
    assert all(array.dtype.name in server.NAMES for array in arrays.values())


@settings(deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.dtype(name) for name in server.NAMES]),
        hnp.array_shapes(max_dims=3, max_side=4),
        elements={"allow_nan": False, "allow_infinity": False},
    )
)
def test_values_survive_the_way_out_and_in(array: Any) -> None:
    class Named:
        name, version = "m", "1"

    reply = json.loads(json.dumps(server.encode(Named, {"x": array}, None), allow_nan=False))
    entry = reply["outputs"][0]
    tensors = (loader.Tensor("x", array.dtype, array.shape),)
    arrays, _, _ = server.decode(json.dumps({"inputs": [entry]}).encode(), tensors)
    assert arrays["x"].dtype == array.dtype
    assert np.array_equal(arrays["x"], array)


def test_what_json_cannot_say_is_an_error_and_not_a_wrong_number() -> None:
    class Named:
        name, version = "m", "1"

    with pytest.raises(server.HttpError, match="'y' holds NaN or infinity") as caught:
        server.encode(Named, {"y": np.array([np.nan])}, None)
    assert caught.value.status == 500
