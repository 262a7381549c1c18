"""Serve the bundle around this file over HTTP: the Open Inference Protocol v2, JSON and binary tensors.

    python runtime/server.py --host 0.0.0.0 --port 8080

The socket opens first; the server is ready once every file is hashed and every golden case run. Routes, NAME being the
bundle's name:

    GET  /v2                       server metadata
    GET  /v2/health/live           200 while the process answers
    GET  /v2/health/ready          200 while requests are served, 503 before, and from SIGTERM on
    GET  /v2/models/NAME           the interface; /v2/models/NAME/ready; both also under /versions/VERSION
    POST /v2/models/NAME/infer     {"inputs": [{"name", "shape", "datatype", "data"}], "outputs": [{"name"}], "id"}
    POST /v1/embeddings            {"model", "input"}: vectors of texts, as OpenAI has them
    POST /v1/rerank                {"model", "query", "documents"}: documents by their scores
    POST /v1/predict               {"model", "inputs"}: answers to texts and pairs
    GET  /                         a page to try the bundle by hand
    GET  /metrics                  Prometheus
    GET  /openapi.json             this interface, with the model's inputs

With --repository DIRECTORY, bundles below it for the same target are served too, each loaded when it is first asked
for, and /v2/repository/index, /v2/repository/models/NAME/load and .../unload answer to who has the admin token.

The log is one JSON object per line on stderr. SIGTERM and SIGHUP: not ready, running requests end, exit 0. Exit codes
otherwise:
those of loader.py; 12 for a bundle that is not fit to serve, 14 for a model beyond --model-memory-bytes or
--device-memory-bytes. Needs the packages of requirements.txt.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    # As in loader.py: no threads for BLAS, which nothing here uses.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # The kernel throws signals away that the first process of a container takes no notice of. Until the server can
    # drain there is nothing to drain.
    for _number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(_number, lambda *_: os._exit(0))
    from loading.errors import end_without_numpy

    end_without_numpy(sys.stderr)

from loading.errors import BundleError, RuntimeVersionError
from loading.worker import failure

if TYPE_CHECKING:
    from serving.process import Options


MOST = 2.0**53  # of any number


def main(argv: Sequence[str] | None = None) -> int:
    """Load, check, serve until SIGTERM or SIGINT; returns the exit code."""
    arguments = _arguments(argv)
    try:
        try:
            from serving import process
        except ImportError as error:
            message = f"the server needs the packages of requirements.txt: {error}. Install them."
            raise RuntimeVersionError(message) from error
        return process.serve(_options(arguments))
    except BundleError as error:
        print(failure(error), file=sys.stderr)
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


class _Parser(argparse.ArgumentParser):
    """Numbers with their least values; messages in one line."""

    def number(
        self,
        name: str,
        kind: type[int] | type[float],
        least: float,
        default: object,
        text: str,
        most: float = MOST,
    ) -> None:
        """An option that takes a number of at least `least`, and at most `most`."""

        def parse(value: str) -> float:
            number = kind(value)
            if not number >= least or number == float("inf") or number > most:
                raise ValueError
            return number

        parse.__name__ = f"number of at least {least:g}" if most == MOST else f"number from {least:g} to {most:g}"
        self.add_argument(name, type=parse, default=default, metavar="N", help=text)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(prog="server.py", description="Serve the bundle: Open Inference Protocol v2.")
    add, number = parser.add_argument, parser.number
    add("--bundle", default=str(Path(__file__).resolve().parent.parent), help="default: the one around")
    add("--host", default="127.0.0.1")
    number("--port", int, 0, 8080, "default 8080; 0 takes a free one", most=65535)
    number("--grpc-port", int, 0, None, "serve gRPC, too; needs the packages of requirements-grpc.txt", most=65535)
    number("--threads", int, 1, None, "for one operator; default: what session.json says", most=1024)
    number("--concurrency", int, 1, None, "runs at once; default: what session.json says", most=1024)
    add("--allow-unfit", action="store_true", help="serve a bundle that is marked unfit to serve")
    add("--nan", choices=("raise", "allow"), default="raise", help="raise: refuse NaN where the golden cases have none")
    number("--max-body-bytes", int, 1, 16 * 2**20, "of one request; default 16 MiB")
    number(
        "--max-buffered-bytes",
        int,
        1,
        None,
        "of all requests and unread answers; default 256 MiB, or half of what the container has left",
    )
    number("--max-connections", int, 1, 1024, "of each protocol; default 1024, or what descriptors and memory allow")
    number("--request-seconds", float, 0.001, 30.0, "from the head of a request to its answer; default 30")
    number("--queue-size", int, 0, 128, "requests that may wait for a run before others get 429; default 128")
    number(
        "--max-batch-size", int, 1, 1, "rows that requests of equal shapes may share a run with; default 1: no batches"
    )
    number(
        "--max-batch-tokens",
        int,
        0,
        0,
        "tokens, with padding, of a run that texts of any lengths may share; default 0: no such runs",
    )
    number("--max-queue-delay-us", int, 0, 1000, "how long a request waits for others of its batch; default 1000")
    number("--slow-run-ms", float, 0.001, None, "longer runs are counted and logged; default: the promised latency")
    number("--drain-seconds", float, 0, 30.0, "longest wait for running requests; default 30")
    number("--shutdown-delay-seconds", float, 0, 0.0, "serve on after SIGTERM, not ready, for as long; default 0")
    add("--repository", metavar="DIRECTORY", help="serve other bundles below it, too; allows to load and unload")
    add("--preload", action="append", default=[], metavar="NAME", help="of the repository, before the server is ready")
    add(
        "--admin-token-file", metavar="FILE", help="the token that lists, loads and unloads models; or ORTC_ADMIN_TOKEN"
    )
    number("--model-memory-bytes", int, 1, None, "all models together; the one used last is evicted last")
    number(
        "--device-memory-bytes", int, 1, None, "the same of the GPU's memory; default: what is free there at the start"
    )
    add("--api-keys", metavar="FILE", help="one key a line; requests then need one: Authorization: Bearer KEY")
    add(
        "--cors-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="whose pages may ask from a browser; may be repeated; `*` for all",
    )
    add("--no-page", action="store_true", help="no page at / to try the bundle by hand")
    add("--log-requests", action="store_true", help="log every request; default: those not answered with 200")
    add("--trace", action="store_true", help="OpenTelemetry spans, as the OTEL_* variables say; needs its packages")
    return parser.parse_args(argv)


def _options(arguments: argparse.Namespace) -> Options:
    from serving.access import Access
    from serving.calls import Limits
    from serving.guard import Guard
    from serving.models import Settings
    from serving.process import Options

    return Options(
        bundle=Path(arguments.bundle),
        host=arguments.host,
        port=arguments.port,
        grpc_port=arguments.grpc_port,
        settings=Settings(
            threads=arguments.threads,
            concurrency=arguments.concurrency,
            allow_unfit=arguments.allow_unfit,
            nan=arguments.nan,
            queue_size=arguments.queue_size,
            batch_rows=arguments.max_batch_size,
            batch_delay=arguments.max_queue_delay_us / 1e6,
            batch_tokens=arguments.max_batch_tokens,
            slow_seconds=None if arguments.slow_run_ms is None else arguments.slow_run_ms / 1000,
        ),
        limits=Limits(
            arguments.max_body_bytes,
            arguments.max_buffered_bytes or Limits.all_body_bytes,
            arguments.request_seconds,
            arguments.max_connections,
            fixed=arguments.max_buffered_bytes is not None,
        ),
        drain_seconds=arguments.drain_seconds,
        shutdown_delay=arguments.shutdown_delay_seconds,
        repository=None if arguments.repository is None else Path(arguments.repository),
        preload=tuple(arguments.preload),
        model_memory=arguments.model_memory_bytes,
        device_memory=arguments.device_memory_bytes,
        guard=Guard.of(arguments.host, arguments.admin_token_file),
        page=not arguments.no_page,
        access=Access.of(arguments.api_keys, arguments.cors_origin),
        log_requests=arguments.log_requests,
        trace=arguments.trace,
    )


if __name__ == "__main__":
    sys.exit(main())
