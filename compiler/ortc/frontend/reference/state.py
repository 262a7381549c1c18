"""Digests of what a module computes with: parameters, buffers and plain attributes, by name."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, Any

from ortc.common.values import digest

if TYPE_CHECKING:
    import torch

MOST_DEPTH = 6
"""Containers of attributes in containers, before they are taken for something else than settings."""


def module_state(module: torch.nn.Module) -> dict[str, str]:
    """sha256 of every parameter and buffer (dtype, shape and bytes), and of each submodule's class and settings."""
    found = {}
    for name, tensor in (
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ):
        found[name] = tensor_digest(tensor)
    for name, part in module.named_modules():
        kind = type(part)
        settings = {key: _plain(value, 0) for key, value in sorted(vars(part).items()) if not key.startswith("_")}
        found[f"{name}()"] = digest([kind.__module__, kind.__qualname__, settings])
    return found


def tensor_digest(tensor: torch.Tensor) -> str:
    """sha256 over a tensor's dtype, shape and elements."""
    import torch

    head = f"{tensor.dtype} {list(tensor.shape)} {tensor.layout}".encode()
    content = hashlib.sha256(head)
    if tensor.is_meta:
        return content.hexdigest()
    value = tensor.detach().cpu()
    if tensor.layout == torch.strided and not tensor.is_quantized:
        flat = value.contiguous().reshape(-1)
        content.update(flat.resolve_conj().resolve_neg().view(torch.uint8).numpy().data)
    else:
        stream = io.BytesIO()
        torch.save(value, stream)
        content.update(stream.getvalue())
    return content.hexdigest()


def _plain(value: Any, depth: int) -> Any:
    """A value as JSON where it is a setting: numbers, texts, arrays, and containers of them; else its type's name."""
    import numpy as np
    import torch

    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, torch.Tensor):
        return tensor_digest(value)
    if isinstance(value, np.ndarray | np.generic) and value.dtype != object:
        return [str(value.dtype), list(value.shape), hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()]
    if depth < MOST_DEPTH and isinstance(value, dict):
        return [[_plain(key, depth + 1), _plain(entry, depth + 1)] for key, entry in value.items()]
    if depth < MOST_DEPTH and isinstance(value, list | tuple):
        return [_plain(entry, depth + 1) for entry in value]
    if depth < MOST_DEPTH and isinstance(value, set | frozenset):
        return sorted(repr(_plain(entry, depth + 1)) for entry in value)
    return f"{type(value).__module__}.{type(value).__qualname__}"
