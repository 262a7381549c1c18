"""Tiny real bundles that answer texts: an encoder of two nodes with vectors, classes, or scores of pairs behind it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tests.support import bundles
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "query", ":", *"abcdefgh", "good", "bad", "dog", "cat", "zürich", "😀")
HIDDEN, BATCH, LENGTH = 8, 4, 12
LABELS = ("bad", "so-so", "good")
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
GOLDEN = ("a b c", "", "zürich 😀 nobody knows a b c d e f g h a b c d")


def tokenizer() -> Tokenizer:
    """One token for each word, in the frame of BERT."""
    made = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token=WORDS[1]))
    made.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made.decoder = decoders.WordPiece()
    return made


def encoder(kind: str, seed: int = 0) -> onnx.ModelProto:
    """The mean of the tokens' rows in a table, those of a second text counted twice; then what the kind asks for."""
    random = np.random.default_rng(seed)
    tensors = {
        "table": random.standard_normal((len(WORDS), HIDDEN)),
        "weight": random.standard_normal((HIDDEN, 1 if kind == "score" else len(LABELS))),
        "one": np.ones(1),
    }
    initializers = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in tensors.items()]
    initializers += [numpy_helper.from_array(np.array([axis]), name) for name, axis in (("last", -1), ("tokens", 1))]
    node = helper.make_node
    nodes = [
        node("Gather", ["table", "input_ids"], ["rows"]),
        node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        node("Cast", ["token_type_ids"], ["types"], to=TensorProto.FLOAT),
        node("Add", ["types", "one"], ["factors"]),
        node("Mul", ["mask", "factors"], ["weights"]),
        node("Unsqueeze", ["weights", "last"], ["wide"]),
        node("Mul", ["rows", "wide"], ["last_hidden_state"]),
        node("ReduceSum", ["last_hidden_state", "tokens"], ["sums"], keepdims=0),
        node("ReduceSum", ["weights", "tokens"], ["counts"], keepdims=1),
        node("Div", ["sums", "counts"], ["means"]),
    ]
    if kind == "embedding":
        nodes.append(node("LpNormalization", ["means"], ["sentence_embedding"], axis=-1, p=2))
        outputs = {"sentence_embedding": HIDDEN}
    elif kind == "labels":
        nodes += [node("MatMul", ["means", "weight"], ["logits"]), node("Softmax", ["logits"], ["probabilities"])]
        outputs = {"logits": len(LABELS), "probabilities": len(LABELS)}
    elif kind == "score":
        nodes += [node("MatMul", ["means", "weight"], ["logits"]), node("Sigmoid", ["logits"], ["probabilities"])]
        outputs = {"probabilities": 1}
    elif kind == "zero-shot":
        nodes.append(node("MatMul", ["means", "weight"], ["logits"]))
        outputs = {"logits": len(LABELS)}
    elif kind == "entities":
        nodes += [node("MatMul", ["rows", "weight"], ["scores"]), node("Softmax", ["scores"], ["probabilities"])]
        outputs = {"probabilities": len(LABELS)}
    else:
        outputs = {"last_hidden_state": HIDDEN}
    values = helper.make_tensor_value_info
    shapes = {name: ["batch", *(["sequence"] if kind in PER_TOKEN else []), size] for name, size in outputs.items()}
    used = {name for step in nodes for name in step.input}
    graph = helper.make_graph(
        nodes,
        "encoder",
        [values(name, TensorProto.INT64, ["batch", "sequence"]) for name in INPUTS],
        [values(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [entry for entry in initializers if entry.name in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


OUTPUTS = {
    "embedding": "sentence_embedding",
    "labels": "probabilities",
    "score": "probabilities",
    "token-embeddings": "last_hidden_state",
    "zero-shot": "logits",
    "entities": "probabilities",
}
PER_TOKEN = ("token-embeddings", "entities")
MORE: dict[str, dict[str, Any]] = {
    "zero-shot": {"entailment": 2, "contradiction": 0, "hypothesis": "a {}", "multi_label": False},
    "entities": {"aggregation": "none"},
}
TASKS = {"labels": "text-classification", "score": "text-ranking"}


def recipe(kind: str, name: str, seed: int = 0) -> bundles.Recipe:
    """A bundle of tensors around `encoder`."""
    made = bundles.text()
    made.model = encoder(kind, seed)
    made.manifest |= {
        "name": name,
        "inputs": [{"name": name, "dtype": "int64", "shape": ["batch", "sequence"], "range": None} for name in INPUTS],
        "outputs": [
            {
                "name": output.name,
                "dtype": "float32",
                "shape": [size.dim_param or size.dim_value for size in output.type.tensor_type.shape.dim],
            }
            for output in made.model.graph.output
        ],
        "axes": [
            {"name": "batch", "min": 1, "typical": 1, "max": BATCH},
            {"name": "sequence", "min": 1, "typical": 5, "max": LENGTH},
        ],
    }
    for case in made.manifest["golden"]:
        case["mask"] = None
    ids = np.array([[2, 6, 7, 3], [2, 6, 3, 0]])
    made.golden = [dict(zip(INPUTS, (ids, (ids > 0).astype(np.int64), np.zeros_like(ids)), strict=True))]
    return made


def settings(kind: str, answer: dict[str, Any] | None = None, **text: Any) -> dict[str, Any]:
    """processing.json."""
    return {
        "format_version": 1,
        "task": TASKS.get(kind, "feature-extraction"),
        "text": {
            "max_length": LENGTH,
            "truncation": "right",
            "padding": {"side": "right", "token": 0, "type": 0},
            "prompt": "",
            "prompts": {"query": "query: "},
            "pairs": kind in ("labels", "score", "zero-shot"),
            **text,
        },
        "answer": {
            "kind": kind,
            "output": OUTPUTS[kind],
            "labels": list(LABELS) if kind in ("labels", "entities") else [],
            **MORE.get(kind, {}),
            **(answer or {}),
        },
    }


def write(
    root: Path, kind: str, name: str, *, seed: int = 0, answer: dict[str, Any] | None = None, **text: Any
) -> Path:
    """The bundle as a directory."""
    made = recipe(kind, name, seed)
    golden = {"file": "golden/answers.json", "tolerance": {"cosine": 0.9999, "f1": 0.99}}
    made.manifest["processing"] = {
        "document": "processing/processing.json",
        "tokenizer": "processing/tokenizer.json",
        "golden": golden,
    }
    made.write(root)
    (root / "processing").mkdir()
    bundles.write_json(root / "processing/processing.json", settings(kind, answer, **text))
    tokenizer().save(str(root / "processing/tokenizer.json"))
    if kind == "zero-shot":
        texts: list[Any] = [{"text": "a b", "labels": ["dog"]}]
    else:
        texts = list(GOLDEN) if kind != "score" else [{"text": text, "text_pair": "a dog"} for text in GOLDEN]
    cases = [_case(kind, made.model, text) for text in texts]
    (root / "golden/answers.json").write_text(json.dumps({"format_version": 1, "cases": cases}), "utf-8")
    return bundles.seal(root)


def ids_of(text: Any) -> tuple[list[int], list[int]]:
    """Token ids and types of a text or a pair."""
    made = tokenizer()
    made.enable_truncation(LENGTH)
    found = made.encode(text["text"], text["text_pair"]) if isinstance(text, dict) else made.encode(text)
    return found.ids, found.type_ids


def expected(kind: str, text: Any, seed: int = 0, name: str | None = None) -> NDArray[Any]:
    """What the model gives for a text, by onnx's reference implementation: the answer's output, or another."""
    return run(encoder(kind, seed), *ids_of(text), name or OUTPUTS[kind])


def run(model: onnx.ModelProto, ids: list[int], types: list[int], name: str) -> NDArray[Any]:
    """One output for one row."""
    arrays = (np.array([ids]), np.ones((1, len(ids)), np.int64), np.array([types]))
    reference = onnx.reference.ReferenceEvaluator(model)
    found: Any = reference.run([name], dict(zip(INPUTS, arrays, strict=True)))
    return np.asarray(found[0][0])


def _case(kind: str, model: onnx.ModelProto, text: Any) -> dict[str, Any]:
    if kind in MORE:  # without an answer: only the token ids are compared
        ids, types = ids_of({"text": "a b", "text_pair": "a dog"} if kind == "zero-shot" else text)
        return {"text": text, "ids": ids, "types": types, "answer": None}
    ids, types = ids_of(text)
    values = run(model, ids, types, OUTPUTS[kind])
    answer: Any = values.tolist()
    if kind == "score":
        answer = answer[0]
    elif kind == "labels":
        answer = [{"label": label, "score": score} for label, score in zip(LABELS, answer, strict=True)]
    return {"text": text, "ids": ids, "types": types, "answer": answer}
