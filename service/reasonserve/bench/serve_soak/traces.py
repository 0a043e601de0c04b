"""What the spans of a soak say: who was run again, and whether every request is one connected trace. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

from reasonserve.bench.local_stack import Span, handled_by
from reasonserve.bench.serve_soak.plan import Planned
from reasonserve.telemetry import names


def survived(spans: Iterable[Span], replicas: AbstractSet[str]) -> frozenset[str]:
    """Returns the traces of requests that one of these replicas handled to their end."""
    return frozenset(span["trace_id"] for span in spans if handled_by(span) in replicas)


def run_again(planned: Sequence[Planned], spans: Iterable[Span]) -> int:
    """Returns how many of the requests lost a replica and were run again."""
    retried = {s["trace_id"] for s in spans if any(event["name"] == names.EVENT_RETRY for event in s["events"])}
    return sum(request.trace_id in retried for request in planned)


def loose_ends(planned: Sequence[Planned], spans: Iterable[Span]) -> list[str]:
    """Returns, a line each, the requests with a span whose parent is neither another one of theirs nor the client's."""
    requests = {request.trace_id: request for request in planned}
    parents: dict[str, list[tuple[str | None, str]]] = {}
    known: dict[str, set[str]] = {trace_id: {request.span_id} for trace_id, request in requests.items()}
    for span in spans:
        if span["trace_id"] in requests:
            known[span["trace_id"]].add(span["span_id"])
            parents.setdefault(span["trace_id"], []).append((span["parent_id"], span["name"]))
    loose = (
        (requests[trace_id].number, [name for parent, name in found if parent not in known[trace_id]])
        for trace_id, found in parents.items()
    )
    return [f"request {number}: its trace has no parent of {', '.join(found)}" for number, found in loose if found]
