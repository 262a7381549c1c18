"""Token ids that a page makes, in Node: those of the tokenizers library, for every kind that pages read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.builds import ROOT
from tests.support.bundles import runtime_module
from tests.support.make_sentence_models import tokenizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from ortc.build.runner import pinned_files
from ortc.common.resources import cache_root
from ortc.execution.npm_package import package_files
from ortc.frontend.samples.odd_texts import PLAIN_TEXTS, odd_texts
from ortc.spec.runtimes import pins

pytestmark = pytest.mark.integration

COUNT, MANY, LENGTH = 600, 10_000, 24
WORDS = [*PLAIN_TEXTS, *(path.read_text("utf-8") for path in sorted((ROOT / "docs").glob("*.md"))[:3])]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
PROGRAM = """
import { readFileSync } from "node:fs";
const { Texts } = await import(process.argv[2]);
const { settings, tokenizer, requests } = JSON.parse(readFileSync(0));
const shape = ["batch", "sequence"];
const inputs = ["input_ids", "attention_mask", "token_type_ids"].map((name) => ({ name, dtype: "int64", shape }));
const made = new Texts(settings, tokenizer, { inputs, axes: [] });
const rows = requests.map(([text, pair]) => {
  try {
    return made.row(text, pair);
  } catch (error) {
    return error.code;
  }
});
process.stdout.write(JSON.stringify(rows));
"""


def bert() -> Tokenizer:
    return tokenizer()


def byte_level() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1200, special_tokens=SPECIAL, initial_alphabet=letters, show_progress=False
    )
    made.train_from_iterator(WORDS, trainer)
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return made


def pieces() -> Tokenizer:
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("``", '"')])
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    unknown = {"unk_token": "<unk>"}
    trainer = trainers.UnigramTrainer(vocab_size=800, special_tokens=SPECIAL, show_progress=False, **unknown)
    made.train_from_iterator(WORDS, trainer)
    framed = {"single": "<s> $A </s>", "pair": "<s> $A </s> $B:1 </s>:1", "special_tokens": [("<s>", 0), ("</s>", 2)]}
    made.post_processor = processors.TemplateProcessing(**framed)
    return made


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The module that makes tokens, beside the package that it needs."""
    lacking = [name for name in ("node", "npm") if shutil.which(name) is None]
    if lacking and os.environ.get("ORTC_REQUIRE_TOOLS") == "1":
        pytest.fail(f"there is no {lacking[0]} (apt-get install npm)", pytrace=False)
    if lacking:
        pytest.skip(f"there is no {lacking[0]} (apt-get install npm)")
    runtime = tmp_path_factory.mktemp("page") / "runtime"
    shutil.copytree(ROOT / "templates" / "javascript" / "runtime", runtime)
    for package in pins("onnxruntime-web+web-text").npm:
        place = package_files(pinned_files(package), cache_root() / "environments")
        (runtime.parent / package.place).mkdir(parents=True)
        for file in package.files:
            shutil.copyfile(place / file.path, runtime.parent / package.place / Path(file.path).name)
    return runtime / "processing" / "texts.mjs"


def in_python(made: Tokenizer, settings: dict[str, Any], requests: Sequence[Sequence[str | None]]) -> list[Any]:
    """The rows, or `input` for requests that are refused, of the processing of other bundles."""
    inputs = ("input_ids", "attention_mask", "token_type_ids")
    bounds = {"batch": (1, 4, 1), "sequence": (1, 2**20, 1)}
    texts = runtime_module("processing.texts").Texts(
        settings,
        made.to_str().encode(),
        dict.fromkeys(inputs, ("batch", "sequence")),
        dict.fromkeys(inputs, np.dtype("int64")),
        bounds,
    )
    rows: list[Any] = []
    for text, pair in requests:
        try:
            row = texts.row(text, pair)
            rows.append({"ids": list(row.ids), "types": list(row.types)})
        except runtime_module("loading.errors").InputError:
            rows.append("input")
    return rows


def compare(made: Tokenizer, module: Path, settings: dict[str, Any], requests: Sequence[Sequence[str | None]]) -> None:
    """Check that the rows of the page's module are those of the processing of other bundles."""
    program = module.parent / "program.mjs"
    program.write_text(PROGRAM, "utf-8")
    asked = json.dumps({"settings": settings, "tokenizer": json.loads(made.to_str()), "requests": requests})
    command = [str(shutil.which("node")), str(program), str(module)]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    for request, expected, found in zip(requests, in_python(made, settings, requests), rows, strict=True):
        assert found == expected, (settings, request)


