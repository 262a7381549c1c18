"""Tiny seeded adapters of PEFT over tiny seeded models, and what PyTorch answers with both."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

LABELS = 3
IDS = torch.arange(18).reshape(2, 9) % 50 + 1


def write_base(place: Path, kind: str) -> Path:
    """A model without a head: `bert` or `llama`."""
    import transformers

    torch.manual_seed(0)
    sizes = {"vocab_size": 60, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 2, "max_position_embeddings": 32, "pad_token_id": 0}
    config: Any = {"bert": transformers.BertConfig, "llama": transformers.LlamaConfig}[kind](**sizes)
    transformers.AutoModel.from_config(config).save_pretrained(place)  # type: ignore[no-untyped-call]
    return place


def write_adapter(place: Path, base: Path, config: Any) -> Any:
    """An adapter with a classifier of its own, whose numbers are not those that it starts with; logits [2, labels]."""
    import peft
    import transformers

    torch.manual_seed(1)
    head = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=LABELS)
    with warnings.catch_warnings():
        # What PEFT reads of transformers is deprecated there.
        warnings.simplefilter("ignore")
        adapted: Any = peft.get_peft_model(head, config).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if any(part in name for part in ("lora_", "ia3_", "modules_to_save")):
                parameter.normal_(0.0, 0.3)
        adapted.save_pretrained(place)
        return adapted(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits
