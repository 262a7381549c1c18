"""Spans of inferences, by OpenTelemetry's own SDK and exporter, as a collector receives them."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.support import bundles
from tests.support.serving import SECONDS, body, serve

pytestmark = pytest.mark.integration
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(http.server.ThreadingHTTPServer):
    """Keeps the spans that it is sent over OTLP."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Collector)
        assert self.path == "/v1/traces"
        message = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        for resource in message.resource_spans:
            found = {entry.key: entry.value.string_value for entry in resource.resource.attributes}
            self.server.services.add(found["service.name"])
            self.server.spans += [span for scope in resource.scope_spans for span in scope.spans]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the name of the overridden
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join(SECONDS)


def test_an_inference_is_a_span_below_its_clients(tmp_path: Path, collector: Collector) -> None:
    import grpc

    bundle = bundles.text().write(tmp_path / "bundle")
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        "OTEL_SERVICE_NAME": "the-service",
    }
    given = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}
    with serve(bundle, "--trace", "--grpc-port", "0", **environment) as running:
        infer = "/v2/models/text/infer"
        assert running.exchange("POST", infer, body([[1, 2]]), given)[0] == 200
        assert running.exchange("POST", infer, body([[50]]))[0] == 400
        assert running.exchange("POST", "/v2/models/nobody/infer", body([[1]]), {"traceparent": "nonsense"})[0] == 404
        unsampled = {"traceparent": f"00-{TRACE}-{PARENT}-00"}  # the client records nothing: then no span is sent
        assert running.exchange("POST", infer, body([[1, 2]]), unsampled)[0] == 200
        with grpc.insecure_channel(running.grpc) as channel:
            method = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            future = method.future(b"\xff", metadata=list(given.items()), timeout=SECONDS)
            assert future.code() == grpc.StatusCode.INVALID_ARGUMENT
        running.stop()  # what is left is sent before it ends
    assert collector.services == {"the-service"}
    spans = sorted(collector.spans, key=lambda span: span.start_time_unix_nano)
    told = [(span.trace_id.hex() == TRACE, span.parent_span_id.hex(), span.trace_state) for span in spans]
    below, alone = (True, PARENT, "vendor=1"), (False, "", "")
    assert told == [below, alone, alone, below]
    attributes = [{entry.key: entry.value for entry in span.attributes} for span in spans]
    assert [entry["http.response.status_code"].int_value for entry in attributes] == [200, 400, 404, 400]
    assert [entry["ortc.model"].string_value for entry in attributes] == ["text", "text", "nobody", ""]
    for span in spans:
        assert (span.name, span.kind) == ("infer", span.SPAN_KIND_SERVER)
        assert span.start_time_unix_nano < span.end_time_unix_nano
        assert span.status.code != span.status.STATUS_CODE_ERROR  # the client's mistakes are not the server's errors


def test_a_collector_that_is_not_there_costs_no_answer(tmp_path: Path) -> None:
    bundle = bundles.text().write(tmp_path / "bundle")
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    with serve(bundle, "--trace", **environment) as running:
        assert running.exchange("POST", "/v2/models/text/infer", body([[1, 2]]))[0] == 200
        running.stop()
