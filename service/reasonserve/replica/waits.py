"""How much a request needs at least, how long it will wait, and what it is told when it is refused."""

from __future__ import annotations

from collections.abc import Mapping

from reasonserve.errors import BudgetExhaustedError
from reasonserve.replica.book import Book
from reasonserve.replica.demand import Demand
from reasonserve.replica.fair_queue import FairQueue
from reasonserve.replica.lease import LeaseTerms
from reasonserve.replica.pressure import Pressure
from reasonserve.replica.request import Candidate

FULL_WAIT_S = 0.25
"""How long the wait behind a full queue is told as it was."""


class Waits:
    """Looks at the state of an admission; changes nothing but the record of refused demand.

    Args:
        terms: The lease.
        book: What is reserved.
        queue: Who waits, in order.
        waiting: Who waits, by request id.
        demand: What is asked for and released.
        pressure: How much room there is.
    """

    def __init__(
        self,
        *,
        terms: LeaseTerms,
        book: Book,
        queue: FairQueue,
        waiting: Mapping[str, Candidate],
        demand: Demand,
        pressure: Pressure,
    ) -> None:
        self._terms = terms
        self._book = book
        self._queue = queue
        self._waiting = waiting
        self._demand = demand
        self._pressure = pressure
        self._full_waits: dict[
            str, tuple[float, float]
        ] = {}  # (looked at again from, wait) of tenants with full queues

    def refusal(self, candidate: Candidate, wait_s: float, now: float) -> BudgetExhaustedError:
        """Returns what to tell a client that is refused, and counts its demand until it is due again."""
        tenant_id = candidate.entry.tenant_id
        wished = candidate.most_slots(candidate.kv.budget_tokens)
        self._demand.refused(tenant_id, wished, until=now + wait_s + self._terms.ttl_s / 3)
        allowed = self._terms.allowed_slots(tenant_id, now=now) if self._terms.is_known(tenant_id) else 0
        return BudgetExhaustedError(
            f"The request needs {self.least(candidate)} KV slots; the tenant may hold {allowed} at this replica and "
            f"holds {self._book.account(tenant_id).reserved}. Retry in {wait_s:.1f} s, or ask for less.",
            retry_after_s=wait_s,
        )

    def behind(self, tenant_id: str, now: float) -> float:
        """Returns when the last of a tenant's waiting requests is expected to be admitted, looked at now and then.

        A tenant that offers many times what it may hold is refused all the time, and that must cost the others little.
        """
        until, wait_s = self._full_waits.get(tenant_id, (now, 0.0))
        if now >= until:
            last = self._waiting[self._queue.of(tenant_id)[-1]]
            wait_s = self.wait_s(last, now, unknown_s=self._terms.ttl_s)
            self._full_waits[tenant_id] = (now + FULL_WAIT_S, wait_s)
        return wait_s

    def least(self, candidate: Candidate) -> int:
        """Returns the fewest slots that a request can be admitted with now."""
        tenant_id = candidate.entry.tenant_id
        if not self._terms.is_known(tenant_id):
            return candidate.most_slots(candidate.kv.budget_tokens)
        least = candidate.least_tokens(self._terms.of(tenant_id))
        return candidate.slots(least, self._book.account(tenant_id).blocks)

    def is_within_home(self, candidate: Candidate) -> bool:
        """Returns whether a request fits into what is left of its tenant's home share."""
        tenant_id = candidate.entry.tenant_id
        home = self._terms.home_shares.get(tenant_id, 0)
        return home > 0 and self._book.account(tenant_id).reserved + self.least(candidate) <= home

    def wait_s(self, candidate: Candidate, now: float, *, unknown_s: float) -> float:
        """Returns when a waiting request is expected to be admitted: all that its tenant wants before it counts."""
        tenant_id = candidate.entry.tenant_id
        ahead = 0
        for request_id in self._queue.of(tenant_id):
            ahead += self.least(self._waiting[request_id])
            if request_id == candidate.entry.request_id:
                break
        lacking = ahead - self._pressure.pool_room()
        wait_s = self._demand.wait_s(lacking, None, self._book, now=now, unknown_s=unknown_s)
        if self._terms.is_known(tenant_id):
            lacking = ahead - self._pressure.lease_room(tenant_id, now=now)
            by_lease = self._demand.wait_s(lacking, tenant_id, self._book, now=now, unknown_s=unknown_s)
            wait_s = max(wait_s, by_lease)
        return wait_s
