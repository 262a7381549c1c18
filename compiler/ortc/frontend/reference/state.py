"""Digests of what a module computes with: parameters, buffers and plain attributes, by name."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ortc.common.values import digest

if TYPE_CHECKING:
    import torch

MOST_DEPTH = 6
"""Containers of attributes in containers, before they are taken for something else than settings."""


def module_state(module: torch.nn.Module, known: set[int] | None = None) -> dict[str, str]:
    """sha256 of every parameter and buffer (dtype, shape and bytes), and of each submodule's class and settings.

    Args:
        module: with all that it computes with, parameters and modules in plain containers included.
        known: ids of parameters and modules that are digested elsewhere, to which those of this module are added.
    """
    import torch

    known = set() if known is None else known
    own = vars(torch.nn.Module()).keys()
    found = {}
    for name, tensor in (
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ):
        found[name] = tensor_digest(tensor)
    for name, part in module.named_modules():
        kind = type(part)
        settings = {
            key: _plain(value, 0)
            for key, value in sorted(vars(part).items())
            if not key.startswith("_") or (key not in own and _holds_numbers(value))
        }
        found[f"{name}()"] = digest([kind.__module__, kind.__qualname__, settings])
    for name, value in list(unregistered(module, known)):
        if hasattr(value, "named_parameters"):
            found |= {f"{name}.{part}": sha256 for part, sha256 in module_state(value, known).items()}
        else:
            found[name] = tensor_digest(value)
    return found


def unregistered(module: torch.nn.Module, known: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """Parameters and modules in plain lists, tuples and mappings of attributes, by name: no state dict has them.

    Args:
        module: where to look.
        known: ids of what is no news, to which all that is found is added.
    """
    import torch

    known = set() if known is None else known
    known |= {id(part) for part in (*module.modules(), *module.parameters())}
    own = vars(torch.nn.Module()).keys()

    def inside(value: Any, name: str, depth: int) -> Iterator[tuple[str, Any]]:
        if isinstance(value, torch.nn.Parameter | torch.nn.Module):
            if id(value) not in known:
                known.add(id(value))
                yield name, value
        elif depth < MOST_DEPTH and isinstance(value, dict | list | tuple):
            entries = value.items() if isinstance(value, dict) else enumerate(value)
            for key, entry in list(entries):
                yield from inside(entry, f"{name}[{key!r}]", depth + 1)

    for place, part in module.named_modules():
        for key, value in list(vars(part).items()):
            if key not in own:
                yield from inside(value, f"{place}.{key}".lstrip("."), 0)


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


def _holds_numbers(value: Any) -> bool:
    """Whether a private attribute is a tensor or an array, or a container of some; other ones are no settings."""
    import numpy as np
    import torch

    entries = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else (value,)
    return any(isinstance(entry, torch.Tensor | np.ndarray) for entry in entries)


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
