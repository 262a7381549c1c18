"""Answer requests with a finished bundle: its own loader, in an environment of its pinned requirements."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ortc.bundle.interpreter import interpreter_of
from ortc.bundle.manifest import Manifest, ProcessingInfo, read_bundle
from ortc.bundle.rows import takes_rows
from ortc.common.bundle_runtime import runtime_module
from ortc.common.errors import AccuracyError, StageError, UsageError
from ortc.common.resources import cache_root
from ortc.execution.worker import Worker, is_for_browsers, is_script
from ortc.execution.worker_process import WorkerError

SEVERAL_PARTS = ("score", "span", "zero-shot")
"""Kinds of answers to requests of more than one text."""


def answer_texts(bundle: Path, texts: Sequence[str], prompt: str | None = None) -> list[Any]:
    """Return the answers of a bundle to texts, images, sounds or rows, as JSON has them.

    Args:
        bundle: its directory; files are verified and golden cases run before anything is answered.
        texts: what to answer; of a bundle that takes images or sounds their paths; a JSON object where the bundle takes
            requests of several parts; of one that takes rows JSON, or values between commas.
        prompt: the name of one of the model's prompts, the default one when None.

    Raises:
        StageError: the directory is not a bundle, or the bundle cannot run here.
        AccuracyError: files or golden answers differ.
        UsageError: the bundle takes no texts, or a text cannot be answered.
    """
    manifest = read_bundle(bundle)
    processing = manifest.processing
    rows = takes_rows(manifest) and not is_script(bundle)
    if processing is None and not rows:
        if is_for_browsers(bundle):
            raise UsageError(
                f"{bundle} takes tensors, not texts or files, and runs in browsers",
                help="serve the directory and open index.html",
            )
        if is_script(bundle):
            raise UsageError(
                f"{bundle} takes tensors, not texts or files, and runs in Node",
                help="give arrays to `run` of its Model; its README.md shows how",
            )
        raise UsageError(
            f"{bundle} takes tensors, not texts, files or rows",
            help="build it without `interface: tensors` from a repository with a tokenizer, or use "
            "`runtime/loader.py run` with arrays",
        )
    requests = _rows(manifest, texts) if processing is None else _requests(processing, texts)
    interpreter = interpreter_of(bundle, cache_root() / "environments")
    try:
        with Worker.for_bundle(bundle.name, interpreter, bundle) as worker:
            worker.call("load", bundle=str(bundle), verify="full", selftest=True, warmup=False)
            found: list[Any] = worker.call("answers", texts=requests, prompt=prompt)["answers"]
            return found
    except WorkerError as error:
        if error.code == "input":
            raise UsageError(error.message, help=error.help) from error
        if error.code in ("golden", "digest-mismatch", "files"):
            raise AccuracyError(error.message, help=error.help, details=error.details) from error
        raise StageError(error.message, help=error.help, details=error.details) from error


def _rows(manifest: Manifest, lines: Sequence[str]) -> list[Any]:
    """The rows of the command line as the loader takes them."""
    parse_row = runtime_module("loading.columns").parse_row
    inputs = [tensor.model_dump(mode="json") for tensor in manifest.inputs]
    return [parse_row(line, inputs) for line in lines]


def _requests(processing: ProcessingInfo, texts: Sequence[str]) -> list[Any]:
    """The requests of the command line as the loader takes them."""
    if processing.takes != "text":
        return [str(Path(path).resolve()) for path in texts]
    return [request_of(text) for text in texts] if processing.kind in SEVERAL_PARTS else list(texts)


def takes_files(bundle: Path) -> bool:
    """Whether a bundle answers images or sounds.

    Raises:
        StageError: the directory is not a bundle.
    """
    processing = read_bundle(bundle).processing
    return processing is not None and processing.takes != "text"


def request_of(text: str) -> Any:
    """Return the request that a JSON object is; any other text is itself."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return found if isinstance(found, dict) else text
