"""BERT in PyTorch alone, with the parameter names of transformers, for machines that have torch and nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional


def make(config: Mapping[str, Any], attention: str) -> tuple[nn.Module, str]:
    """A BERT without weights, and which implementation it is: transformers' own where that is installed.

    Args:
        config: of transformers' BertConfig.
        attention: `eager` or `sdpa`.
    """
    try:
        import transformers
    except ImportError:
        return Encoder(config, attention), "tests/gpu/encoder.py"
    full: Any = transformers.BertConfig(**config)
    full._attn_implementation = attention
    model: nn.Module = transformers.BertModel(full, add_pooling_layer=False)
    return Answer(model), f"transformers {transformers.__version__}"


def group(**parts: nn.Module) -> nn.Module:
    """A module that only names others."""
    module = nn.Module()
    for name, part in parts.items():
        module.add_module(name, part)
    return module


class Answer(nn.Module):
    """transformers' model with the inputs in order, answering with the last hidden state alone."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        answer = self.bert(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        hidden: Tensor = answer.last_hidden_state
        return hidden

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Of the model inside, whose names the parameters have; buffers such as position_ids are the model's own."""
        return self.bert.load_state_dict(state_dict, strict=strict, assign=assign)


class Encoder(nn.Module):
    """Embeddings and layers; dropout is left out, as this is never trained."""

    def __init__(self, config: Mapping[str, Any], attention: str) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        layers = nn.ModuleList(Layer(config, attention) for _ in range(config["num_hidden_layers"]))
        self.encoder = group(layer=layers)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        hidden: Tensor = self.embeddings(input_ids, token_type_ids)
        allowed = attention_mask[:, None, None, :].bool()
        for layer in cast(nn.ModuleList, self.encoder.layer):
            hidden = layer(hidden, allowed)
        return hidden


class Embeddings(nn.Module):
    """The sum of three tables, normalized."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        size = config["hidden_size"]
        self.word_embeddings = nn.Embedding(config["vocab_size"], size)
        self.position_embeddings = nn.Embedding(config["max_position_embeddings"], size)
        self.token_type_embeddings = nn.Embedding(config.get("type_vocab_size", 2), size)
        self.LayerNorm = nn.LayerNorm(size, eps=config.get("layer_norm_eps", 1e-12))

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        positions = self.position_embeddings.weight[: input_ids.shape[1]]
        summed = self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids) + positions
        normalized: Tensor = self.LayerNorm(summed)
        return normalized


class Projected(nn.Module):
    """A product with its residual, normalized."""

    def __init__(self, inside: int, config: Mapping[str, Any]) -> None:
        super().__init__()
        size = config["hidden_size"]
        self.dense = nn.Linear(inside, size)
        self.LayerNorm = nn.LayerNorm(size, eps=config.get("layer_norm_eps", 1e-12))

    def forward(self, inner: Tensor, residual: Tensor) -> Tensor:
        normalized: Tensor = self.LayerNorm(self.dense(inner) + residual)
        return normalized


class Layer(nn.Module):
    """Attention and feed-forward."""

    def __init__(self, config: Mapping[str, Any], attention: str) -> None:
        super().__init__()
        size, inside = config["hidden_size"], config["intermediate_size"]
        self.heads, self.fused = config["num_attention_heads"], attention == "sdpa"
        own = group(**{name: nn.Linear(size, size) for name in ("query", "key", "value")})
        self.attention: Any = group(self=own, output=Projected(size, config))
        self.intermediate: Any = group(dense=nn.Linear(size, inside))
        self.output = Projected(inside, config)

    def forward(self, hidden: Tensor, allowed: Tensor) -> Tensor:
        own = self.attention.self
        query, key, value = (
            part(hidden).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (own.query, own.key, own.value)
        )
        if self.fused:
            mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        else:
            scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
            scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
            mixed = scores.softmax(-1) @ value
        hidden = self.attention.output(mixed.transpose(1, 2).flatten(-2), hidden)
        inner = functional.gelu(self.intermediate.dense(hidden))
        answer: Tensor = self.output(inner, hidden)
        return answer