@pytest.mark.proof("test_pages_make_the_token_ids_of_the_library")
@pytest.mark.parametrize("make", [bert, byte_level, pieces])
def test_pages_make_the_token_ids_of_ten_thousand_texts(make: Any, module: Path) -> None:
    settings = {
        "max_length": LENGTH,
        "truncation": "right",
        "padding": {"side": "right", "token": 0, "type": 0},
        "pairs": False,
        "prompt": "",
        "prompts": {},
    }
    compare(make(), module, settings, [(text, None) for text in odd_texts(("[SEP]", "<s>"), MANY)])


@pytest.mark.parametrize("make", [bert, byte_level, pieces])
def test_pages_make_the_token_ids_of_the_library(make: Any, module: Path) -> None:
    """Of odd texts, cut on both sides and not at all, and of pairs."""
    made = make()
    texts = odd_texts(("[SEP]", "<s>"), COUNT)
    pairs = [(text, texts[(place + 7) % 200]) for place, text in enumerate(texts[:200])]
    common = {"padding": {"side": "right", "token": 0, "type": 0}, "pairs": True, "prompt": "query: ", "prompts": {}}
    for requests, more in (
        ([(text, None) for text in texts], {"max_length": 2**20, "truncation": "right"}),
        ([(text, None) for text in texts[:300]], {"max_length": LENGTH, "truncation": "left"}),
        ([(text, None) for text in texts[:300]], {"max_length": LENGTH, "truncation": "refuse"}),
        (pairs, {"max_length": LENGTH, "truncation": "right"}),
        (pairs, {"max_length": LENGTH, "truncation": "right", "strategy": "only_first"}),
        (pairs, {"max_length": LENGTH, "truncation": "left", "strategy": "only_second"}),
    ):
        compare(made, module, {**common, **more}, requests)


FORMS = """
import { readFileSync } from "node:fs";
const { Processing } = await import(process.argv[2]);
const { tokenizer, text, forms } = JSON.parse(readFileSync(0));
const inputs = ["input_ids", "attention_mask"].map((name) => ({ name, dtype: "int64", shape: ["batch", "sequence"] }));
const axes = [{ name: "batch", min: 2, max: 4 }, { name: "sequence", min: 1, max: 64, multiple_of: 8 }];
const found = [];
for (const { answer, request, shape } of forms) {
  const made = new Processing({ format_version: 1, task: "", text, answer }, tokenizer, { inputs, axes });
  const shapes = [];
  const run = async (given, [output]) => {
    shapes.push(given.input_ids.shape);
    const length = shape.reduce((product, size) => product * size, 2);
    const data = Float32Array.from({ length }, (_, place) => place / 8);
    return { [output]: { dtype: "float32", shape: [2, ...shape], data } };
  };
  found.push({ answer: await made.answer(request, run), shapes });
}
process.stdout.write(JSON.stringify(found));
"""


def test_answers_are_made_as_other_bundles_make_them(module: Path) -> None:
    """With numbers in the place of the graph: rows are padded to what axes allow, and the first one is answered."""
    made, pads = bert(), {"side": "left", "token": 0, "type": 0}
    text = {"max_length": 8, "truncation": "right", "padding": pads, "pairs": True, "prompt": "", "prompts": {}}
    forms = [
        {
            "answer": {"kind": "labels", "output": "p", "labels": ["a", "b", "c"]},
            "request": ["one", "two"],
            "shape": [3],
        },
        {"answer": {"kind": "score", "output": "p"}, "request": {"text": "one", "text_pair": "two"}, "shape": [1]},
        {"answer": {"kind": "embedding", "output": "p"}, "request": "one", "shape": [2]},
        {"answer": {"kind": "token-embeddings", "output": "p"}, "request": "", "shape": [8, 2]},
    ]
    asked = json.dumps({"tokenizer": json.loads(made.to_str()), "text": text, "forms": forms})
    program = module.parent / "forms.mjs"
    program.write_text(FORMS, "utf-8")
    command = [str(shutil.which("node")), str(program), str(module.parent / "answers.mjs")]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    labels, score, vector, tokens = json.loads(done.stdout)
    ordered = [{"label": "c", "score": 0.25}, {"label": "b", "score": 0.125}, {"label": "a", "score": 0}]
    assert labels == {"answer": [ordered, ordered], "shapes": [[2, 8], [2, 8]]}
    assert score == {"answer": 0, "shapes": [[2, 8]]}
    assert vector == {"answer": [0, 0.125], "shapes": [[2, 8]]}
    # Two special tokens, behind six of padding.
    assert tokens == {"answer": [[1.5, 1.625], [1.75, 1.875]], "shapes": [[2, 8]]}
