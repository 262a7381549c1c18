"""The layout of a repository that transformers.js opens without a network: AutoTokenizer and AutoModel.

Names of files and keys: https://huggingface.co/docs/transformers.js/guides/dtypes and the package's `utils/dtypes.js`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ortc.bundle.manifest import Manifest
from ortc.common.errors import StageError, UsageError
from ortc.execution.worker import is_script
from ortc.plan.processing import DOCUMENT, TOKENIZER, Processing

MODEL_TYPE = "ortc"
"""Of config.json: none that the library knows, so that it takes the graph as an encoder and gives all its outputs."""
MOST_BYTES = 2**31 - 1
"""Most bytes of a graph in one file."""


class _Form(NamedTuple):
    """How the library names a graph: the end of its file's name, and the type that asks for it."""

    suffix: str
    dtype: str


_FORMS = {"fp32": _Form("", "fp32"), "fp16": _Form("_fp16", "fp16"), "int8": _Form("_quantized", "q8")}


def write_repository(place: Path, bundle: Path, manifest: Manifest, say: Callable[[str], object]) -> None:
    """Write config.json, the tokenizer's files and `onnx/model*.onnx`, with the weights in the graph's file.

    Args:
        place: a directory that is not there.
        bundle: whose files were compared with their digests.
        manifest: of the bundle.
        say: told what the library does not do of what the bundle does.

    Raises:
        UsageError: the bundle is not for JavaScript, or takes no texts.
        StageError: the graph with its weights is too large for one file.
    """
    if not is_script(bundle) or manifest.processing is None or manifest.processing.takes != "text":
        raise UsageError(
            f"{bundle} takes no texts in browsers or Node, and transformers.js opens encoders of texts",
            help="build the targets `web` or `node` from a repository with a tokenizer, without `interface: tensors`",
        )
    form = _FORMS.get(manifest.variant.precision)
    if form is None:
        raise UsageError(f"transformers.js has no name for graphs in {manifest.variant.precision}")
    text = Processing.model_validate_json((bundle / DOCUMENT).read_bytes()).of_text
    if text.prompt:
        say(f"transformers.js does not put the default prompt before a text: write {json.dumps(text.prompt)} yourself")
    (place / "onnx").mkdir(parents=True)
    (place / "onnx" / f"model{form.suffix}.onnx").write_bytes(_whole(bundle / manifest.model.file))
    shutil.copyfile(bundle / TOKENIZER, place / "tokenizer.json")
    document = json.loads((place / "tokenizer.json").read_bytes())
    tokenizer: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizer",
        "model_max_length": text.max_length,
        "pad_token": _token(document, text.padding.token),
        "padding_side": text.padding.side,
        "truncation_side": "left" if text.truncation == "left" else "right",
    }
    config = {
        "model_type": MODEL_TYPE,
        "pad_token_id": text.padding.token,
        "transformers.js_config": {"dtype": form.dtype, "use_external_data_format": False},
    }
    for name, content in (("tokenizer_config.json", tokenizer), ("config.json", config)):
        (place / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _whole(graph: Path) -> bytes:
    """A graph with the weights that lie beside it, as one file.

    Raises:
        StageError: it is too large for that.
    """
    beside = graph.with_name(f"{graph.name}.data")
    if not beside.is_file():
        return graph.read_bytes()
    if graph.stat().st_size + beside.stat().st_size > MOST_BYTES:
        raise StageError(f"{graph} and its weights are more than 2 GB, which no file of a graph holds")
    import onnx

    model: onnx.ModelProto = onnx.load(str(graph))
    for tensor in model.graph.initializer:
        # The weights are in the message now: the places where they were lead nowhere.
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _token(document: dict[str, Any], number: int) -> str:
    """The token of an id, of what tokenizer.json holds.

    Raises:
        StageError: there is none.
    """
    for entry in document.get("added_tokens", ()):
        if entry["id"] == number:
            return str(entry["content"])
    vocabulary = document["model"].get("vocab", {})
    pairs = vocabulary.items() if isinstance(vocabulary, dict) else ((row[0], at) for at, row in enumerate(vocabulary))
    for token, found in pairs:
        if found == number:
            return str(token)
    raise StageError(
        f"{TOKENIZER} has no token {number}, which pads texts", help="`ortc build` writes the bundle again"
    )
