"""Traces in OpenTelemetry's form, where its packages are installed: they are no part of the bundle's requirements."""

from __future__ import annotations

from typing import Any

from loader import UsageError


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

    def start(self, model: str, headers: list[tuple[bytes, bytes]]) -> Span:
        """A span that began now."""
        carrier = {n.decode("latin-1"): v.decode("latin-1") for n, v in headers if n in (b"traceparent", b"tracestate")}
        span = self._tracer.start_span("infer", context=self._extract(carrier), kind=self._kind)
        span.set_attribute("ortc.model", model)
        return Span(span)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


class Span:
    """One inference."""

    def __init__(self, span: Any) -> None:
        self._span = span

    def end(self, status: int) -> None:
        """It was answered with this HTTP status."""
        self._span.set_attribute("http.response.status_code", status)
        self._span.end()
