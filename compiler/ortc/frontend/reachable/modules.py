"""Describe what PyTorch and NumPy know: modules, compiled programs, graphs, dtypes, storages."""

from __future__ import annotations

import hashlib
import io
import pickletools
import re
import warnings
import zipfile
from functools import partial
from typing import TYPE_CHECKING, Any

from ortc.frontend.reachable.arrays import array_digest as array_digest
from ortc.frontend.reachable.arrays import tensor_digest
from ortc.frontend.reachable.origin import named

if TYPE_CHECKING:
    from ortc.frontend.reachable.walk import Walk

_OF_GRAPHS = frozenset(
    {"_graph", "_code", "_codegen", "_tracer_cls", "_tracer_extras", "meta", "_replace_hooks", "_in_spec", "_out_spec"}
    | {"_create_node_hooks", "_erase_node_hooks", "_deepcopy_hooks", "shape_env", "_lineno_map", "_prologue_start"}
)
"""Attributes of a module of a graph that its code says as well."""
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
_COMPILED = frozenset({"_compiled_call_impl"})


def describe(walk: Walk, value: Any, path: str) -> Any:
    """A thing of PyTorch or NumPy; None of anything else."""
    import sys

    import numpy as np

    if isinstance(value, np.dtype | np.ufunc):
        return ["numpy", str(value)]
    if isinstance(value, np.ndarray):
        return ["objects", list(value.shape), walk.value(value.ravel().tolist(), path)]
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    if isinstance(value, torch.dtype | torch.device | torch.layout | torch.memory_format):
        return ["torch", str(value)]
    if isinstance(value, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
        return ["operator", str(value)]
    if isinstance(value, torch.UntypedStorage | torch.storage.TypedStorage):
        return ["storage", walk.array(value, path, _storage_digest)]
    if isinstance(value, torch.utils.hooks.RemovableHandle):
        return ["by name", *named(type(value))]
    if isinstance(value, torch.jit.ScriptFunction):
        return ["compiled", _archive_digest(value)]
    if isinstance(value, torch.jit.ScriptModule):
        return _script(walk, value, path)
    if isinstance(value, torch.fx.Graph):
        return ["graph", str(value)]
    if isinstance(value, torch.nn.Module):
        return _module(walk, value, path)
    return None


def _module(walk: Walk, module: Any, path: str) -> Any:
    import torch

    from ortc.frontend.reachable.attributes import attributes
    from ortc.frontend.reachable.functions import class_path

    join = partial(_join, path)
    own, graph = frozenset(vars(torch.nn.Module())), isinstance(module, torch.fx.GraphModule)
    kept = (*module._parameters.items(), *module._buffers.items())
    tensors = [[name, walk.value(tensor, join(name))] for name, tensor in kept]
    settings = attributes(walk, module, path, own | _COMPILED | (_OF_GRAPHS if graph else frozenset()))
    hooks = [walk.value(list(getattr(module, name, {}).values()), join(name)) for name in _HOOKS]
    inner = [[name, walk.value(part, join(name))] for name, part in module._modules.items()]
    kind = type(module)
    made = ["graph", module.code] if graph else []
    return ["module", walk.value(kind, class_path(kind)), module.training, tensors, settings, hooks, inner, made]


def _script(walk: Walk, module: Any, path: str) -> Any:
    named_tensors = (*module.named_parameters(), *module.named_buffers())
    tensors = [[name, walk.value(tensor, _join(path, name))] for name, tensor in named_tensors]
    try:
        return ["compiled", tensors, _archive_digest(module)]
    except RuntimeError:
        return ["compiled", tensors, walk.unseen(module, path)]


def _archive_digest(value: Any) -> str:
    """sha256 over what TorchScript would save, without the places of its code in files."""
    import torch

    stream = io.BytesIO()
    with warnings.catch_warnings():
        # TorchScript is deprecated, and a user's module may be of it all the same.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(value, stream)
    content = hashlib.sha256()
    with zipfile.ZipFile(stream) as archive:
        for name in sorted(archive.namelist()):
            if not name.endswith((".debug_pkl", "serialization_id")):
                held = archive.read(name)
                # Which values are remembered for later depends on who else holds them.
                held = pickletools.optimize(held) if name.endswith(".pkl") else held
                content.update(_unnumbered(name.partition("/")[2].encode() + b" " + held))
    return content.hexdigest()


def _unnumbered(content: bytes) -> bytes:
    """Without the numbers that TorchScript gives classes of equal names, by the order in a process."""
    return re.sub(rb"(?s)(?:X.{4})?(__torch__(?:[./]\w+)*?)[./]___torch_mangle_\d+", rb"\1", content)


def _storage_digest(storage: Any) -> str:
    import torch

    untyped = getattr(storage, "_untyped_storage", storage)
    return tensor_digest(torch.tensor([], dtype=torch.uint8, device=untyped.device).set_(untyped))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}".lstrip(".")
