"""The seeded models: `make_model.py NAME OUTPUT` writes config.json and model.safetensors.

Right for speed; their answers mean nothing, and differences are those of the arithmetic alone.
"""

from __future__ import annotations

import sys

import torch
import transformers


def main() -> None:
    """Make one model with seed 0."""
    name, output = sys.argv[1:]
    torch.manual_seed(0)
    if name == "bert-base":
        model = transformers.BertModel(transformers.BertConfig())
    else:
        model = transformers.ResNetForImageClassification(transformers.ResNetConfig(num_labels=1000))
        settle(model)
    model.eval().save_pretrained(output)


def settle(model: torch.nn.Module) -> None:
    """Give the batch normalizations the statistics of seeded images, as training would.

    Without them activations grow from block to block, and what is compared at the end is rounding.
    """
    model.train()
    with torch.no_grad():
        for _ in range(4):
            model(torch.randn(8, 3, 224, 224))


if __name__ == "__main__":
    main()
