"""Tiny seeded models with a tokenizer, and answers of a bundle's processing with PyTorch in the place of the graph."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tests.support.bundles import runtime_module
from tests.support.make_sentence_models import tokenizer

from ortc.frontend.reference import huggingface
from ortc.frontend.reference.model import Reference
from ortc.frontend.reference.texts import ReferenceTexts
from ortc.frontend.samples.odd_texts import PLAIN_TEXTS, odd_texts
from ortc.inspection.repository import of_directories
from ortc.plan.plan import AxisPlan, ExportPlan
from ortc.plan.texts import answer_form
from ortc.spec.model_sources import HuggingFaceSource

LENGTH = 16
TEXTS = tuple(text[:2000] for text in (*PLAIN_TEXTS, *odd_texts(("[SEP]",), 90)[2:44]))
Edit = dict[str, Any]
Change = Callable[[dict[str, Any], dict[str, Any]], object]


def make(
    place: Path, head: str = "ForSequenceClassification", words: Any = None, tokens: Edit | None = None, **config: Any
) -> Path:
    """A tiny seeded BERT with a head and its tokenizer; `tokens` replace settings of the tokenizer."""
    place.mkdir()
    words = tokenizer() if words is None else words
    words.save(str(place / "tokenizer.json"))
    fields = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    settings = transformers.BertConfig(
        vocab_size=words.get_vocab_size(), max_position_embeddings=32, **fields, **config
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"Bert{head}")(settings)
    with torch.no_grad():
        for value in model.parameters():
            value.mul_(6.0)  # answers that differ from text to text
    model.save_pretrained(place)
    own = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": LENGTH, **(tokens or {})}
    (place / "tokenizer_config.json").write_text(json.dumps(own), "utf-8")
    return place


def parts(place: Path, **fields: Any) -> tuple[Reference, ReferenceTexts]:
    """The model in PyTorch with what follows it, and its own tokenizer."""
    source = HuggingFaceSource.model_validate({"source": "huggingface", "path": "model", **fields})
    axes = (AxisPlan(name="batch", min=1, typical=1, max=4), AxisPlan(name="sequence", min=1, typical=8, max=LENGTH))
    export = ExportPlan(opset=17, ir_version=8, exporter="auto", axes=axes, inputs=None, outputs=None)
    torch.set_grad_enabled(False)
    reference = huggingface.load(source, place, export)
    form = answer_form(source, export, of_directories((place,)))
    assert form is not None
    names = [tensor.name for tensor in reference.inputs]
    return reference, ReferenceTexts(source, place, form, LENGTH, names)


def processing(place: Path, reference: Reference, own: ReferenceTexts, change: Change | None = None) -> Any:
    """The processing of a bundle, whose document and tokenizer may be changed before they are read."""
    own.write(place / "ready.json")
    document, stored = (
        own.processing.model_dump(mode="json", exclude_none=True),
        json.loads((place / "ready.json").read_bytes()),
    )
    if change is not None:
        change(document, stored)
    return runtime_module("processing.answers").Processing(
        document,
        json.dumps(stored).encode(),
        {tensor.name: (tensor.shape, np.dtype(tensor.dtype)) for tensor in reference.inputs},
        {"batch": (1, 4, 1), "sequence": (1, LENGTH, 1)},
        together=True,
    )


def runner(reference: Reference) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Run the model in PyTorch on the inputs of a bundle."""

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        found = reference.module(*(torch.from_numpy(inputs[tensor.name]) for tensor in reference.inputs))
        return {name: value.detach().numpy() for name, value in zip(reference.outputs, found, strict=True)}

    return run


def answered(bundle: Any, reference: Reference, requests: list[Any]) -> list[Any]:
    """What a bundle's processing answers, with PyTorch in the place of the graph."""
    found: list[Any] = runtime_module("loading.arrays").plain(bundle.answer(requests, runner(reference)))
    return found


def answers(place: Path, reference: Reference, own: ReferenceTexts, requests: list[Any]) -> list[Any]:
    """What the bundle of a model answers."""
    return answered(processing(place, reference, own), reference, requests)
