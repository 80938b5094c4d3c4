"""Spans as OpenTelemetry has them, sent as OTLP over HTTP. Imported only where they are written."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind as Kind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from structlog.contextvars import bound_contextvars

from persona_mcp.config.tracing_settings import TracingSettings
from persona_mcp.state.correlation import current_correlation_id
from persona_mcp.state.errors import PersonaError
from persona_mcp.state.watching import Facts, Span, SpanKind

MILLISECONDS = 1000
BATCH = 512
"""Spans sent at once, at most."""
KINDS = {"server": Kind.SERVER, "client": Kind.CLIENT, "internal": Kind.INTERNAL}
CORRELATION = "persona.correlation_id"
W3C = TraceContextTextMapPropagator()


def sending(settings: TracingSettings, servers: Mapping[str, Facts]) -> "OtelTracer":
    """Return a tracer that sends to the settings' address, in a thread of its own."""
    secret = settings.authorization.get_secret_value()
    exporter = OTLPSpanExporter(
        endpoint=settings.endpoint,
        timeout=settings.export_s,
        headers={"authorization": secret} if secret else None,
    )
    provider = provider_of(settings)
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter,
            max_queue_size=settings.queued,
            max_export_batch_size=min(BATCH, settings.queued),
        )
    )
    return OtelTracer(provider, servers)


def provider_of(settings: TracingSettings) -> TracerProvider:
    """Return what makes spans; nothing is sent before it is told where to."""
    return TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(settings.share)),
        resource=Resource.create(
            {"service.name": settings.name, "service.version": version("persona-mcp")}
        ),
        shutdown_on_exit=False,
    )


class OtelSpan:
    """One step of a trace; see `Span`."""

    __slots__ = ("inner",)

    def __init__(self, inner: trace.Span) -> None:
        """Wrap OpenTelemetry's."""
        self.inner = inner

    def note(self, facts: Facts) -> None:
        """Add attributes."""
        self.inner.set_attributes(facts)

    def end(self, fault: str | None = None) -> None:
        """End it."""
        if fault is not None:
            self.inner.set_attribute("error.type", fault)
            self.inner.set_status(trace.Status(trace.StatusCode.ERROR))
        self.inner.end()


class OtelTracer:
    """Writes spans; see `Tracer`. What an error says is in none of them: its code is."""

    def __init__(self, provider: TracerProvider, servers: Mapping[str, Facts]) -> None:
        """Make spans with this provider, which no other part of the process knows."""
        self.servers = servers
        self._provider = provider
        self._tracer = provider.get_tracer("persona_mcp", version("persona-mcp"))

    @contextmanager
    def call(self, name: str, carrier: Mapping[str, str], facts: Facts) -> Iterator[Span]:
        """Begin a trace, or go on with the caller's; see `Tracer`."""
        parent = W3C.extract(carrier, contexts.Context())
        span = OtelSpan(self._started(name, "server", facts, parent))
        with self.inside(span):
            yield from self._watched(span)

    @contextmanager
    def inside(self, span: Span) -> Iterator[None]:
        """Go on below a span; see `Tracer`."""
        assert isinstance(span, OtelSpan)
        its = span.inner.get_span_context()
        token = contexts.attach(trace.set_span_in_context(span.inner))
        try:
            with bound_contextvars(trace_id=trace.format_trace_id(its.trace_id)):
                yield
        finally:
            contexts.detach(token)

    @contextmanager
    def span(self, name: str, kind: SpanKind, facts: Facts) -> Iterator[Span]:
        """Write a step; see `Tracer`."""
        span = OtelSpan(self._started(name, kind, facts))
        token = contexts.attach(trace.set_span_in_context(span.inner))
        try:
            yield from self._watched(span)
        finally:
            contexts.detach(token)

    def begin(self, name: str, kind: SpanKind, facts: Facts) -> Span:
        """Begin a step that its holder ends; see `Tracer`."""
        return OtelSpan(self._started(name, kind, facts))

    def close(self, limit_s: float) -> None:
        """Send what waits within a limit, and write no more; blocks."""
        self._provider.force_flush(int(limit_s * MILLISECONDS))
        self._provider.shutdown()

    def _started(
        self, name: str, kind: SpanKind, facts: Facts, parent: contexts.Context | None = None
    ) -> trace.Span:
        attributes: dict[str, Any] = dict(facts)
        if id := current_correlation_id():
            attributes[CORRELATION] = id
        return self._tracer.start_span(name, parent, KINDS[kind], attributes)

    def _watched(self, span: OtelSpan) -> Iterator[Span]:
        fault: str | None = None
        try:
            yield span
        except BaseException as error:
            fault = error.code if isinstance(error, PersonaError) else type(error).__name__
            raise
        finally:
            span.end(fault)
