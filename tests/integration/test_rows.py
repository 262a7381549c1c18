"""A classifier of ai.onnx.ml, from its file to the labels of rows: build, command line, loader and server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from tests.support.builds import PLAIN, Compiler
from tests.support.serving import serve

pytestmark = pytest.mark.integration

NAMES = ["setosa", "versicolor", "virginica"]
ROWS = [[1.5, 0.25], [-1.0, 2.0], [-2.0, -3.0]]


def classifier() -> onnx.ModelProto:
    """What scikit-learn's LogisticRegression becomes: names of classes, and a map of scores for each row."""
    weights = {"coefficients": [1.0, 0, 0, 1, -1, -1], "intercepts": [0.0, 0.1, 0.2], "multi_class": 1}
    nodes = [
        helper.make_node(
            "LinearClassifier",
            ["x"],
            ["label", "scores"],
            domain="ai.onnx.ml",
            post_transform="SOFTMAX",
            classlabels_strings=NAMES,
            **weights,
        ),
        helper.make_node("ZipMap", ["scores"], ["p"], domain="ai.onnx.ml", classlabels_strings=NAMES),
    ]
    scalar = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    maps = helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.STRING, scalar))
    outputs = [helper.make_tensor_value_info("label", TensorProto.STRING, [None]), helper.make_value_info("p", maps)]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])]
    graph = helper.make_graph(nodes, "g", given, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("ai.onnx.ml", 3)], ir_version=8)


def top(answers: Any) -> list[tuple[str, float]]:
    return [(answer[0]["label"], pytest.approx(answer[0]["score"], abs=1e-5)) for answer in answers]


def run(ortc: Compiler, bundle: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ortc", "run", str(bundle), *arguments]
    return subprocess.run(command, env=ortc.environment(), capture_output=True, text=True, check=False)


def test_rows_are_answered_with_the_labels_of_the_file(
    ortc: Compiler, write_spec: Callable[..., Path], tmp_path: Path
) -> None:
    onnx.save(classifier(), tmp_path / "file.onnx")
    file = ort.InferenceSession(tmp_path / "file.onnx", providers=["CPUExecutionProvider"])
    names, maps = file.run(None, {"x": np.array(ROWS, np.float32)})
    expected = [(name, row[name]) for name, row in zip(names, maps, strict=True)]
    export = {"dynamic_axes": {"batch": {"min": 1, "max": 4}}}
    spec = write_spec(tmp_path, {"source": "onnx", "path": "file.onnx"}, export)
    bundle = ortc.build(spec, *PLAIN, output=tmp_path / "dist", cwd=tmp_path).succeeded().bundle("small", "cpu")

    lines = ["1.5, 0.25", "[-1, 2]", '{"x": [-2, -3]}']
    told = run(ortc, bundle, *lines, "--json")
    assert told.returncode == 0, told.stderr
    assert top([row["answer"] for row in json.loads(told.stdout)]) == expected
    refused = run(ortc, bundle, "1.5")
    assert refused.returncode == 2
    assert "a row has 1 values. Expected a list of 2 values, or an object with x" in refused.stderr

    loader = [sys.executable, str(bundle / "runtime/loader.py"), "answer", lines[0]]
    answered = subprocess.run(loader, capture_output=True, text=True, check=True)
    assert top(json.loads(answered.stdout)["result"]["answers"]) == expected[:1]

    with serve(bundle) as server:
        status, answer = server.request("POST", "/v1/predict", json.dumps({"inputs": ROWS}).encode())
        assert status == 200, answer
        assert top(answer["outputs"]) == expected
        assert server.request("POST", "/v1/predict", json.dumps({"inputs": ROWS[0]}).encode())[0] == 200
        status, answer = server.request("POST", "/v1/predict", json.dumps({"inputs": [ROWS[0], ["a", 1]]}).encode())
        assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
        assert "column 'x' holds 'a'. Send a number of float32." in answer["error"]["message"]
        _, document = server.request("GET", "/openapi.json")
        predict = document["paths"]["/v1/predict"]["post"]["requestBody"]["content"]["application/json"]
        (example,) = (entry["value"] for entry in predict["examples"].values())
        assert server.request("POST", "/v1/predict", json.dumps(example).encode())[0] == 200
        assert server.request("POST", "/v1/embeddings", b'{"model": "small", "input": "a"}')[0] == 400
        server.stop()
