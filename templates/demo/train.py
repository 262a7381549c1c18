"""Train a small classifier of messages to a shop: `python train.py` takes a few seconds.

It writes `messages/` (the model as `save_pretrained` writes it), `samples.txt` (texts that a build compares with) and
`heldout.tsv` (labelled texts that the training never saw). Put your own fine-tuned classifier in its place.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import torch
from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast
from transformers.utils import logging

STARTS = ("", "Hello, ", "Hi team, ", "Good morning, ", "To whom it may concern: ")
THINGS = ("order", "parcel", "chair", "lamp", "subscription", "gift card")
MESSAGES = {
    "billing": ("I was charged twice for my {}.", "The invoice for the {} is wrong.", "Please refund the {}."),
    "delivery": ("My {} has not arrived.", "Where is my {} now?", "The courier left the {} at the wrong door."),
    "praise": ("I love the {}, thank you!", "The {} is wonderful.", "Great service, the {} is perfect."),
}
TEXTS = [
    (start + message.format(thing), label)
    for label, messages in MESSAGES.items()
    for start, message, thing in product(STARTS, messages, THINGS)
]
TRAINING = [entry for number, entry in enumerate(TEXTS) if number % 4]
HELD_OUT = [entry for number, entry in enumerate(TEXTS) if number % 4 == 0]
LABELS = list(MESSAGES)
LENGTH = 64


def make_tokenizer() -> BertTokenizerFast:
    """Return a WordPiece tokenizer of the words in the training texts."""
    words = BertWordPieceTokenizer(lowercase=True)
    words.train_from_iterator([text for text, _ in TRAINING], vocab_size=400, show_progress=False)
    return BertTokenizerFast(vocab=words.get_vocab(), model_max_length=LENGTH)


def make_model(vocabulary: int) -> BertForSequenceClassification:
    """Return the untrained model: BERT's architecture with two small layers."""
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=vocabulary,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            max_position_embeddings=LENGTH,
            id2label=dict(enumerate(LABELS)),
            label2id={label: number for number, label in enumerate(LABELS)},
            problem_type="single_label_classification",
        )
    )


def main() -> None:
    """Train the model, write it and its texts, and print its accuracy on the held-out texts."""
    logging.disable_progress_bar()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(8):
        for rows in torch.randperm(len(TRAINING)).split(32):
            texts, labels = zip(*(TRAINING[row] for row in rows), strict=True)
            inputs = tokenizer(list(texts), padding=True, return_tensors="pt")
            loss = model(**inputs, labels=torch.tensor([LABELS.index(label) for label in labels])).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    with torch.inference_mode():
        inputs = tokenizer([text for text, _ in HELD_OUT], padding=True, return_tensors="pt")
        found = [LABELS[number] for number in model(**inputs).logits.argmax(dim=1)]
    right = sum(label == expected for label, (_, expected) in zip(found, HELD_OUT, strict=True))
    model.save_pretrained("messages")
    tokenizer.save_pretrained("messages")
    Path("samples.txt").write_text("".join(f"{text}\n" for text, _ in HELD_OUT), "utf-8")
    Path("heldout.tsv").write_text("".join(f"{label}\t{text}\n" for text, label in HELD_OUT), "utf-8")
    print(f"{right} of {len(HELD_OUT)} held-out texts are labelled right")


if __name__ == "__main__":
    main()
