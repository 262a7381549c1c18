"""`python make_sentence_models.py DIRECTORY`: a tiny seeded repository of sentence-transformers, and what it answers.

Runs in a process of its own: tests do not load torch for this. The expected vectors come from transformers and from
formulas that are written out here once more.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HIDDEN, OUT, LENGTH = 32, 8, 12
PROMPT = "query: "
TEXTS = (
    "A man is playing a guitar.",
    "The invoice is due.",
    "Where is the railway station?",
    "ZÜRICH and Geneva",
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen",
    "",
)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def tokenizer() -> Tokenizer:
    """A WordPiece tokenizer that was trained on a few sentences, as BERT's are."""
    made = Tokenizer(models.WordPiece(unk_token=SPECIAL[1]))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=list(SPECIAL), show_progress=False)
    made.train_from_iterator([*TEXTS, PROMPT, "query query two thirty"], trainer)
    ids = [made.token_to_id(token) for token in SPECIAL]
    made.post_processor = processors.BertProcessing(("[SEP]", ids[3]), ("[CLS]", ids[2]))
    made.decoder = decoders.WordPiece()
    # What older libraries stored, and nothing may use.
    made.enable_padding(length=5, pad_id=0)
    made.enable_truncation(5)
    return made


def write(place: Path, name: str, content: Any) -> None:
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1), "utf-8")


def main(root: Path) -> None:
    """Write the repository into `root`/model, and texts with vectors into `root`/expected.json."""
    torch.manual_seed(0)
    place = root / "model"
    place.mkdir(parents=True)
    words = tokenizer()
    words.save(str(place / "tokenizer.json"))
    config = transformers.BertConfig(
        vocab_size=words.get_vocab_size(),
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    model = transformers.BertModel(config).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.mul_(4.0)  # answers that differ from text to text
    model.save_pretrained(place)
    write(place, "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    stock = "sentence_transformers.models."
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense"), ("3_Normalize", "Normalize"))
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"{stock}{kind}"} for i, (path, kind) in enumerate(kinds)
    ]
    write(place, "modules.json", modules)
    write(place, "sentence_bert_config.json", {"max_seq_length": LENGTH, "do_lower_case": False})
    prompts = {"prompts": {"query": PROMPT, "plain": ""}, "default_prompt_name": "query"}
    write(place, "config_sentence_transformers.json", prompts)
    pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}
    write(place, "1_Pooling/config.json", pooling)
    activation = "torch.nn.modules.activation.Tanh"
    dense = {"in_features": 2 * HIDDEN, "out_features": OUT, "bias": True, "activation_function": activation}
    write(place, "2_Dense/config.json", dense)
    weight, bias = torch.randn(OUT, 2 * HIDDEN), torch.randn(OUT)
    save_file({"linear.weight": weight, "linear.bias": bias}, place / "2_Dense" / "model.safetensors")
    own = transformers.AutoTokenizer.from_pretrained(place)
    vectors = []
    for text in TEXTS:
        row = own(PROMPT + text, truncation=True, max_length=LENGTH, return_tensors="pt")
        with torch.inference_mode():
            hidden = model(**row).last_hidden_state[0]
            vector = torch.tanh(weight @ torch.cat([hidden[0], hidden.mean(dim=0)]) + bias)
        vectors.append((vector / vector.norm()).tolist())
    write(root, "expected.json", {"texts": TEXTS, "vectors": vectors})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
