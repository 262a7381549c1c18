"""Pipelines of scikit-learn that take strings, from their files to the labels of texts and of rows."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.parse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from tests.support.builds import PLAIN, Compiler
from tests.support.serving import serve

pytestmark = pytest.mark.integration

TEXTS = ["the film was good", "a bad film", "great acting, a great story", "dull plot, bad acting", "ÉPATANT!", "bad"]
LABELS = ["good", "bad", "good", "bad", "good", "bad"]
ORDERS = [["red", "small", "gift", 1.0], ["green", "big", "urgent", 2.5], ["blue", "small", "wrap", 0.5]]
PAID = ["yes", "no", "yes"]
ASKED = ["A Film, a GREAT film", "épatant", "bad bad", "nothing of all that", ""]


def review_pipeline(path: Path) -> Pipeline:
    """A classifier of texts, and its ONNX file."""
    pipeline = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression()).fit(TEXTS, LABELS)
    # skl2onnx's own expression has ASCII alone, and words of one letter.
    options = {TfidfVectorizer: {"tokenexp": r"[\p{L}\p{N}_]{2,}"}}
    model = to_onnx(pipeline, initial_types=[("text", StringTensorType([None, 1]))], options=options)
    path.write_bytes(model.SerializeToString())
    return pipeline


def order_pipeline(path: Path) -> Pipeline:
    """A classifier of categories, of a text and of a number; the categories that it knows are all that it takes."""
    columns = [
        ("categories", OneHotEncoder(), [0, 1]),
        ("text", CountVectorizer(), 2),
        ("number", StandardScaler(), [3]),
    ]
    pipeline = make_pipeline(ColumnTransformer(columns), LogisticRegression()).fit(np.array(ORDERS, object), PAID)
    texts = [(name, StringTensorType([None, 1])) for name in ("colour", "size", "note")]
    model = to_onnx(pipeline, initial_types=[*texts, ("price", FloatTensorType([None, 1]))])
    path.write_bytes(model.SerializeToString())
    return pipeline


def drafted(ortc: Compiler, name: str, place: Path) -> Path:
    """The bundle of the spec that `ortc init` writes for a file."""
    (place / "pyproject.toml").touch()
    spec = place / "specs" / f"{name}.yaml"
    told = run(ortc, "init", str(place / f"{name}.onnx"), "-t", "cpu", "-o", str(spec))
    assert told.returncode == 0, told.stderr
    ortc.build(spec, *PLAIN, output=place / "dist", cwd=place).succeeded()
    return place / "dist" / name / "0.1.0" / "cpu"


def expected(pipeline: Pipeline, asked: Any) -> list[dict[str, Any]]:
    """What scikit-learn itself says: the scores of all classes by their names."""
    return [
        {str(label): pytest.approx(score, abs=1e-5) for label, score in zip(pipeline.classes_, row, strict=True)}
        for row in pipeline.predict_proba(asked)
    ]


def scores(answers: list[list[dict[str, Any]]]) -> list[dict[str, float]]:
    return [{entry["label"]: entry["score"] for entry in answer} for answer in answers]


def run(ortc: Compiler, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ortc", *arguments]
    return subprocess.run(command, env=ortc.environment(), capture_output=True, text=True, check=False)


def test_texts_are_answered_as_the_pipeline_answers_them(ortc: Compiler, tmp_path: Path) -> None:
    pipeline = review_pipeline(tmp_path / "reviews.onnx")
    bundle = drafted(ortc, "reviews", tmp_path)

    told = run(ortc, "run", str(bundle), *ASKED, "--json")
    assert told.returncode == 0, told.stderr
    answers = [row["answer"] for row in json.loads(told.stdout)]
    assert scores(answers) == expected(pipeline, ASKED)
    assert [answer[0]["label"] for answer in answers] == pipeline.predict(ASKED).tolist()

    loader = [sys.executable, str(bundle / "runtime/loader.py"), "answer", ASKED[0]]
    answered = subprocess.run(loader, capture_output=True, text=True, check=True)
    assert scores(json.loads(answered.stdout)["result"]["answers"]) == expected(pipeline, ASKED[:1])

    with serve(bundle) as server:
        status, answer = server.request("POST", "/v1/predict", json.dumps({"inputs": ASKED}).encode())
        assert status == 200, answer
        assert scores(answer["outputs"]) == expected(pipeline, ASKED)
        tensor = {"name": "text", "datatype": "BYTES", "shape": [len(ASKED), 1], "data": ASKED}
        place = f"/v2/models/{urllib.parse.quote('reviews')}/infer"
        status, answer = server.request("POST", place, json.dumps({"inputs": [tensor]}).encode())
        assert status == 200, answer
        assert answer["outputs"][0]["parameters"]["labels"] == pipeline.predict(ASKED).tolist()
        for wrong, said in (([3], "not strings"), (["a\0b"], "NUL"), (["x" * 70_000], "at most 65536 characters")):
            body = json.dumps({"inputs": [{**tensor, "shape": [1, 1], "data": wrong}]}).encode()
            status, answer = server.request("POST", place, body)
            assert status in (400, 413)
            assert said in answer["error"]


def test_rows_of_strings_and_numbers_are_answered_as_the_pipeline_answers_them(ortc: Compiler, tmp_path: Path) -> None:
    pipeline = order_pipeline(tmp_path / "orders.onnx")
    bundle = drafted(ortc, "orders", tmp_path)
    asked = [["red", "big", "gift, please wrap", 4.5], ["blue", "small", "urgent", 1.0]]
    lines = ['red,big,"gift, please wrap",4.5', json.dumps(asked[1])]
    told = run(ortc, "run", str(bundle), *lines, "--json")
    assert told.returncode == 0, told.stderr
    assert scores([row["answer"] for row in json.loads(told.stdout)]) == expected(pipeline, np.array(asked, object))
    refused = run(ortc, "run", str(bundle), "purple,big,gift,1")
    assert refused.returncode == 2
    assert "Unknown Category" in refused.stderr
    with serve(bundle) as server:
        given = [asked[0], dict(zip(("colour", "size", "note", "price"), asked[1], strict=True))]
        status, answer = server.request("POST", "/v1/predict", json.dumps({"inputs": given}).encode())
        assert status == 200, answer
        assert scores(answer["outputs"]) == expected(pipeline, np.array(asked, object))
        wrong = json.dumps({"inputs": [["purple", "big", "gift", 1]]}).encode()
        assert server.request("POST", "/v1/predict", wrong)[0] == 400
