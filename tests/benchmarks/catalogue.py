"""Who takes part, and with which models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EAGER = "pytorch-eager"
OURS = ("ortc-auto", "ortc-fp32")
EARLY = "ortc-start"
"""Ours with a budget for the start; its races are not run."""
IMAGES = "image-classification"
"""The task of models of images."""
HERE = "{here}"
"""In a command: the directory of the contenders' scripts. So too `{model}`, `{output}`, `{task}`, and `{bin}` of the
environment."""


@dataclass(frozen=True)
class Model:
    """A model; `shapes` are batch and sequence, or batch alone."""

    name: str
    title: str
    task: str
    shapes: tuple[tuple[int, ...], ...]
    seeded: bool

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of what `shapes` holds."""
        return ("batch", "sequence")[: len(self.shapes[0])]

    def label(self, shape: tuple[int, ...]) -> str:
        """`1x128`, or `1` of a model with a batch axis alone."""
        return "x".join(map(str, shape))

    @property
    def main_shape(self) -> tuple[int, ...]:
        """One request of usual length: what starts and builds are measured at."""
        return (1, 128)[: len(self.axes)]


TEXT_SHAPES = tuple((batch, sequence) for batch in (1, 4, 16) for sequence in (16, 128, 512))
MODELS = (
    Model("bert-base", "BERT-base, seeded weights", "feature-extraction", TEXT_SHAPES, seeded=True),
    Model("minilm", "all-MiniLM-L6-v2, trained", "feature-extraction", (*TEXT_SHAPES, (8, 128)), seeded=False),
    Model("resnet-50", "ResNet-50, seeded weights, 224 x 224", IMAGES, ((1,), (4,), (16,)), seeded=True),
)


@dataclass(frozen=True)
class Contender:
    """A peer: the environment it lives in, how its artifact is made, and how it is run.

    Attributes:
        artifact: contenders of one artifact share it; empty when the model's directory itself is run.
        make: the command that makes the artifact.
        make_image: another one for models of images.
        options: of the script that runs it.
        precision: what it claims to compute in.
    """

    name: str
    title: str
    environment: str
    script: str
    precision: Literal["fp32", "bf16", "int8"]
    artifact: str = ""
    make: str = ""
    make_image: str = ""
    options: tuple[str, ...] = ()

    def command(self, task: str) -> str:
        """What makes the artifact of a model with this task."""
        return (task == IMAGES and self.make_image) or self.make


_HAND = f"{{bin}}/python {HERE}/make_onnx.py {{model}} {{output}}"
_OPENVINO = f"{{bin}}/python {HERE}/make_openvino.py {{model}} {{output}}"
_OPTIMUM = "{bin}/optimum-cli export onnx --model {model} --task {task}"
_OLIVE = "{bin}/olive optimize -m {model} -t {task} --provider CPUExecutionProvider --device cpu --precision fp32 \
--exporter dynamo_exporter -o {output}"
_WORKFLOW = f"{{bin}}/python {HERE}/make_olive.py {{model}} {{output}} {{task}}"
_ORT = "run_onnxruntime.py"

PEERS = (
    Contender(EAGER, "PyTorch eager (sdpa)", "pytorch", "run_torch.py", "fp32"),
    Contender("torch-compile", "torch.compile", "pytorch", "run_torch.py", "fp32", options=("compile=1",)),
    Contender("ort-fp32", "ONNX Runtime, defaults", "pytorch", _ORT, "fp32", artifact="onnx", make=_HAND),
    Contender(
        "ort-int8", "ONNX Runtime, dynamic INT8", "pytorch", _ORT, "int8", artifact="onnx-int8", make=f"{_HAND} int8"
    ),
    Contender(
        "ort-int8-nosln",
        "the same without SkipLayerNormFusion",
        "pytorch",
        _ORT,
        "int8",
        artifact="onnx-int8",
        make=f"{_HAND} int8",
        options=("disable=SkipLayerNormFusion",),
    ),
    Contender(
        "optimum-o3",
        "Optimum O3",
        "optimum",
        _ORT,
        "fp32",
        artifact="optimum-o3",
        make=f"{_OPTIMUM} --optimize O3 {{output}}",
        # Its optimizer knows transformers alone and refuses anything else.
        make_image=f"{_OPTIMUM} {{output}}",
    ),
    Contender(
        "olive-fp32",
        "Olive fp32",
        "olive",
        _ORT,
        "fp32",
        artifact="olive-fp32",
        make=_OLIVE,
        make_image=f"{_WORKFLOW} fp32",
    ),
    Contender(
        "olive-int8",
        "Olive dynamic INT8",
        "olive",
        _ORT,
        "int8",
        artifact="olive-int8",
        make=f"{_WORKFLOW} int8",
    ),
    Contender(
        "openvino-fp32",
        "OpenVINO fp32",
        "openvino",
        "run_openvino.py",
        "fp32",
        artifact="openvino",
        make=_OPENVINO,
        options=("precision=f32",),
    ),
    Contender(
        "openvino-bf16",
        "OpenVINO bf16",
        "openvino",
        "run_openvino.py",
        "bf16",
        artifact="openvino",
        make=_OPENVINO,
        options=("precision=bf16",),
    ),
)
OUR_TITLES = {
    "ortc-auto": "**ortc**, cosine ≥ 0.999",
    "ortc-fp32": "**ortc**, fp32 (max_abs ≤ 1e-4)",
    EARLY: "**ortc**, cosine ≥ 0.999, starts within 600 ms",
}
TITLES = {**OUR_TITLES, **{peer.name: peer.title for peer in PEERS}}


def model(name: str) -> Model:
    """A model by its name.

    Raises:
        KeyError: there is none of that name.
    """
    return next(entry for entry in MODELS if entry.name == name)
