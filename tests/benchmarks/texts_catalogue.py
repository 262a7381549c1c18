"""Who takes part in the race of embeddings, and how each serves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Server = Literal["litserve", "bentoml", "infinity-torch", "infinity-optimum", "ortc"]


@dataclass(frozen=True)
class TextServer:
    """A server of texts.

    Attributes:
        environment: of peers/; empty for ours.
        precision: the table that it stands in.
        artifact: what `contenders/make_texts.py` makes for it; empty for the model's own directory. Ours: the target.
        file: the graph in it, where there are several.
        settings: ways to batch that are tried first; the one with most texts per second races. Of ours
            RUNS AT ONCE/TOKENS OF A RUN/THREADS OF A RUN, of infinity TEXTS OF A RUN, else REQUESTS OF A CALL/TEXTS OF
            A RUN.
    """

    name: str
    title: str
    environment: str
    precision: Literal["fp32", "int8"]
    server: Server
    settings: tuple[str, ...]
    artifact: str = ""
    file: str = "-"

    @property
    def is_ours(self) -> bool:
        """Whether it is a bundle."""
        return self.server == "ortc"


CALLS = ("16/16", "16/4", "16/1", "1/1")
"""All that wait in a call, run together, in fours or one by one; or no batches at all."""
RUNS = ("16", "4", "1")
OURS = ("2/0/1", "2/256/1", "2/512/1", "1/512/2")

SERVERS = (
    TextServer("st-torch", "sentence-transformers, torch", "st-torch", "fp32", "litserve", CALLS),
    TextServer("st-onnx", "sentence-transformers, onnx", "st-onnx", "fp32", "litserve", CALLS, "onnx"),
    TextServer("st-openvino", "sentence-transformers, openvino", "st-openvino", "fp32", "litserve", CALLS, "openvino"),
    TextServer("infinity-torch", "infinity-emb, torch", "infinity", "fp32", "infinity-torch", RUNS),
    TextServer("infinity-optimum", "infinity-emb, optimum", "infinity", "fp32", "infinity-optimum", RUNS, "onnx"),
    TextServer("bentoml", "BentoML, sentence-transformers on torch", "bentoml", "fp32", "bentoml", CALLS),
    TextServer("ortc-fp32", "**ortc**, fp32", "", "fp32", "ortc", OURS, "fp32"),
    TextServer(
        "st-onnx-int8",
        "sentence-transformers, onnx, dynamic INT8",
        "st-onnx",
        "int8",
        "litserve",
        CALLS,
        "onnx-int8",
        "onnx/model_qint8_{onnx}.onnx",
    ),
    TextServer(
        "st-openvino-int8",
        "sentence-transformers, openvino, static INT8",
        "st-openvino",
        "int8",
        "litserve",
        CALLS,
        "openvino-int8",
        "openvino/openvino_model_qint8_quantized.xml",
    ),
    TextServer("infinity-int8", "infinity-emb, torch, dynamic INT8", "infinity", "int8", "infinity-torch", RUNS),
    TextServer(
        "infinity-optimum-int8",
        "infinity-emb, optimum, dynamic INT8",
        "infinity",
        "int8",
        "infinity-optimum",
        RUNS,
        "onnx-int8",
        "onnx/model_qint8_{onnx}.onnx",
    ),
    TextServer("ortc-int8", "**ortc**, INT8", "", "int8", "ortc", OURS, "int8"),
    TextServer("ortc-edge", "**ortc**, INT8 of the edge profile", "", "int8", "ortc", ("2/0/1", "1/0/2"), "edge"),
)
TITLES = {entry.name: entry.title for entry in SERVERS}
