"""Who is admitted to a replica's KV pool, with which budget, and who waits.

A pure state machine: no clock, no I/O; ``now`` is an argument in seconds of any monotonic clock. Everyone goes
through one weighted fair queue. What is decided besides, grants and budgets of running requests that move, is
collected until ``take``. A request that does not fit is helped in this order:

1. its own budget shrinks towards the tenant's smallest, unless the client named it;
2. running requests are squeezed: its tenant's own, and for a tenant below its home share (see ``LeaseTerms``) those
   of tenants above theirs;
3. it waits, within its tenant's limits and its client's patience;
4. it is refused and told when room is expected.

What a tenant holds beyond its home share is a loan, and only what can be called back is lent: the slots that
loans keep when they are squeezed as far as they can be never reach into anybody's home share, and as much as each
guaranteed tenant lately asked for within the time of a squeeze is free, for that is how long squeezed slots take.
"""

from __future__ import annotations

from reasonserve.errors import BudgetExhaustedError
from reasonserve.replica.book import Book
from reasonserve.replica.demand import Demand, TenantUse
from reasonserve.replica.fair_queue import FairQueue
from reasonserve.replica.lease import Lease, LeaseTerms
from reasonserve.replica.pressure import Pressure
from reasonserve.replica.request import Candidate, Entry, Grant
from reasonserve.replica.waits import Waits

__all__ = ["Admission", "Entry", "Grant", "Lease", "TenantUse"]


