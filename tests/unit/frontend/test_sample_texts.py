"""Samples of text have the tokens that the model's own tokenizer gives, on the side and in the frame that it has."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from ortc.common.errors import StageError
from ortc.evaluation.embeddings import pooled
from ortc.frontend.samples import texts
from ortc.frontend.samples.inputs import MASK, InputFactory
from ortc.frontend.samples.sources import read_samples
from ortc.frontend.samples.texts import Frame, Padding
from ortc.plan.plan import AxisPlan, CasePlan, InputPlan, Shape
from ortc.spec.accuracy import Embeddings

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "</s>", "<s>", "a", "b", "c", "d", "e"]
IDS = {word: index for index, word in enumerate(WORDS)}
LINES = ["a b c", "d", "a a a a", "b c d e a b"]
AXES = (AxisPlan(name="batch", min=1, typical=1, max=4), AxisPlan(name="sequence", min=1, typical=8, max=32))
SHAPE = ("batch", "sequence")
INPUTS = (
    InputPlan(name="input_ids", dtype="int64", shape=SHAPE, range=(0, 10)),
    InputPlan(name=MASK, dtype="int64", shape=SHAPE, range=(0, 1), fill=1),
    InputPlan(name="token_type_ids", dtype="int64", shape=SHAPE, range=(0, 3)),
)


def template(single: str, pair: str, *special: str) -> Any:
    return processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(token, IDS[token]) for token in special]
    )


FRAMES = {
    "none": None,
    "bert": template("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", "[CLS]", "[SEP]"),
    "t5": template("$A </s>", "$A </s> $B </s>", "</s>"),
    "llama": template("<s> $A", "<s> $A $B:1", "<s>"),
    "xlnet": template("$A:0 [SEP]:0 [CLS]:2", "$A:0 [SEP]:0 $B:1 [SEP]:1 [CLS]:2", "[CLS]", "[SEP]"),
    "marian": template("$A </s>", "$A $B </s>", "</s>"),
    "two before": template("<s> [CLS] $A", "<s> [CLS] $A $B", "<s>", "[CLS]"),
    "three and one": template("[CLS] <s> <s> $A [SEP]", "[CLS] <s> <s> $A $B [SEP]", "<s>", "[CLS]", "[SEP]"),
    "one and three": template("[CLS] $A </s> [SEP] [SEP]", "[CLS] $A $B </s> [SEP]", "</s>", "[CLS]", "[SEP]"),
    "roberta": processors.RobertaProcessing(("</s>", IDS["</s>"]), ("<s>", IDS["<s>"])),
    "bert's own": processors.BertProcessing(("[SEP]", IDS["[SEP]"]), ("[CLS]", IDS["[CLS]"])),
    "the frame's tokens are words": template("a $A b", "a $A b $B b", "a", "b"),
}


def tokenizer_of(frame: Any) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(IDS, unk_token=WORDS[1]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if frame is not None:
        tokenizer.post_processor = frame
    return tokenizer


def project(place: Path, tokenizer: Tokenizer, lines: list[str] = LINES, **config: Any) -> Path:
    tokenizer.save(str(place / "tokenizer.json"))
    if config:
        (place / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    (place / "lines.txt").write_text("\n".join(lines), "utf-8")
    return place / "lines.txt"


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("name", FRAMES)
def test_real_samples_are_what_the_tokenizer_gives(tmp_path: Path, name: str, left: bool) -> None:
    tokenizer = tokenizer_of(FRAMES[name])
    path = project(tmp_path, tokenizer, padding_side="left" if left else "right", pad_token=WORDS[0])
    samples = read_samples(path, tmp_path)
    ((_, feeds),) = InputFactory(INPUTS, AXES, samples).real()
    tokenizer.enable_padding(direction="left" if left else "right", pad_id=0, pad_token=WORDS[0])
    # Batches are in the order of length.
    expected = {tuple(encoding.ids): encoding for encoding in tokenizer.encode_batch(LINES)}
    assert {tuple(row) for row in feeds["input_ids"].tolist()} == expected.keys()
    for ids, mask, types in zip(*(feeds[tensor.name].tolist() for tensor in INPUTS), strict=True):
        encoding = expected[tuple(ids)]
        assert mask == encoding.attention_mask
        assert types == encoding.type_ids


def test_frames_of_every_length(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(FRAMES["t5"])
    samples = read_samples(project(tmp_path, tokenizer), tmp_path)
    assert samples.frame == Frame((), (IDS["</s>"],), (), 0, (0,))
    for width in (2, 3, 9):
        case = CasePlan(shape=Shape(sizes=(("batch", 2), ("sequence", width))), padded=False)
        ids = InputFactory(INPUTS, AXES, samples).case(case)["input_ids"]
        assert (ids[:, -1] == IDS["</s>"]).all()
        assert (ids[:, :-1] != IDS["</s>"]).all()


@pytest.mark.parametrize(
    ("declared", "config", "expected"),
    [
        (None, {}, Padding(0, 0, False)),
        ({"direction": "left", "pad_id": 4, "pad_type_id": 3, "pad_token": "</s>"}, {}, Padding(4, 3, True)),
        ({"direction": "right", "pad_id": 4, "pad_token": "</s>"}, {"padding_side": "left"}, Padding(4, 0, False)),
        (None, {"padding_side": "left", "pad_token": "</s>"}, Padding(4, 0, True)),
        (None, {"pad_token": {"content": "<s>", "__type": "AddedToken"}}, Padding(5, 0, False)),
        (None, {"tokenizer_class": "XLNetTokenizer", "pad_token_type_id": 3}, Padding(0, 3, True)),
    ],
)
def test_padding(tmp_path: Path, declared: Any, config: dict[str, Any], expected: Padding) -> None:
    tokenizer = tokenizer_of(FRAMES["bert"])
    if declared is not None:
        tokenizer.enable_padding(**declared)
    samples = read_samples(project(tmp_path, tokenizer, **config), tmp_path)
    assert samples.padding == expected
    case = CasePlan(shape=Shape(sizes=(("batch", 2), ("sequence", 8))), padded=True)
    feeds = InputFactory(INPUTS, AXES, samples).case(case)
    shorter = feeds[MASK][1]
    assert shorter[0] == (0 if expected.left else 1)
    assert (feeds["input_ids"][1][shorter == 0] == expected.token).all()
    assert (feeds["token_type_ids"][1][shorter == 0] == expected.type).all()
    assert (feeds["input_ids"][1][shorter == 1][0]) == IDS["[CLS]"]


def test_the_first_token_is_the_first_that_is_not_padding() -> None:
    hidden = np.arange(8, dtype=np.float32).reshape(2, 4, 1)
    mask = np.array([[1, 1, 1, 1], [0, 0, 1, 1]])
    found = pooled({"x": hidden}, Embeddings(pooling="cls", cosine_min=0.9), mask)
    assert found[:, 0].tolist() == [0.0, 6.0]


def test_a_tokenizer_that_cannot_be_read(tmp_path: Path) -> None:
    path = project(tmp_path, tokenizer_of(None))
    (tmp_path / "tokenizer.json").write_text("{}", "utf-8")
    with pytest.raises(StageError, match=r"`tokenizer\.json` of the model is not a tokenizer"):
        read_samples(path, tmp_path)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"model": {"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "[NONE]", "max_input_chars_per_word": 9}},
            "UNK",
        ),
        ({"pre_tokenizer": {"type": "FixedLength", "length": 0}}, "chunk size must be non-zero"),
    ],
    ids=["no unknown token", "panics"],
)
def test_a_tokenizer_that_makes_nothing_of_the_samples(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    path = project(tmp_path, tokenizer_of(None))
    stored = json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))
    stored["model"] = {"continuing_subword_prefix": "##", **changed.get("model", stored["model"])}
    (tmp_path / "tokenizer.json").write_text(json.dumps(stored | {"pre_tokenizer": changed.get("pre_tokenizer")}))
    with pytest.raises(StageError, match=f"tokenizer.json makes nothing of the samples: .*{said}"):
        read_samples(path, tmp_path)


def test_a_tokenizer_that_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        def encode_batch(self, *_: object, **__: object) -> list[Any]:
            time.sleep(5)
            return []

    monkeypatch.setattr(texts, "MOST_SECONDS", 0.05)
    with pytest.raises(StageError, match=r"no answer in 0\.05 s") as caught:
        texts.encode(Slow(), ["a"])  # type: ignore[arg-type]
    assert "pre_tokenizer" in str(caught.value.help)
