"""Which traces are kept: the caller decides, and where there is none, a share of them.

Ray Serve 2.60 forgets the context of a span that is not sampled: below it, each of its own spans would begin a trace
of its own. So only the span at the entrance may begin one; whatever else has no parent is dropped.

A replica gets its context along with the call and makes the span of the way to it, so where the gateway listens itself
Ray Serve's own spans on that way would only cost time. Below Ray Serve's span of the gateway, where a call came by its
proxy, they stay: it would be renamed.
"""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from reasonserve.telemetry import names

ENTRANCES = ("reasonserve.api.v1.GenerationService/", "proxy_grpc_request", "proxy_http_request")
"""Spans of the gateway's own server and of Ray Serve's proxies, by how their names begin."""
ROUTING = "route_to_replica"
"""Ray Serve's span of the way to a replica, by how its name begins; there is none of its arrival without it."""


class EntranceSampler(Sampler):
    """Lets the spans at the entrance begin traces, a share of them.

    Args:
        ratio: The share, in [0, 1].
        entrances: How the names of such spans begin.
    """

    def __init__(self, ratio: float, entrances: Sequence[str] = ENTRANCES) -> None:
        self._ratio = TraceIdRatioBased(ratio)
        self._entrances = tuple(entrances)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Decides on a span that has no parent."""
        if not name.startswith(self._entrances):
            return SamplingResult(Decision.DROP)
        return self._ratio.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """Returns the sampler's name and figures."""
        return f"EntranceSampler{{{self._ratio.get_description()},{','.join(self._entrances)}}}"


class OwnRoute(Sampler):
    """Drops Ray Serve's span of the way to a replica directly below a span of ours; keeps all others."""

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Decides on a span below one that is kept."""
        if name.startswith(ROUTING) and _is_ours(trace.get_current_span(parent_context)):
            return SamplingResult(Decision.DROP)
        return ALWAYS_ON.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """Returns the sampler's name."""
        return "OwnRoute"


def _is_ours(span: trace.Span) -> bool:
    scope = span.instrumentation_scope if isinstance(span, ReadableSpan) else None
    return scope is not None and scope.name == names.TRACER


def honour_parents(ratio: float) -> None:
    """Has this process of Ray Serve follow the caller's decision; call it before the first span.

    Ray Serve sets the process's tracer provider up and has no setting for its sampler.
    """
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.sampler = ParentBased(EntranceSampler(ratio), local_parent_sampled=OwnRoute())
