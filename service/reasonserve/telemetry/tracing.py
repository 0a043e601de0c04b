"""The process's tracer, and how processes other than Ray Serve's set tracing up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import grpc
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
)
from opentelemetry.trace import TracerProvider as AnyProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from reasonserve.telemetry import names
from reasonserve.telemetry.export import span_processors

_W3C = TraceContextTextMapPropagator()


def tracer() -> Tracer:
    """Returns this process's tracer."""
    return _tracer_of(trace.get_tracer_provider())


@lru_cache(maxsize=1)
def _tracer_of(provider: AnyProvider) -> Tracer:
    # Made once: a tracer costs as much as a span.
    return provider.get_tracer(names.TRACER)


def set_up_tracing(service_name: str) -> TracerProvider:
    """Makes a tracer provider with the destinations that the environment names.

    ``shutdown`` it before the process ends: batches are sent then.
    """
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service_name}))
    for processor in span_processors():
        provider.add_span_processor(processor)
    return provider


@contextmanager
def root_span(provider: TracerProvider, name: str = names.SPAN_CLIENT) -> Iterator[Span]:
    """Runs its body in a new trace's root span; an exception marks it failed."""
    with provider.get_tracer(names.TRACER).start_as_current_span(
        name, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield span
        except BaseException as error:
            mark_failed(span, error)
            raise


def trace_id_of(span: Span) -> str:
    """Returns a span's trace id in hexadecimal, as trace files and collectors show it."""
    return trace.format_trace_id(span.get_span_context().trace_id)


class Parent(NamedTuple):
    """A span that another process's spans are below; plain data, for W3C's header costs as much to read as a span.

    Attributes:
        trace_id, span_id: Its ids.
        flags: Trace flags; 1 is sampled.
        state: Vendors' entries, as W3C's ``tracestate`` writes them.
    """

    trace_id: int
    span_id: int
    flags: int
    state: str = ""

    @classmethod
    def current(cls) -> Parent | None:
        """Returns the current span; None where there is none."""
        context = trace.get_current_span().get_span_context()
        if not context.is_valid:
            return None
        return cls(context.trace_id, context.span_id, context.trace_flags, context.trace_state.to_header())

    def context(self) -> Context:
        """Returns the context in which spans are below it."""
        state = TraceState.from_header([self.state]) if self.state else None
        flags = TraceFlags(self.flags)
        span = NonRecordingSpan(SpanContext(self.trace_id, self.span_id, True, flags, state))
        return trace.set_span_in_context(span, Context())


def context_of(headers: Mapping[str, str]) -> Context:
    """Returns the trace context that W3C's headers tell; an empty one where they tell none."""
    return _W3C.extract(headers, Context()) if headers else Context()


def mark_failed(span: Span, error: BaseException) -> None:
    """Records the class of an error; its message stays out, for it may quote the request."""
    span.set_attribute(names.ERROR_TYPE, type(error).__name__)
    span.set_status(Status(StatusCode.ERROR))


class _CallDetails(NamedTuple):
    """The fields that gRPC reads of ``grpc.ClientCallDetails``."""

    method: str
    timeout: float | None
    metadata: list[tuple[str, str | bytes]]
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class TraceparentInterceptor(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Sends the current span's ``traceparent`` along with each call of a blocking channel.

    OpenTelemetry's own interceptor also opens a span, but hands a server stream back as a plain generator that
    cannot be cancelled.
    """

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        """Adds the metadata; see gRPC."""
        return continuation(_with_traceparent(details), request)

    def intercept_unary_stream(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        """Adds the metadata; see gRPC."""
        return continuation(_with_traceparent(details), request)


def _with_traceparent(details: Any) -> _CallDetails:
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return _CallDetails(
        method=details.method,
        timeout=details.timeout,
        metadata=[*(details.metadata or ()), *carrier.items()],
        credentials=details.credentials,
        wait_for_ready=details.wait_for_ready,
        compression=details.compression,
    )
