"""What `ortc init` writes, checked."""

import json
import struct
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from tests.support.examples import examples

from ortc.__main__ import run
from ortc.plan.checks import CheckedSpec, check_spec

relaxed = settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

WEIGHTS = struct.pack("<Q", 2) + b"{}"
BERT = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "vocab_size": 30522,
    "max_position_embeddings": 256,
}


def directory(path: Path, config: Any = BERT, *, weights: bool = True, tokenizer: bool = True) -> Path:
    """A directory of a Hugging Face model that `ortc init` reads, without a tensor."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config), "utf-8")
    if weights:
        (path / "model.safetensors").write_bytes(WEIGHTS)
    if tokenizer:
        (path / "tokenizer.json").write_text("{}", "utf-8")
    return path


def written(*arguments: str) -> CheckedSpec:
    """The spec that `ortc init` writes for the arguments."""
    assert run(["init", *arguments, "-o", "specs/out.yaml", "--force"]) == 0
    return check_spec("specs/out.yaml")


junk = st.none() | st.booleans() | st.integers(-5, 10**12) | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
