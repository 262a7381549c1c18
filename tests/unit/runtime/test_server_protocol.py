"""Requests and answers of the Open Inference Protocol as bytes, without a socket."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.support import bundles
from tests.support.examples import examples

loader = bundles.runtime_module("loader")
protocol = bundles.runtime_module("serving.protocol")
DTYPES = [np.dtype(name) for name in protocol.DATATYPES.values()]


class Named:
    """What `encode` asks of a model."""

    name, version = "m", "1"
    outputs: tuple[Any, ...] = ()


class Classifier(Named):
    """A model whose output `y` has the numbers of classes."""

    outputs = (loader.Tensor("y", np.dtype(np.int64), ("batch",), labels=("no", "yes")),)


def tensor(dtype: np.dtype[Any], ndim: int) -> Any:
    return loader.Tensor("x", dtype, tuple("abcdefgh"[:ndim]))


arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
        elements={"allow_nan": False} if dtype.kind == "f" else None,
    )
)


def request(array: np.ndarray[Any, Any], *, binary: bool, padding: int = 0) -> tuple[bytes, str | None]:
    entry: dict[str, Any] = {
        "name": "x",
        "shape": list(array.shape),
        "datatype": protocol.NAMES[array.dtype],
    }
    if binary:
        entry["parameters"] = {"binary_data_size": array.nbytes}
    else:
        entry["data"] = array.ravel().tolist()
    head = json.dumps({"id": "x" * padding, "inputs": [entry]}).encode()
    return (head + array.tobytes(), str(len(head))) if binary else (head, None)


@given(array=arrays, padding=st.integers(0, 7))
def test_binary_tensors_arrive_as_they_were_sent(array: np.ndarray[Any, Any], padding: int) -> None:
    body, length = request(array, binary=True, padding=padding)
    found = protocol.decode(body, length, [tensor(array.dtype, array.ndim)]).inputs["x"]
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert found.flags.aligned
    assert found.tobytes() == array.tobytes()


@given(array=arrays)
def test_json_says_the_same_as_binary(array: np.ndarray[Any, Any]) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return  # JSON has no word for these
    body, length = request(array, binary=False)
    found = protocol.decode(body, length, [tensor(array.dtype, array.ndim)]).inputs["x"]
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)


@given(array=arrays, binary=st.booleans())
def test_an_answer_holds_the_array(array: np.ndarray[Any, Any], binary: bool) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        binary = True
    asked = protocol.Request({}, None, None if binary else frozenset(), "me")
    body, head = protocol.encode(Named, {"y": array, "z": array}, asked)
    document = json.loads(body[:head])
    assert (document["id"], document["model_name"], document["model_version"]) == ("me", "m", "1")
    rest = body[head:] if head is not None else b""
    for output in document["outputs"]:
        assert output["shape"] == list(array.shape)
        dtype = np.dtype(protocol.DATATYPES[output["datatype"]])
        if binary:
            size = output["parameters"]["binary_data_size"]
            assert rest[:size] == array.tobytes()
            rest = rest[size:]
        else:
            assert np.array_equal(np.array(output["data"], dtype).reshape(array.shape), array)
    assert rest == b""


def test_an_infinity_cannot_be_said_in_json() -> None:
    asked = protocol.Request({}, None, frozenset(), None)
    with pytest.raises(protocol.RefusedError, match="ask for binary data") as caught:
        protocol.encode(Named, {"y": np.array([np.inf], np.float32)}, asked)
    assert caught.value.status == 422


X = {"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2]}
SIZE = {"name": "x", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}


@pytest.mark.parametrize(
    ("document", "tail", "message"),
    [
        ({"inputs": [{**SIZE, "parameters": {"binary_data_size": 7}}]}, b"1234567", "binary_data_size is not 8"),
        ({"inputs": [{**SIZE, "parameters": {"binary_data_size": True}}]}, b"1", "binary_data_size is not 8"),
        ({"inputs": [{**SIZE, "parameters": {"binary_data_size": "8"}}]}, b"12345678", "binary_data_size is not 8"),
        ({"inputs": [{**SIZE, "shape": [2**31 - 1] * 32}]}, b"", "binary_data_size is not"),
        ({"inputs": [SIZE]}, b"1234567", "ends before its 8 bytes"),
        ({"inputs": [SIZE]}, b"123456789", "1 bytes more than"),
        ({"inputs": [X]}, b"1", "1 bytes more than"),
        ({"inputs": [{**SIZE, "datatype": "BOOL", "parameters": {"binary_data_size": 2}}]}, b"\1\2", "takes FP32"),
        (
            {"inputs": [{**X, "parameters": {"shared_memory_region": "r"}}]},
            b"",
            "shared_memory_region is not supported",
        ),
        ({"inputs": [{**X, "parameters": 3}]}, b"", "parameters is not an object"),
        ({"inputs": [{**X, "shape": [-2]}]}, b"", "shape is not a list of sizes"),
        ({"inputs": [{**X, "shape": [True, 2]}]}, b"", "shape is not a list of sizes"),
        ({"inputs": [{**X, "shape": [1] * 33}]}, b"", "shape is not a list of sizes"),
        ({"inputs": [{**X, "datatype": "STRING"}]}, b"", "datatype is not one of"),
        ({"inputs": [{**X, "datatype": "BYTES"}]}, b"", "datatype is BYTES, the model takes FP32"),
        ({"inputs": [{**X, "data": [1, [2]]}]}, b"", "regular nesting"),
        ({"inputs": [{**X, "data": [1e39, 2]}]}, b"", "too large for FP32"),
        ({"inputs": [{**X, "data": {"a": 1}}]}, b"", "data is not a list"),
        ({"inputs": [{**X, "data": ["1", "2"]}]}, b"", "not FP32"),
        ({"inputs": [X, X]}, b"", "given twice"),
        ({"inputs": [X], "outputs": [{"name": "y"}, {"name": "y"}]}, b"", "names one twice"),
        ({"inputs": [X], "outputs": [{"name": "y", "parameters": {"binary_data": 1}}]}, b"", "neither true nor false"),
        ({"inputs": [X], "outputs": [{"name": "y", "parameters": {"classification": 1}}]}, b"", "classification"),
        ({"inputs": [X], "parameters": []}, b"", "parameters is not an object"),
        ({"inputs": [X], "id": 3}, b"", "id is not a string"),
        ({"inputs": [X], "id": "i" * 1025}, b"", "id is not a string"),
    ],
)
def test_mistakes_are_named(document: Any, tail: bytes, message: str) -> None:
    head = json.dumps(document).encode()
    with pytest.raises(protocol.RefusedError, match=message) as caught:
        protocol.decode(head + tail, str(len(head)), [tensor(np.dtype(np.float32), 1)])
    assert caught.value.status == 400


def test_a_flag_in_binary_is_a_zero_or_a_one() -> None:
    entry = {"name": "x", "shape": [2], "datatype": "BOOL", "parameters": {"binary_data_size": 2}}
    head = json.dumps({"inputs": [entry]}).encode()
    with pytest.raises(protocol.RefusedError, match="a byte of 0 or 1"):
        protocol.decode(head + b"\1\2", str(len(head)), [tensor(np.dtype(bool), 1)])


@pytest.mark.parametrize("length", ["-1", "9" * 19, "1e3", "", "٣", "10000"])
def test_a_head_length_is_a_number_within_the_body(length: str) -> None:
    with pytest.raises(protocol.RefusedError, match="Inference-Header-Content-Length"):
        protocol.decode(b'{"inputs": []}', length, [])


@settings(max_examples=examples(300))
@given(
    body=st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
            ),
        ).map(lambda value: json.dumps({"inputs": [{**X, "data": value, "shape": [1]}, value]}).encode()),
    ),
    length=st.one_of(st.none(), st.integers(-5, 300).map(str)),
)
def test_any_bytes_give_a_request_or_a_refusal(body: bytes, length: str | None) -> None:
    refused = None
    try:
        protocol.decode(body, length, [tensor(np.dtype(np.float32), 1)])
    except protocol.RefusedError as error:
        refused = error
    assert refused is None or (refused.status == 400 and str(refused))


def test_deep_nesting_is_refused() -> None:
    for body in (b"[" * 100_000, b'{"inputs": [' + b"[" * 100_000):
        with pytest.raises(protocol.RefusedError, match="not JSON"):
            protocol.decode(body, None, [])


def test_unsigned_integers_beyond_the_signed_ones_keep_their_value() -> None:
    entry = {"name": "x", "shape": [2], "datatype": "UINT64", "data": [1, 2**64 - 1]}
    body = json.dumps({"inputs": [entry]}).encode()
    found = protocol.decode(body, None, [tensor(np.dtype(np.uint64), 1)]).inputs["x"]
    assert found.tobytes() == struct.pack("<QQ", 1, 2**64 - 1)


@pytest.mark.parametrize("is_binary", [False, True])
def test_an_answer_has_the_names_of_its_classes(is_binary: bool) -> None:
    asked = protocol.Request({}, None, None if is_binary else frozenset(), None)
    body, head = protocol.encode(Classifier, {"y": np.array([1, 0, 1])}, asked)
    (output,) = json.loads(body[:head])["outputs"]
    assert output["parameters"]["labels"] == ["yes", "no", "yes"]


def test_numbers_without_a_name_and_scores_have_no_label() -> None:
    (tensor,) = Classifier.outputs
    assert tensor.named(np.array([2, -1])) == ["", ""]
    assert tensor.named(np.array([0.5, 0.5])) is None


STRINGS = ["", "red", "ÉPÉE 😀"]
PARTS = [text.encode() for text in STRINGS]
RAW = b"".join(struct.pack("<I", len(part)) + part for part in PARTS)


def strings(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [3, 1], "datatype": "BYTES", "data": STRINGS} | changes


def decoded_strings(entry: dict[str, Any], tail: bytes = b"") -> Any:
    """The tensor of a request for an input of strings."""
    declared = (loader.Tensor("x", np.dtype(str), ("batch", 1)),)
    axes = (loader.Axis("batch", 1, 1, 4),)
    capacity = bundles.runtime_module("serving.bounds").Capacity.of(declared, axes)
    head = json.dumps({"inputs": [entry]}).encode()
    return protocol.decode(head + tail, str(len(head)) if tail else None, declared, capacity).inputs["x"]


def test_strings_come_in_json_and_in_binary() -> None:
    for data in (STRINGS, [[text] for text in STRINGS]):
        array = decoded_strings(strings(data=data))
        assert (array.dtype, array.shape, array.ravel().tolist()) == (np.dtype(object), (3, 1), STRINGS)
    binary = {key: value for key, value in strings().items() if key != "data"}
    array = decoded_strings({**binary, "parameters": {"binary_data_size": len(RAW)}}, RAW)
    assert (array.shape, array.ravel().tolist()) == ((3, 1), STRINGS)
    long = ["x" * 65536] * 3
    assert decoded_strings(strings(data=long)).ravel().tolist() == long


@pytest.mark.parametrize(
    ("entry", "tail", "said"),
    [
        (strings(data=["a", "b", 3]), b"", "not strings"),
        (strings(data=["a"]), b"", "data has shape"),
        (strings(data=["a", "b", "x" * 65537]), b"", "at most 65536 characters"),
        (strings(datatype="FP32", data=[1, 2, 3]), b"", "datatype is FP32, the model takes BYTES"),
        (strings(parameters={"binary_data_size": len(RAW) + 1}), RAW, "within the body"),
        (strings(parameters={"binary_data_size": len(RAW) - 1}), RAW[:-1], "bytes end before its 3 texts do"),
        (strings(parameters={"binary_data_size": len(RAW) + 1}), RAW + b"x", "1 bytes follow its 3 texts"),
        (strings(shape=[1, 1], parameters={"binary_data_size": 5}), b"\1\0\0\0\xff", "not UTF-8"),
    ],
)
def test_tensors_that_are_no_strings_are_refused(entry: dict[str, Any], tail: bytes, said: str) -> None:
    with pytest.raises(protocol.RefusedError, match=said):
        decoded_strings(entry, tail)


@pytest.mark.parametrize("raw", [False, True])
def test_strings_come_over_grpc(raw: bool) -> None:
    messages, rpc = (bundles.runtime_module(f"serving.{name}") for name in ("messages", "rpc_tensors"))
    message = messages.make("inference", messages.INFERENCE)["ModelInferRequest"]()
    entry = message.inputs.add(name="x", datatype="BYTES", shape=[3, 1])
    if raw:
        message.raw_input_contents.append(RAW)
    else:
        entry.contents.bytes_contents.extend(PARTS)
    declared = (loader.Tensor("x", np.dtype(str), ("batch", 1)),)
    array = rpc.decode(message, declared).inputs["x"]
    assert (array.shape, array.ravel().tolist()) == ((3, 1), STRINGS)
    entry.shape[0] = 2
    with pytest.raises(protocol.RefusedError, match="2 texts"):
        rpc.decode(message, declared)
