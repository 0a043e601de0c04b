"""What replicas were leased when: from what they said themselves, put together by time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Told:
    """What one replica said.

    Attributes:
        events: Its lines, in order.
        ended_at: When it was killed; infinity while it lives.
    """

    events: list[dict[str, Any]] = field(default_factory=list)
    ended_at: float = float("inf")

    def count(self, kind: str, since: float = 0.0) -> int:
        """Returns how many events of a kind there were since a time."""
        return sum(event["kind"] == kind and event["at"] >= since for event in self.events)

    def slots(self, at: float, what: str = "allowed") -> Mapping[str, int]:
        """Returns the slots of the lease that was in force at a time; empty where it had lapsed or it was dead.

        Args:
            at: The time.
            what: "allowed", or "carried": those of them that requests hold that were admitted under the guaranteed
                share while no lease was in force.
        """
        leases = [event for event in self.events if event["kind"] == "lease" and event["at"] <= at]
        if not leases or at >= min(leases[-1]["until"], self.ended_at):
            return {}
        slots: Mapping[str, int] = leases[-1][what]
        return slots


def total(replicas: Sequence[Told], tenant_id: str, at: float, what: str = "allowed") -> int:
    """Returns what all replicas were allowed together for a tenant at a time."""
    return sum(told.slots(at, what).get(tenant_id, 0) for told in replicas)


def over_granted(replicas: Sequence[Told], limits: Mapping[str, int]) -> tuple[int, int]:
    """Returns the most slots by which a tenant's leases together exceeded its limit at any time.

    Returns:
        Those that were granted, which must be none, and those that cover what a replica had admitted under the
        guaranteed share while its lease had lapsed, which no lease can take back.
    """
    # Sums only grow when somebody puts a lease in force.
    moments = sorted({event["at"] for told in replicas for event in told.events if event["kind"] == "lease"})
    granted, carried = [0], [0]
    for at in moments:
        for tenant_id, limit in limits.items():
            excess = total(replicas, tenant_id, at) - limit
            kept = total(replicas, tenant_id, at, "carried")
            granted.append(excess - kept)
            carried.append(min(excess, kept))
    return max(granted), max(carried)


def recovered_s(replicas: Sequence[Told], limits: Mapping[str, int], since: float, *, all_told: bool) -> float:
    """Returns the seconds from a time until every tenant had nine tenths of its limit again.

    The last tenth is on its way from replica to replica while demand moves.

    Args:
        replicas: The replicas that should be alive.
        limits: What each tenant should have together.
        since: The time.
        all_told: Whether each replica must have been told anew.

    Returns:
        Infinity where they never had.
    """
    moments = sorted(e["at"] for told in replicas for e in told.events if e["kind"] == "lease" and e["at"] >= since)
    for at in moments:
        told_anew = all(any(_is_fresh(event, since, at) for event in told.events) for told in replicas)
        whole = all(10 * total(replicas, t, at) >= 9 * limit for t, limit in limits.items())
        if whole and (told_anew or not all_told):
            return float(at - since)
    return float("inf")


def _is_fresh(event: Mapping[str, Any], since: float, at: float) -> bool:
    """Returns whether a lease was put in force between two times and is in force at the second."""
    return bool(event["kind"] == "lease" and since <= event["at"] <= at < event["until"])
