"""Pairs of long texts: cut as tokenizers cuts them, and within bounds."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
from tests.support.bundles import runtime_module
from tokenizers import Encoding, Tokenizer, models, pre_tokenizers, processors

pairs = runtime_module("processing.pairs")
InputError = runtime_module("loading.errors").InputError
LETTERS = "abcdefghijk"
FRAMES: dict[str, Any] = {
    "template": processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    ),
    "bert": processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1)),
    "roberta": processors.RobertaProcessing(("[SEP]", 2), ("[CLS]", 1)),
    "none": None,
}


def tokenizer(frame: str = "bert", unknown: str = "[UNK]") -> Tokenizer:
    words = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, **{letter: 3 + index for index, letter in enumerate(LETTERS)}}
    made = Tokenizer(models.WordLevel(words, unk_token=unknown))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if FRAMES[frame] is not None:
        made.post_processor = FRAMES[frame]
    return made


def seen(found: Encoding) -> tuple[Any, ...]:
    fields = found.ids, found.type_ids, found.offsets, found.sequence_ids, found.special_tokens_mask
    return *fields, found.word_ids, found.tokens, found.attention_mask


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("frame", FRAMES)
def test_pairs_are_cut_as_the_library_cuts_them(frame: str, side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "FEW", 0)  # of none are the parts kept that are cut off
    chance = random.Random(f"{frame} {side}")  # noqa: S311 - for tests
    made = tokenizer(frame)
    for _ in range(150):
        limit = chance.randint(5, 40)
        made.enable_truncation(limit, direction=side, strategy="longest_first")
        text, pair = (" ".join(chance.choices(LETTERS, k=chance.randint(0, 90))) for _ in range(2))
        (wanted,) = made.encode_batch([(text, pair)])
        found = pairs.encode(made, text, pair, limit, left=side == "left")
        assert seen(found) == seen(wanted), (limit, text, pair)


def test_what_is_cut_off_of_two_long_texts_is_not_kept() -> None:
    made = tokenizer()
    made.enable_truncation(12, strategy="longest_first")
    found = pairs.encode(made, "a " * 2000, "b " * 2000, 12, left=False)
    assert len(found.ids) == 12
    assert found.overflowing == []


def texts(made: Tokenizer, **more: Any) -> Any:
    settings = {"max_length": 12, "truncation": "right", "prompt": "", "prompts": {}, "pairs": True, **more}
    settings["padding"] = {"side": "right", "token": 0, "type": 0}
    inputs = {"input_ids": ("batch", "sequence")}
    bounds = {"batch": (1, 4, 1), "sequence": (1, 12, 1)}
    content = json.dumps(json.loads(made.to_str())).encode()
    int64 = np.dtype("int64")
    return runtime_module("processing.texts").Texts(settings, content, inputs, {"input_ids": int64}, bounds)


def test_windows_are_bounded() -> None:
    """A question that leaves one token more than windows share makes as many windows as there are tokens."""
    made = texts(tokenizer(), strategy="only_second", stride=4)
    assert len(made.windows("a b c d", "e " * 100)) == 96
    assert made.most_windows("a b c d", "e " * 100) >= 96
    assert made.most_windows("a", "e") == 1
    with pytest.raises(InputError, match="a text of 500 tokens has more than 256 windows of 5"):
        made.windows("a b c d", "e " * 500)
    assert len(made.windows("a", "e " * 500)) < 256


def test_a_text_that_a_tokenizer_makes_nothing_of_is_refused() -> None:
    with pytest.raises(InputError, match=r"the tokenizer makes nothing of a text: .*'z'"):
        texts(tokenizer(unknown="[NONE]")).row("z")


def test_what_the_library_did_not_foresee_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    class Panics:
        def encode_batch(self, *_: object, **__: object) -> None:
            raise PanicException("chunk size must be non-zero")

    made = texts(tokenizer())
    made._tokenizer = Panics()
    with pytest.raises(InputError, match="the tokenizer fails on a text: chunk size"):
        made.row("a")


@pytest.mark.parametrize("strategy", ["longest_first", "only_first"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("frame", FRAMES)
def test_a_text_beside_several_is_encoded_once(frame: str, side: str, strategy: str) -> None:
    chance = random.Random(f"{frame} {side} {strategy}")  # noqa: S311 - for tests
    made = tokenizer(frame)
    for _ in range(60):
        limit = chance.randint(10, 40)
        made.enable_truncation(limit, direction=side, strategy=strategy)
        text = " ".join(chance.choices(LETTERS, k=chance.randint(0, 90)))
        others = [" ".join(chance.choices(LETTERS, k=chance.randint(0, 4))) for _ in range(3)]
        wanted = made.encode_batch([(text, other) for other in others])
        longest = strategy == "longest_first"
        found = pairs.encode_beside(made, text, others, limit, left=side == "left", longest=longest)
        assert list(map(seen, found)) == list(map(seen, wanted)), (limit, text, others)