class Admission:
    """Admission to one replica under its lease.

    Args:
        pool_slots: Slots of the engine's KV pool.
        buffer_tokens: Most tail slots of a request between two rounds.
        now: The time.
    """

    def __init__(self, *, pool_slots: int, buffer_tokens: int, now: float = 0.0) -> None:
        self._pool_slots = pool_slots
        self._buffer_tokens = buffer_tokens
        self._terms = LeaseTerms(pool_slots=pool_slots)
        self._book = Book()
        self._queue = FairQueue()
        self._waiting: dict[str, Candidate] = {}
        self._demand = Demand(now=now)
        self._pressure = Pressure(
            pool_slots=pool_slots,
            terms=self._terms,
            book=self._book,
            demand=self._demand,
            buffer_tokens=buffer_tokens,
        )
        self._waits = Waits(
            terms=self._terms,
            book=self._book,
            queue=self._queue,
            waiting=self._waiting,
            demand=self._demand,
            pressure=self._pressure,
        )
        self._granted: dict[str, Grant] = {}

    def apply_lease(self, lease: Lease, *, granted_at: float, now: float) -> None:
        """Puts a lease in force; see ``LeaseTerms.apply``. A smaller one squeezes whom it was taken from."""
        self._terms.apply(lease, granted_at=granted_at)
        self._pressure.enforce_leases(now=now)
        self._settle(now)

    def allowed_slots(self, tenant_id: str, *, now: float) -> int:
        """Returns the slots that a tenant may reserve here in all; see ``LeaseTerms``."""
        return self._terms.allowed_slots(tenant_id, now=now)

    def leases_in_force(self, *, now: float) -> dict[str, int]:
        """Returns the slots that the lease allows, by tenant id; empty where there is none or it has lapsed."""
        return self._terms.in_force(now=now)

    def enter(self, entry: Entry, *, now: float) -> None:
        """Takes a request in: it is granted at once, or waits.

        Raises:
            InvalidRequestError: The budget lies outside the tenant's range, or the request can never fit.
            BudgetExhaustedError: It does not fit now, and may not wait for as long as that is expected to last.
            UnavailableError: No lease has come yet, or the lease does not name the tenant.
        """
        assert entry.request_id not in self._book
        terms = self._terms.of(entry.tenant_id)
        candidate = Candidate.of(entry, terms, buffer_tokens=self._buffer_tokens, now=now)
        candidate.refuse_what_never_fits(terms, self._pool_slots)
        if 0 < terms.queue.requests <= self._queue.count(entry.tenant_id) and not self._waits.is_within_home(candidate):
            raise self._waits.refusal(candidate, self._waits.behind(entry.tenant_id, now), now)
        wished = candidate.most_slots(candidate.kv.budget_tokens)
        self._demand.asked(entry.tenant_id, wished, now=now)
        self._waiting[entry.request_id] = candidate
        self._queue.push(entry.request_id, entry.tenant_id, cost=wished, weight=terms.weight)
        self._settle(now)
        if entry.request_id in self._queue and not self._may_wait(candidate, now):
            raise self.give_up(entry.request_id, now=now)

    def patience_s(self, request_id: str) -> float:
        """Returns how long a request that has just begun to wait may do so."""
        entry = self._waiting[request_id].entry
        longest = self._terms.of(entry.tenant_id).queue.wait_s
        return longest if entry.patience_s is None else min(longest, entry.patience_s)

    def give_up(self, request_id: str, *, now: float) -> BudgetExhaustedError:
        """Takes a waiting request out, and returns what to tell its client."""
        candidate = self._waiting[request_id]
        wait_s = self._waits.wait_s(candidate, now, unknown_s=self._terms.ttl_s)
        self._leave_queue(request_id)
        return self._waits.refusal(candidate, wait_s, now)

    def progress(self, request_id: str, output_tokens: int, *, now: float) -> None:
        """Notes how far a request has come, for the waits that clients are told."""
        reservation = self._book.get(request_id)
        if reservation is not None:
            reservation.output_tokens, reservation.updated_at = output_tokens, now

    def prompt_gone(self, request_id: str, *, now: float) -> None:
        """Settles a request whose evictable prompt the engine let go: at its first round."""
        reservation = self._book.get(request_id)
        if reservation is not None and reservation.prompt_slots and reservation.is_evictable:
            before = reservation.prompt_slots
            self._book.forget_prompt(request_id)
            self._demand.released(reservation.tenant_id, before, now=now)
            self._settle(now)

    def leave(self, request_id: str, *, now: float) -> bool:
        """Gives back whatever a request has here, a place in the queue included; False when it has nothing."""
        if request_id in self._queue:
            self._leave_queue(request_id)
            self._settle(now)
            return True
        reservation = self._book.get(request_id)
        if reservation is None:
            return False
        self._granted.pop(request_id, None)
        self._pressure.forget(request_id)
        self._demand.released(reservation.tenant_id, self._book.remove(request_id), now=now)
        self._settle(now)
        return True

    def tick(self, *, now: float) -> None:
        """Looks at everything again: a lease may have lapsed, and budgets grow back only after a quiet time."""
        self._pressure.enforce_leases(now=now)
        self._settle(now)

    def take(self) -> tuple[dict[str, Grant], dict[str, int]]:
        """Returns, once, the grants and the new budgets of running requests, by request id."""
        granted, self._granted = self._granted, {}
        return granted, self._pressure.take()

    @property
    def is_urgent(self) -> bool:
        """Whether a tenant below its home share waits, which the controller should hear at once."""
        return any(self._waits.is_within_home(self._waiting[request_id]) for _, request_id in self._queue.heads())

    @property
    def queued_requests(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    def reserved_by(self, tenant_id: str) -> int:
        """Returns the slots that a tenant's requests hold."""
        account = self._book.accounts.get(tenant_id)
        return account.reserved if account else 0

    def budget_of(self, request_id: str) -> int | None:
        """Returns the budget of a running request now, or None."""
        reservation = self._book.get(request_id)
        return None if reservation is None else reservation.budget

    def free_slots(self, tenant_id: str, *, now: float) -> int:
        """Returns the slots that a tenant could still reserve here without a squeeze; 0 where it is not known."""
        if not self._terms.is_known(tenant_id):
            return 0
        return max(0, self._pressure.room(tenant_id, 0, now=now))

    def use(self, *, now: float) -> tuple[TenantUse, ...]:
        """Returns every tenant's use and demand, by tenant id; demand that did not come back is forgotten."""
        queued: dict[str, list[int]] = {}
        for candidate in self._waiting.values():
            queued.setdefault(candidate.entry.tenant_id, []).append(candidate.most_slots(candidate.kv.budget_tokens))
        return self._demand.use(self._book, queued, self._terms.limit_slots, now=now)

    def check_integrity(self) -> None:
        """Recomputes every sum.

        Raises:
            AssertionError: A sum is wrong, or more is reserved than the pool has.
        """
        self._book.check_integrity()
        assert self._book.total <= self._pool_slots
        assert set(self._waiting) == set(self._queue.ids())

    def _settle(self, now: float) -> None:
        """Admits whom it can, then moves budgets to what is left."""
        self._pressure.claim(self._claims())
        while self._admit_next(now):
            self._pressure.claim(self._claims())
        self._pressure.rebalance(self._queue.tenants(), now=now)

    def _admit_next(self, now: float) -> bool:
        """Admits one request: first of tenants below their home share, then in fair order.

        A head that only the pool holds back keeps others from taking what it waits for; one that its own lease
        holds back does not.
        """
        heads = [(t, self._waiting[r]) for t, r in self._queue.heads() if self._terms.is_known(t)]
        for _, candidate in heads:
            if self._waits.is_within_home(candidate) and self._try(candidate, now):
                return True
        for tenant_id, candidate in heads:
            if self._try(candidate, now):
                return True
            if self._pressure.lease_room(tenant_id, now=now) >= self._waits.least(candidate):
                return False
        return False

    def _try(self, candidate: Candidate, now: float) -> bool:
        """Admits a request if it fits, shrunk or after a squeeze; returns whether it did."""
        entry = candidate.entry
        terms, held = self._terms.of(entry.tenant_id), self._book.account(entry.tenant_id).blocks
        least = candidate.least_tokens(terms)
        smallest = candidate.slots(least, held)
        firm = candidate.slots(min(least, terms.min_tokens), held)
        room = self._pressure.room(entry.tenant_id, firm, now=now)
        if smallest > room:
            if not self._pressure.squeeze_for(entry.tenant_id, smallest, firm, now=now):
                return False
            budget = least
        else:
            budget = candidate.largest_tokens(least, room, held)
        slots = candidate.slots(budget, held)
        self._book.add(candidate.reservation(budget, floor=terms.min_tokens, now=now))
        is_guaranteed = self.reserved_by(entry.tenant_id) <= self._terms.home_shares.get(entry.tenant_id, 0)
        self._granted[entry.request_id] = candidate.grant(budget, slots=slots, is_guaranteed=is_guaranteed, now=now)
        self._queue.serve(entry.request_id)
        del self._waiting[entry.request_id]
        return True

    def _claims(self) -> dict[str, int]:
        """Returns what the waiting requests of tenants with a home share need at least, by tenant id."""
        claims: dict[str, int] = {}
        for candidate in self._waiting.values():
            tenant_id = candidate.entry.tenant_id
            if tenant_id in self._terms.home_shares:
                claims[tenant_id] = claims.get(tenant_id, 0) + self._waits.least(candidate)
        return claims

    def _may_wait(self, candidate: Candidate, now: float) -> bool:
        """Returns whether a request may wait: in its tenant's limits, and if it is not known to wait in vain.

        A tenant below its guarantee is due room, and one that only its lease holds back may be leased more in a moment.
        """
        tenant_id = candidate.entry.tenant_id
        terms, least = self._terms.of(tenant_id), self._waits.least(candidate)
        if self._waits.is_within_home(candidate):
            return True
        if self._queue.count(tenant_id) > terms.queue.requests:
            return False
        held = self.reserved_by(tenant_id)
        if held + least <= terms.limit_slots and self._pressure.pool_room() >= least:
            return True
        return self._waits.wait_s(candidate, now, unknown_s=0.0) <= self.patience_s(candidate.entry.request_id)

    def _leave_queue(self, request_id: str) -> None:
        self._queue.remove(request_id)
        del self._waiting[request_id]
