"""A loaded model that answers one JSON line for each line on stdin."""

from __future__ import annotations

import inspect
import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .answering import with_files
from .arrays import Arrays, plain, read_npz, write_npz
from .errors import BundleError, InputError, UsageError
from .measuring import count_copies, measure_turn, time_operators
from .model import Model
from .soak import SOAK_SECONDS, soak


class Worker:
    """Answers requests about one model at a time; each public method is an operation, its parameters the request."""

    operations = (
        "load",
        "run",
        "tokens",
        "features",
        "answers",
        "bench",
        "copies",
        "operators",
        "soak",
        "info",
        "close",
    )

    def __init__(self) -> None:
        self._model: Model | None = None

    def answer(self, line: bytes) -> str:
        """The reply to one line, without its end; never raises but for a signal."""
        try:
            try:
                request = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UsageError(f"the line is not JSON: {error}. Send one JSON object a line.") from error
            if not isinstance(request, dict) or request.get("op") not in self.operations:
                raise UsageError(f"expected an object with op one of {', '.join(self.operations)}.")
            operation: Callable[..., dict[str, Any]] = getattr(self, request.pop("op"))
            try:
                inspect.signature(operation).bind(**request)
            except TypeError as error:
                raise UsageError(f"{operation.__name__}: {error}.") from error
            return success(operation(**request))
        except Exception as error:  # noqa: BLE001 - no request may end the worker; failure() reports all of it
            return failure(error)

    def _loaded(self) -> Model:
        if self._model is None:
            raise UsageError("no model is loaded. Send load first.")
        return self._model

    def load(
        self, bundle: str, verify: str = "full", threads: int | None = None, selftest: bool = True, warmup: bool = True
    ) -> dict[str, Any]:
        """Load a bundle in place of the one before; answers with info and the golden results."""
        self.close()
        path = _path("bundle", bundle)
        # Whether there may be NaN is for the compiler to say, which has PyTorch's answer beside.
        self._model = Model.load(path, verify=verify, threads=threads, nan="allow", selftest=selftest, warmup=warmup)
        return {**self._model.info(), "golden": list(self._model.golden)}

    def run(self, inputs: str, outputs: str) -> dict[str, Any]:
        """Run on the arrays of one .npz file and write another."""
        model, target = self._loaded(), _path("outputs", outputs)
        return run_files(model, read_npz(_path("inputs", inputs)), target)

    def tokens(self, texts: list[Any]) -> dict[str, Any]:
        """Token ids and token types of every request; those of its windows or labels follow one another."""
        found = self._loaded().processing().encoded(texts)
        return {"rows": [{"ids": _chain(rows, "ids"), "types": _chain(rows, "types")} for rows in found]}

    def features(self, files: list[str], outputs: str) -> dict[str, Any]:
        """Write what images or sounds become into one .npz file, by their places; refused ones have their reasons."""
        source, found, refused = self._loaded().processing().media, Arrays(), {}
        if source is None:
            raise UsageError("the model takes neither images nor sounds")
        for index, path in enumerate(files):
            try:
                found[str(index)] = source.row(with_files(path)).values
            except InputError as error:
                refused[str(index)] = str(error)
        write_npz(_path("outputs", outputs), found)
        return {"refused": refused}

    def answers(self, texts: list[Any], prompt: str | None = None) -> dict[str, Any]:
        """The answers to a list of texts, or of paths of images or sounds; see AnsweringSession.answer."""
        return {"answers": plain(self._loaded().answer(texts, prompt))}

    def bench(self, inputs: str, runs: int, warmup: int = 1, clients: int | None = None) -> dict[str, Any]:
        """Latency of every run; with `clients` that ask at once, the one time that a request takes of the whole.

        Besides, seconds of all counted runs, by the clock on the wall and by what this process computed.
        """
        return vars(measure_turn(self._loaded(), read_npz(_path("inputs", inputs)), runs, warmup, clients))

    def copies(self, inputs: str) -> dict[str, Any]:
        """See count_copies; the model that is loaded stays so."""
        return {"copies": count_copies(self._loaded().root, read_npz(_path("inputs", inputs)), verify="none")}

    def operators(self, inputs: str) -> dict[str, Any]:
        """See time_operators; the model that is loaded stays so."""
        return {"operators": time_operators(self._loaded().root, read_npz(_path("inputs", inputs)), verify="none")}

    def soak(self, seconds: float = SOAK_SECONDS) -> dict[str, Any]:
        """See soak."""
        return soak(self._loaded(), seconds)

    def info(self) -> dict[str, Any]:
        """See Model.info."""
        return self._loaded().info()

    def close(self) -> dict[str, Any]:
        """Drop the model; harmless when there is none."""
        if self._model is not None:
            self._model.close()
        self._model = None
        return {}


def _chain(rows: list[Any], name: str) -> list[int]:
    return [value for row in rows for value in getattr(row, name)]


def failure(error: BaseException) -> str:
    """The JSON answer for an error; a traceback of what nobody foresaw goes to stderr."""
    code, message = "internal", f"{type(error).__name__}: {error}"
    if isinstance(error, BundleError):
        code, message = error.code, str(error)
    else:
        traceback.print_exception(error, file=sys.stderr)
    return json.dumps({"ok": False, "error": {"code": code, "message": message}})


def run_files(model: Model, inputs: Arrays, target: Path) -> dict[str, Any]:
    """Run once and write the answer to `target`."""
    began = time.perf_counter()
    answer = model.run(inputs)
    seconds = time.perf_counter() - began
    try:
        write_npz(target, answer)
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror}.") from error
    return {"outputs": _described(answer), "file": str(target), "seconds": seconds}


def success(result: Mapping[str, Any]) -> str:
    return json.dumps({"ok": True, "result": result}, allow_nan=False)


def _described(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    return {name: {"dtype": str(array.dtype), "shape": list(array.shape)} for name, array in arrays.items()}


def _path(what: str, value: object) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise UsageError(f"{what} is {value!r}. Expected the path of a file.")
    return Path(value)
