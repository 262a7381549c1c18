"""The last recorded fuzzing run kept the limits; `make fuzz` records another."""

import json
from pathlib import Path

RECORD = Path(__file__).parents[2] / "fuzz" / "record.json"


def test_enough_inputs_within_the_limits() -> None:
    record = json.loads(RECORD.read_text("utf-8"))
    limits = record["limits"]
    assert record["inputs"] >= 200_000
    assert record["slowest_input_seconds"]["processor"] < limits["processor_seconds"] == 1.0
    assert record["peak_memory_mb"] < limits["memory_mb"] == 300
    assert record["coverage"]["edges"] > 1000
