"""Who is admitted next: start-time fair queueing over tenants by weight.

Goyal, Vin, Cheng: Start-time Fair Queueing, SIGCOMM 1996, equations 1 and 2. A request of tenant i with cost c
gets the tags

    start  = max(v, finish of i's request before)
    finish = start + c / weight_i

and the lowest start tag goes first; virtual time v is the start tag that went last. While two tenants wait, the
costs that each had admitted differ, over their weights, by at most one request of each. Pure: no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Line:
    entries: deque[tuple[float, str]] = field(default_factory=deque)  # (start tag, request id), oldest first
    finish: float = 0.0


class FairQueue:
    """Requests that wait, first in first out within a tenant."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}
        self._virtual_time = 0.0
        self._tenants: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._tenants)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._tenants

    def push(self, request_id: str, tenant_id: str, *, cost: int, weight: int) -> None:
        """Adds a request behind its tenant's others.

        Args:
            request_id: Not yet in the queue.
            tenant_id: Its tenant.
            cost: What its admission takes, in slots; at least 1.
            weight: The tenant's weight; at least 1.
        """
        assert request_id not in self._tenants
        line = self._lines.setdefault(tenant_id, _Line())
        start = max(self._virtual_time, line.finish)
        line.finish = start + cost / weight
        line.entries.append((start, request_id))
        self._tenants[request_id] = tenant_id

    def heads(self) -> Iterator[tuple[str, str]]:
        """Yields (tenant id, request id) of each tenant's oldest request, lowest start tag first."""
        waiting = ((line.entries[0][0], tenant_id) for tenant_id, line in self._lines.items() if line.entries)
        for _, tenant_id in sorted(waiting):
            yield tenant_id, self._lines[tenant_id].entries[0][1]

    def serve(self, request_id: str) -> None:
        """Takes out a request that was admitted; virtual time moves on to its start tag."""
        start = self.remove(request_id)
        self._virtual_time = max(self._virtual_time, start)
        self._forget_what_passed()

    def remove(self, request_id: str) -> float:
        """Takes out a request that left; returns its start tag."""
        line = self._lines[self._tenants.pop(request_id)]
        entry = next(entry for entry in line.entries if entry[1] == request_id)
        line.entries.remove(entry)
        self._forget_what_passed()
        return entry[0]

    def ids(self) -> Collection[str]:
        """Returns every waiting request."""
        return self._tenants.keys()

    def tenants(self) -> set[str]:
        """Returns the tenants that wait."""
        return set(self._tenants.values())

    def count(self, tenant_id: str) -> int:
        """Returns how many of a tenant's requests wait."""
        line = self._lines.get(tenant_id)
        return len(line.entries) if line else 0

    def of(self, tenant_id: str) -> tuple[str, ...]:
        """Returns a tenant's waiting requests, oldest first."""
        line = self._lines.get(tenant_id)
        return tuple(request_id for _, request_id in line.entries) if line else ()

    def _forget_what_passed(self) -> None:
        """Drops tenants whose history no longer matters, all of them when nobody waits."""
        if not self._tenants:
            self._lines.clear()
            self._virtual_time = 0.0
