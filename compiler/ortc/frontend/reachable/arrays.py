"""Digests of tensors and arrays."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch


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


def array_digest(array: np.ndarray[Any, Any] | np.generic) -> str:
    """sha256 over an array's dtype, shape and elements, which are no objects."""
    import numpy as np

    content = hashlib.sha256(f"{array.dtype.descr} {list(array.shape)}".encode())
    content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()
