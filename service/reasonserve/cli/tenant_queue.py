"""How a tenant's requests may wait: options of ``tenant``, and what people are shown."""

from __future__ import annotations

from typing import Annotated

import typer

from reasonserve.api.v1 import tenant_service_pb2 as pb
from reasonserve.errors import InvalidRequestError

MIN_WAIT_S = 0.001
"""Less would be sent as less than it says, or as 0, which stands for the replica's own limit."""

QueueRequests = Annotated[
    int | None,
    typer.Option(
        "--queue-requests",
        min=0,
        max=1024,
        help="Most of its requests that wait for memory at one replica; 0: as the replica's configuration says.",
    ),
]
QueueWait = Annotated[
    float | None,
    typer.Option(
        "--queue-wait",
        min=0,
        max=3600,
        help="Longest that one waits, in seconds, from 0.001; 0: as the replica's configuration says.",
    ),
]


def assign_queue(tenant: pb.Tenant, requests: int | None, wait_s: float | None) -> list[str]:
    """Sets the limits that are named; returns the name of their field, or nothing where none is.

    Raises:
        InvalidRequestError: The wait is too short.
    """
    if requests is not None:
        tenant.queue.max_requests = requests
    if wait_s is not None:
        if 0 < wait_s < MIN_WAIT_S:
            raise InvalidRequestError(
                f"--queue-wait: given {wait_s:g}; allowed is {MIN_WAIT_S} to 3600 seconds, or 0 for the replica's own."
            )
        tenant.queue.max_wait.FromNanoseconds(round(wait_s * 1e9))
    return [] if requests is None and wait_s is None else ["queue"]


def queue_line(tenant: pb.Tenant) -> str:
    """Returns for people how a tenant's requests may wait."""
    most, wait_ns = tenant.queue.max_requests, tenant.queue.max_wait.ToNanoseconds()
    requests = f"at most {most}" if most else "as many as its configuration says"
    wait = f"at most {wait_ns / 1e9:g} s" if wait_ns else "as long as its configuration says"
    return f"Waiting at a replica: {requests}, each for {wait}."
