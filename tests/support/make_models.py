"""`python make_models.py DIRECTORY`: small PyTorch models in every form that a spec can name, and some that lie.

Runs in a process of its own: tests do not load torch for this, and what it writes can be looked at by hand.
"""

from __future__ import annotations

import io
import json
import os
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

MODULES = '''
"""Entry points of specs."""

import torch
from torch import Tensor, nn


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.layer(x))


class Branch(Linear):
    """Takes the one way or the other by what it is given, not by its shape."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if y.sum() > 1000:
            return y * 2
        return y


class Baked(Linear):
    """Written for a batch of 3, the size that happens to be traced."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).view(3, 3) * 2


class Fixed(Linear):
    """Right at every batch size, but for a tracer that takes a size as a number."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).reshape(int(x.shape[0]), 3) * 2


class Truncated(Linear):
    """The same, in a way that does not fail: the trace runs at every batch size, and answers as if it were 3."""

    def forward(self, x: Tensor) -> Tensor:
        rows = int(x.shape[0])
        return super().forward(x) * torch.arange(rows, dtype=torch.float32).sum()


def linear() -> nn.Module:
    torch.manual_seed(1)
    return Linear()


def branch() -> nn.Module:
    torch.manual_seed(1)
    return Branch()


def baked() -> nn.Module:
    torch.manual_seed(1)
    return Baked()


def fixed() -> nn.Module:
    torch.manual_seed(1)
    return Fixed()


def truncated() -> nn.Module:
    torch.manual_seed(1)
    return Truncated()
'''

RESNET = {
    "architectures": ["ResNetForImageClassification"],
    "model_type": "resnet",
    "num_channels": 3,
    "image_size": 32,
    "embedding_size": 8,
    "hidden_sizes": [8, 16],
    "depths": [1, 1],
    "layer_type": "basic",
    "hidden_act": "relu",
    "num_labels": 5,
}


class Code:
    """What a pickle can carry: reading it runs a command."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self.sentinel}'",)


class Program(nn.Module):
    """What is exported: with weights and a constant."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = nn.Linear(4, 3)
        self.offset = torch.arange(3.0)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.tanh(self.layer(x)) + self.offset
        return y


def main(root: Path) -> None:
    """Write the project."""
    (root / "pyproject.toml").touch()
    (root / "models.py").write_text(MODULES, "utf-8")
    (root / "resnet").mkdir()
    (root / "resnet" / "config.json").write_text(json.dumps(RESNET), "utf-8")
    layer = Program().layer
    state = {"layer.weight": layer.weight.detach(), "layer.bias": layer.bias.detach()}
    torch.save(state, root / "weights.pt")
    torch.save({**state, "extra": Code(root / "ran-weights")}, root / "code.pt")
    torch.save(Program(), root / "module.pt")
    batch = torch.export.Dim("batch", min=1, max=16)
    program = torch.export.export(Program().eval(), (torch.randn(3, 4),), dynamic_shapes=({0: batch},))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, root / "program.pt2")
    lie(root)


def lie(root: Path) -> None:
    """Programs that torch.export.load would run code of, each in another way."""
    members = _members(root / "program.pt2")
    config = next(name for name in members if name.endswith("model_constants_config.json"))
    constants = config.rpartition("/")[0]

    def opaque(**payload: object) -> tuple[str, bytes]:
        document = json.loads(members[config])
        document["config"]["offset"] |= {"path_name": "opaque_obj_0", **payload}
        return config, json.dumps(document).encode()

    def pickled(sentinel: str) -> bytes:
        import pickle

        return pickle.dumps(Code(root / sentinel))

    name = f"{constants}/opaque_obj_0"
    told = dict([opaque(use_pickle=True, tensor_meta=None)])
    _write(root / "object.pt2", {**members, **told, name: pickled("ran-object")})
    # The same object, in a configuration that calls it a tensor: torch goes by the file's name.
    untold = dict([opaque(use_pickle=False)])
    _write(root / "disguised.pt2", {**members, **untold, name: pickled("ran-disguised")})
    tensor = io.BytesIO()
    torch.save([Code(root / "ran-tensor")], tensor)
    document = json.loads(members[config])
    document["config"]["offset"]["use_pickle"] = True
    _write(
        root / "tensor.pt2",
        {**members, config: json.dumps(document).encode(), f"{constants}/tensor_0": tensor.getvalue()},
    )
    sample = next(name for name in members if "/sample_inputs/" in name)
    example = io.BytesIO()
    torch.save(((Code(root / "ran-sample"),), {}), example)
    _write(root / "sample.pt2", {**members, sample: example.getvalue()})
    graph = next(name for name in members if name.endswith("/models/model.json"))
    text = members[graph].decode()
    symbol = json.loads(text)["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0]["as_expr"]["expr_str"]
    command = f"__import__('os').system('touch {root / 'ran-expression'}')"
    changed = text.replace(json.dumps(symbol), json.dumps(command))
    assert changed != text
    _write(root / "expression.pt2", {**members, graph: changed.encode()})
    changed = text.replace('"torch.ops.aten.tanh.default"', '"torch.serialization.os.system"')
    assert changed != text
    _write(root / "function.pt2", {**members, graph: changed.encode()})
    prefix = graph.partition("/")[0]
    _write(root / "library.pt2", {**members, f"{prefix}/data/aotinductor/model/a.so": b"\x7fELF"})


def _members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _write(path: Path, members: dict[str, bytes]) -> None:
    # torch reads members where they lie in the file: not compressed.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
