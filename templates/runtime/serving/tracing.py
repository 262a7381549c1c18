"""Traces in OpenTelemetry's form, where its packages are installed: they are no part of the bundle's requirements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loading.errors import UsageError


class Tracing:
    """Makes a span of every inference, below the one that the client's `traceparent` names."""

    def __init__(self) -> None:
        """Set the exporter up as the OTEL_* variables say.

        Raises:
            UsageError: The packages are not installed.
        """
        try:
            from opentelemetry import propagate, trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise UsageError(
                f"--trace needs opentelemetry-sdk and opentelemetry-exporter-otlp-proto-http: {error}. Install them."
            ) from error
        self._provider = TracerProvider()
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("ortc.server")
        self._extract, self._kind = propagate.extract, trace.SpanKind.SERVER
        self._error = trace.Status(trace.StatusCode.ERROR)

    def start(self, headers: Sequence[tuple[bytes, bytes]], name: str = "infer") -> Span:
        """A span that began now; `headers` are those of HTTP or the metadata of gRPC."""
        carrier = {n.decode("latin-1"): v.decode("latin-1") for n, v in headers if n in (b"traceparent", b"tracestate")}
        span = self._tracer.start_span(name, context=self._extract(carrier), kind=self._kind)
        return Span(span, self._error)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


class Span:
    """One inference."""

    def __init__(self, span: Any, error: Any) -> None:
        self._span, self._error = span, error

    def end(self, model: str, status: int) -> None:
        """It was for this model, and answered with this status of HTTP's; from 500 on the server failed."""
        self._span.set_attribute("ortc.model", model)
        self._span.set_attribute("http.response.status_code", status)
        if status >= 500:
            self._span.set_status(self._error)
        self._span.end()
