"""Which traces are kept: the caller decides, and where there is none, a share of them.

Ray Serve 2.60 forgets the context of a span that is not sampled: below it, each of its own spans would begin a trace
of its own. So only the span at the entrance may begin one; whatever else has no parent is dropped.

A replica gets its context along with the call, so Ray Serve's own span there would only cost time.
"""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

ENTRANCES = ("reasonserve.api.v1.GenerationService/", "proxy_grpc_request", "proxy_http_request")
"""Spans of the gateway's own server and of Ray Serve's proxies, by how their names begin."""
HANDLING = "replica_handle_request"
"""Ray Serve's span around each call that a replica handles, by how its name begins."""


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


class Without(Sampler):
    """Drops some spans, whatever their parents.

    Args:
        begin: How their names begin.
        inner: Decides on all others.
    """

    def __init__(self, begin: str, inner: Sampler) -> None:
        self._begin = begin
        self._inner = inner

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
        """Decides on a span."""
        if name.startswith(self._begin):
            return SamplingResult(Decision.DROP)
        return self._inner.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """Returns the sampler's name and figures."""
        return f"Without{{{self._begin},{self._inner.get_description()}}}"


def honour_parents(ratio: float, *, handling: bool = True) -> None:
    """Has this process of Ray Serve follow the caller's decision; call it before the first span.

    Ray Serve sets the process's tracer provider up and has no setting for its sampler.

    Args:
        ratio: Share of the traces begun here that are kept.
        handling: Whether Ray Serve's span around each call is kept; without it, calls must bring their context along.
    """
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        sampler = ParentBased(EntranceSampler(ratio))
        provider.sampler = sampler if handling else Without(HANDLING, sampler)
