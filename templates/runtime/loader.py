"""Load and run one bundle: its files verified, its session as it was measured, its inputs checked.

Needs Python >= 3.11, numpy and onnxruntime, and the modules of loading/ beside it; every bundle holds a verbatim copy
of both.

    with Model.load("dist/bert/1.0.0/cpu") as model:
        hidden = model.run({"input_ids": ids, "attention_mask": mask})["last_hidden_state"]
        vectors = model.answer(["a text", "another"])

On the command line, `python runtime/loader.py selftest|bench|run|answer|info` prints one JSON document on stdout and
`worker` answers one JSON line for each line on stdin: `{"ok": true, "result": {...}}` or
`{"ok": false, "error": {"code": "...", "message": "..."}}`. Everything else, ONNX Runtime's own log included, goes to
stderr. Exit codes: 0 ok, 1 internal error, 2 usage, and those of the `BundleError` classes below.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__":
    # Nothing here multiplies matrices in numpy: a program of its own need not start BLAS' threads, one for each core.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from loading.errors import end_without_numpy

    sys.path.pop(0)
    end_without_numpy(sys.stdout)

import numpy as np

# Whoever imports this file by its path, or starts it with `python -P`, finds what lies beside it, too.
_HERE = str(Path(__file__).resolve().parent)
sys.path.insert(0, _HERE)
try:
    from loading.arrays import Arrays, plain, read_npy, read_npz, write_npz
    from loading.columns import parse_row
    from loading.errors import (
        BundleError,
        DigestError,
        FilesError,
        FormatError,
        GoldenError,
        InputError,
        NumericsError,
        PlacementError,
        ProvidersError,
        RuntimeVersionError,
        SessionError,
        ThreadsError,
        UsageError,
        one_line,
    )
    from loading.interface import Axis, Tensor
    from loading.machine import process_seconds
    from loading.measuring import measure
    from loading.model import Model
    from loading.rows import takes_rows
    from loading.worker import Worker, failure, run_files, success
finally:
    sys.path.remove(_HERE)

__all__ = [
    "Arrays",
    "Axis",
    "BundleError",
    "DigestError",
    "FilesError",
    "FormatError",
    "GoldenError",
    "InputError",
    "Model",
    "NumericsError",
    "PlacementError",
    "ProvidersError",
    "RuntimeVersionError",
    "SessionError",
    "Tensor",
    "ThreadsError",
    "UsageError",
    "main",
    "read_npz",
    "write_npz",
]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. See {self.prog} --help.")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    common = _Parser(add_help=False)
    common.add_argument("--bundle", default=str(Path(__file__).resolve().parent.parent), help="default: the one around")
    common.add_argument("--verify", default="full", choices=("full", "fast", "none"))
    common.add_argument("--threads", type=int, help="default: what session.json says")
    skips = _Parser(add_help=False, parents=[common])
    skips.add_argument("--no-selftest", action="store_true", help="skip the golden cases")
    skips.add_argument("--no-warmup", action="store_true")
    parser = _Parser(prog="loader.py", description="Check, measure or run the bundle; JSON on stdout.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("selftest", parents=[common], help="load, verify and run the golden cases")
    commands.add_parser("info", parents=[skips], help="versions, providers, placement, threads, memory")
    bench = commands.add_parser("bench", parents=[skips], help="latency, memory, start to first answer")
    bench.add_argument("--shape", default="", help="e.g. batch=1,sequence=128; typical sizes where not given")
    bench.add_argument("--runs", type=int, default=200)
    bench.add_argument("--warmup", type=int, default=10)
    bench.add_argument("--started", type=float, help="time.monotonic() when the process was started")
    run = commands.add_parser("run", parents=[skips], help="run once on arrays from files")
    run.add_argument("--input", action="append", default=[], metavar="NAME=FILE.npy")
    run.add_argument("--npz", metavar="FILE.npz", help="all inputs in one file")
    run.add_argument("--output", required=True, metavar="FILE.npz")
    texts = commands.add_parser("answer", parents=[skips], help="answer texts, images, sounds or rows")
    texts.add_argument(
        "texts", nargs="+", metavar="TEXT|FILE|ROW", help="a text, the file of an image or a sound, or a,b,c"
    )
    texts.add_argument("--prompt", metavar="NAME", help="one of the model's prompts, instead of its default")
    commands.add_parser("worker", help="answer JSON lines on stdin")
    return parser.parse_args(argv)


def _bench(model: Model, arguments: argparse.Namespace) -> dict[str, Any]:
    sizes: dict[str, int] = {}
    for part in filter(None, arguments.shape.split(",")):
        match = re.fullmatch(r"\s*(\w+)=([0-9]{1,9})\s*", part)
        if match is None:
            raise UsageError(f"--shape has {part!r}. Expected axis=size, e.g. batch=1,sequence=128.")
        sizes[match[1]] = int(match[2])
    inputs = model.example(sizes)
    model.run(inputs)
    first = process_seconds(arguments.started)
    latencies = measure(model, inputs, arguments.runs, arguments.warmup)
    p50, p90, p99 = (float(value) for value in np.percentile(latencies, (50, 90, 99)))
    mean = sum(latencies) / len(latencies)
    used = {axis.name: sizes.get(axis.name, axis.typical) for axis in model.axes}
    return {
        "shape": used,
        "n": len(latencies),
        "latency_ms": {"p50": p50, "p90": p90, "p99": p99, "mean": mean},
        "throughput_per_second": used.get("batch", 1) * 1000 / mean,
        "start_to_first_answer_seconds": first,
        **model.info(),
    }


def _run(model: Model, arguments: argparse.Namespace) -> dict[str, Any]:
    if bool(arguments.npz) == bool(arguments.input):
        raise UsageError("give either --npz FILE.npz or --input NAME=FILE.npy for each input.")
    inputs = read_npz(Path(arguments.npz)) if arguments.npz else {}
    for item in arguments.input:
        name, _, path = item.partition("=")
        try:
            inputs[name] = read_npy(Path(path))
        except InputError as error:
            raise InputError(f"--input {item}: {error}") from error
    return run_files(model, inputs, Path(arguments.output))


def _command(arguments: argparse.Namespace) -> dict[str, Any]:
    selftest = not getattr(arguments, "no_selftest", False)
    warmup = not getattr(arguments, "no_warmup", True)
    with Model.load(
        arguments.bundle, verify=arguments.verify, threads=arguments.threads, selftest=selftest, warmup=warmup
    ) as model:
        if arguments.command == "bench":
            return _bench(model, arguments)
        if arguments.command == "run":
            return _run(model, arguments)
        if arguments.command == "answer":
            given = arguments.texts
            if takes_rows(model.manifest):
                given = [parse_row(text, model.manifest["inputs"]) for text in given]
            return {"answers": plain(model.answer(given, arguments.prompt))}
        return {**model.info(), **({"golden": list(model.golden)} if arguments.command == "selftest" else {})}


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    # Native code writes to descriptor 1 as it likes: keep that for the answers alone and send all else to stderr.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")

    def reply(document: str) -> None:
        answers.write(document + "\n")
        answers.flush()

    try:
        arguments = _arguments(argv)
        sys.stdout.flush()
        os.dup2(2, 1)
        if arguments.command == "worker":
            worker = Worker()
            for line in sys.stdin.buffer:
                reply(worker.answer(line))
            return 0
        reply(success(_command(arguments)))
    except BrokenPipeError:  # whoever asked is gone
        return 1
    except Exception as error:  # noqa: BLE001 - the boundary: failure() reports it
        reply(failure(error))
        print(f"error: {one_line(error)}", file=sys.stderr)
        return error.exit_code if isinstance(error, BundleError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
