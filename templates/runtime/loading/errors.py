"""The errors that name what a bundle promises and does not hold, each with a code and an exit code."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator
from typing import ClassVar, TextIO


class BundleError(Exception):
    """Something is not as the bundle promises. `code` is stable and for machines, the message is for people."""

    code: ClassVar[str] = "bundle"
    exit_code: ClassVar[int] = 1


class UsageError(BundleError):
    """The command line or a worker's request is wrong."""

    code, exit_code = "usage", 2


class FormatError(BundleError):
    """The directory is not a bundle, or not one that this loader reads."""

    code, exit_code = "format", 3


class DigestError(BundleError):
    """A file's bytes are not those that were published."""

    code, exit_code = "digest-mismatch", 4


class FilesError(BundleError):
    """A file is missing, unexpected, or outside the bundle."""

    code, exit_code = "files", 4


class RuntimeVersionError(BundleError):
    """ONNX Runtime is missing or too old."""

    code, exit_code = "runtime-version", 5


class ProvidersError(BundleError):
    """ONNX Runtime cannot use the execution providers that the bundle asks for."""

    code, exit_code = "providers", 6


class PlacementError(BundleError):
    """More graph nodes run on the CPU than the bundle allows."""

    code, exit_code = "placement", 7


class SessionError(BundleError):
    """ONNX Runtime refused the model, or failed while it ran."""

    code, exit_code = "session", 8


class GoldenError(BundleError):
    """The model does not give the answers that were recorded at build time."""

    code, exit_code = "golden", 9


class InputError(BundleError):
    """The caller's inputs, or the outputs asked for, do not fit the model."""

    code, exit_code = "input", 10


class ThreadsError(BundleError):
    """The number of threads asked for is not a positive whole number."""

    code, exit_code = "threads", 11


class NumericsError(BundleError):
    """An output holds NaN, which it never did at build time."""

    code, exit_code = "numerics", 13


@contextlib.contextmanager
def tolerating(*kinds: type[BundleError], strict: bool) -> Iterator[None]:
    """Make a warning of these errors unless `strict`."""
    try:
        yield
    except kinds as error:
        if strict:
            raise
        warn(error)


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def warn(message: object) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)


def end_without_numpy(answers: TextIO) -> None:
    """End a program at once where numpy is missing, with a JSON document on `answers` and a line on stderr."""
    try:
        import numpy as np  # noqa: F401
    except ImportError as reason:
        error = RuntimeVersionError(
            f"numpy cannot be imported: {reason}. Install the bundle's packages: pip install --no-deps "
            "--require-hashes -r requirements.txt"
        )
        document = {"ok": False, "error": {"code": error.code, "message": str(error)}}
        print(json.dumps(document), file=answers, flush=True)
        print(f"error: {one_line(error)}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    import difflib  # here and below, inside: 20 ms of a cold start for what most processes never need

    close = difflib.get_close_matches(name, list(known), 1)
    return f" Did you mean {close[0]!r}?" if close else ""
