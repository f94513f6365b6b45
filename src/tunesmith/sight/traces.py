"""The `Traces` port over OpenTelemetry: spans go to the collector that OpenTelemetry's own variables name, if one does."""

import hashlib
import os
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from tunesmith.domain.traces import UNTRACED, Life, Span, Traces

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

log = structlog.get_logger()

#: OpenTelemetry's own names: with one of them traces are sent.
SWITCHES: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
#: What the end of a server waits for a collector.
FAREWELL_S: Final = 2.0
_NS: Final = 1_000_000_000
_FAILED: Final = 500


def open_traces(version: str) -> Traces:
    """Return where traces go: to a collector where the environment names one and `tunesmith[otel]` is installed."""
    if not any(os.environ.get(name) for name in SWITCHES):
        return UNTRACED
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - the same
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - the same
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - the same
    except ImportError:
        log.warning("traces.off", reason="a collector is named, but tunesmith[otel] is not installed")
        return UNTRACED
    named = os.environ.get("OTEL_SERVICE_NAME", "tunesmith")
    ids = _ids()
    provider = TracerProvider(
        resource=Resource.create({"service.name": named, "service.version": version}),
        id_generator=ids,
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return _Traces(provider, ids)


class _Planner(Protocol):
    """Says which job's identity the next trace of this thread has."""

    def plan(self, job_id: str | None) -> None: ...


def _ids() -> Any:
    """Return a maker of identities: at random, and of a job's trace those that follow from its id."""
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator  # noqa: PLC0415 - an extra

    class Ids(RandomIdGenerator):
        def __init__(self) -> None:
            self._of = threading.local()

        def plan(self, job_id: str | None) -> None:
            self._of.job = job_id

        def generate_trace_id(self) -> int:
            job = getattr(self._of, "job", None)
            return super().generate_trace_id() if job is None else planned(job)[0]

        def generate_span_id(self) -> int:
            job = getattr(self._of, "job", None)
            return super().generate_span_id() if job is None else planned(job)[1]

    return Ids()


class _Traces:
    """Spans of requests as they end, and of jobs when they have ended."""

    def __init__(self, provider: "TracerProvider", planner: _Planner) -> None:
        from opentelemetry import context, trace  # noqa: PLC0415 - an extra
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415 - the same

        self._api, self._context = trace, context
        self._provider = provider
        self._tracer = provider.get_tracer("tunesmith")
        self._propagator = TraceContextTextMapPropagator()
        self._planner = planner

    @contextmanager
    def request(
        self, method: str, headers: Mapping[str, str], *, job_id: str | None
    ) -> Generator[Callable[[str, int], None]]:
        """Trace a request; one about a job points to that job's trace."""
        trace = self._api
        links: list[Any] = []
        if job_id is not None:
            flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
            links = [trace.Link(trace.SpanContext(*planned(job_id), is_remote=True, trace_flags=flags))]
        outer = self._propagator.extract(dict(headers))
        about = {"http.request.method": method}
        span = self._tracer.start_span(method, outer, kind=trace.SpanKind.SERVER, links=links, attributes=about)
        identity = f"{span.get_span_context().trace_id:032x}"

        def ended(route: str, status: int) -> None:
            span.update_name(f"{method} {route}")
            span.set_attributes({"http.route": route, "http.response.status_code": status})
            if status >= _FAILED:
                span.set_status(trace.StatusCode.ERROR)

        try:
            with structlog.contextvars.bound_contextvars(trace=identity):
                yield ended
        finally:
            span.end()

    def job(self, life: Life) -> None:
        """Trace a job's life: its phases below one span whose identity follows from the job's id."""
        trace = self._api
        self._planner.plan(life.job_id)
        try:
            root = self._start(life.whole, self._context.Context())
        finally:
            self._planner.plan(None)
        below = trace.set_span_in_context(root, self._context.Context())
        for phase in life.phases:
            self._start(phase, below).end(_ns(phase.end))
        if life.error is not None:
            root.set_status(trace.Status(trace.StatusCode.ERROR, life.error))
        root.end(_ns(life.whole.end))

    def _start(self, span: Span, context: Any) -> Any:
        return self._tracer.start_span(span.name, context, attributes=span.attributes, start_time=_ns(span.start))

    def close(self) -> None:
        """Send what is not sent yet; a collector that does not answer is not waited for."""
        flushing = threading.Thread(target=self._provider.force_flush, name="traces", daemon=True)
        flushing.start()
        flushing.join(FAREWELL_S)


def planned(job_id: str) -> tuple[int, int]:
    """Return the trace and the span of a job: the same in every server, and known before it has ended."""
    digest = hashlib.sha256(job_id.encode()).digest()
    return int.from_bytes(digest[:16]), int.from_bytes(digest[16:24])


def _ns(seconds: float) -> int:
    return int(seconds * _NS)
