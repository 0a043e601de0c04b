"""How much room a tenant has in the pool, and which budgets move to make room or to fill it."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator

from reasonserve.replica.book import Book
from reasonserve.replica.demand import Demand
from reasonserve.replica.lease import LeaseTerms
from reasonserve.replica.squeeze import Bounded, freed, plan_growth, plan_squeeze

GROW_AFTER_S = 1.0
"""A squeezed tenant's budgets stay where they are for so long: what grows at once is squeezed again at once."""
SQUEEZE_STEPS = 20
"""Decode steps within which an engine frees what was squeezed: 16 queries are captured, and the message travels."""
LEAST_PENDING_S, MOST_PENDING_S = 0.1, 10.0
GROW_STEP_TOKENS = 16
"""Smaller steps are not worth a message to the engine."""


class Pressure:
    """Moves budgets of running requests; the new ones are collected until ``take``.

    Args:
        pool_slots: Slots of the engine's KV pool.
        terms: The lease.
        book: What is reserved.
        demand: What is asked for.
        buffer_tokens: Most tail slots of a request between two rounds.
    """

    def __init__(self, *, pool_slots: int, terms: LeaseTerms, book: Book, demand: Demand, buffer_tokens: int) -> None:
        self._pool_slots = pool_slots
        self._terms = terms
        self._book = book
        self._demand = demand
        self._buffer_tokens = buffer_tokens
        self._budgets: dict[str, int] = {}
        self._squeezed_at: dict[str, float] = {}
        self._claims: dict[str, int] = {}
        self._pending: deque[tuple[float, int]] = deque()  # (free from, slots) of squeezes under way
        self._sums = (-1, 0, 0)  # (version of the book, firm slots lent, headroom), over all tenants
        self._burst_s = LEAST_PENDING_S  # time of a squeeze when the sums were taken

    def take(self) -> dict[str, int]:
        """Returns, once, the budgets that moved, by request id."""
        budgets, self._budgets = self._budgets, {}
        return budgets

    def forget(self, request_id: str) -> None:
        """Drops what was to be told of a request that ended."""
        self._budgets.pop(request_id, None)

    def claim(self, slots: dict[str, int]) -> None:
        """Says what tenants' waiting requests need, by tenant id; kept free for them inside their home shares."""
        self._claims = slots
        self._sums = (-1, 0, 0)

    def lease_room(self, tenant_id: str, *, now: float) -> int:
        """Returns what a tenant may reserve on top, pool aside; negative when its lease shrank."""
        return self._terms.allowed_slots(tenant_id, now=now) - self._book.account(tenant_id).reserved

    def pool_room(self) -> int:
        """Returns the slots that nobody has reserved."""
        return self._pool_slots - self._book.total

    def pending_slots(self, *, now: float) -> int:
        """Returns squeezed slots that the engine is taken not to have freed yet.

        Nobody may borrow them: a request that the engine cannot start yet would hold up all that come after it.
        """
        while self._pending and self._pending[0][0] <= now:
            self._pending.popleft()
        return sum(slots for _, slots in self._pending)

    def room(self, tenant_id: str, firm: int, *, now: float) -> int:
        """Returns the slots that a new request may take without a squeeze.

        Args:
            tenant_id: Whose request it is.
            firm: Slots of it that no squeeze can call back.
            now: The time.
        """
        lease_room, pool_room = self.lease_room(tenant_id, now=now), self.pool_room()
        within = min(lease_room, self._home_room(tenant_id), pool_room)
        if not self._can_be_called_back(tenant_id, firm):
            return within
        lendable = pool_room - self._headroom(besides=tenant_id) - self.pending_slots(now=now)
        return max(within, min(lease_room, lendable))

    def squeeze_for(self, tenant_id: str, slots: int, firm: int, *, now: float) -> bool:
        """Squeezes running requests so that a new one fits; returns whether it does now.

        Where it would not fit even so, nobody is squeezed, except for a tenant below its home share: tenants above
        theirs make room for it in any case, so that the controller finds room to lease.
        """
        own = [c for c, is_named in self._bounded(tenant_id) if not is_named]
        if slots > self._home_room(tenant_id):
            return self._squeeze_own(tenant_id, own, slots, firm, now)
        by_lease = max(0, slots - self.lease_room(tenant_id, now=now))
        plan = plan_squeeze(own, by_lease) if by_lease else {}
        own_freed = freed(own, plan)
        self._call_back(slots - self.pool_room() - own_freed, besides=tenant_id, now=now)
        if own_freed < by_lease or self.pool_room() + own_freed < slots:
            return False
        self._move(plan, tenant_id, now)
        return True

    def _squeeze_own(self, tenant_id: str, own: list[Bounded], slots: int, firm: int, now: float) -> bool:
        """Squeezes a tenant's own requests for one beyond its home share, which may have to wait for the slots."""
        lacking = slots - self.room(tenant_id, firm, now=now) - self.pending_slots(now=now)
        by_lease = slots - self.lease_room(tenant_id, now=now)
        plan = plan_squeeze(own, max(lacking, by_lease)) if max(lacking, by_lease) > 0 else {}
        if not self._can_be_called_back(tenant_id, firm) or freed(own, plan) < max(lacking, by_lease):
            return False
        self._move(plan, tenant_id, now)
        return slots <= self.room(tenant_id, firm, now=now)

    def enforce_leases(self, *, now: float) -> None:
        """Squeezes whose lease shrank or lapsed."""
        for tenant_id, account in self._book.accounts.items():
            if account.requests and self._terms.is_known(tenant_id):
                excess = -self.lease_room(tenant_id, now=now)
                if excess > 0:
                    self._squeeze_all(tenant_id, excess, now)

    def rebalance(self, waiting: Collection[str], *, now: float) -> None:
        """Squeezes whose loans stand in another's way, then lets budgets grow into what is left.

        Args:
            waiting: Tenants with waiting requests: theirs do not grow.
            now: The time.
        """
        self._call_back(self._headroom() - self.pool_room(), besides=None, now=now)
        squeezed = [t for t, account in self._book.accounts.items() if account.squeezed and t not in waiting]
        for tenant_id in squeezed:
            quiet_s = now - self._squeezed_at.get(tenant_id, now)
            if quiet_s >= GROW_AFTER_S and self._terms.is_known(tenant_id):
                self._grow(tenant_id, now)

    def _call_back(self, slots: int, *, besides: str | None, now: float) -> None:
        """Squeezes tenants above their home shares, the farthest above for its weight first."""
        if slots <= 0:
            return
        homes = self._terms.home_shares
        loans = {
            t: account.reserved - homes.get(t, 0)
            for t, account in self._book.accounts.items()
            if t != besides and account.reserved > homes.get(t, 0)
        }
        for tenant_id in sorted(loans, key=lambda t: (-loans[t] / self._weight(t), t)):
            if slots <= 0:
                return
            slots -= self._squeeze_all(tenant_id, min(slots, loans[tenant_id]), now)

    def _squeeze_all(self, tenant_id: str, slots: int, now: float) -> int:
        """Squeezes any of a tenant's requests, those with a budget that the client named too; returns what it frees."""
        candidates = [c for c, _ in self._bounded(tenant_id)]
        plan = plan_squeeze(candidates, slots)
        self._move(plan, tenant_id, now)
        return freed(candidates, plan)

    def _grow(self, tenant_id: str, now: float) -> None:
        """Lets a tenant's squeezed requests grow into its room, the largest request's worth left free."""
        candidates = [c for c, _ in self._bounded(tenant_id) if c.budget < c.ceiling]
        room = self.room(tenant_id, 0, now=now) - self._demand.largest_slots(tenant_id)
        if not candidates or room <= 0:
            return
        budgets = plan_growth(candidates, room)
        worth = {
            c.request_id
            for c in candidates
            if budgets.get(c.request_id, 0) >= min(c.ceiling, c.budget + GROW_STEP_TOKENS)
        }
        for request_id in worth:
            self._set(request_id, budgets[request_id])

    def _bounded(self, tenant_id: str) -> Iterator[tuple[Bounded, bool]]:
        """Yields a tenant's requests that have a budget, and whether the client named it."""
        account = self._book.accounts.get(tenant_id)
        for reservation in account.requests.values() if account else ():
            if reservation.is_bounded:
                yield reservation.bounded(), reservation.is_named

    def _move(self, budgets: dict[str, int], tenant_id: str, now: float) -> None:
        if not budgets:
            return
        before = self._book.total
        for request_id, budget in budgets.items():
            self._set(request_id, budget)
        self._squeezed_at[tenant_id] = now
        self._pending.append((now + self.squeeze_s(), before - self._book.total))
        self._pending = deque(sorted(self._pending))

    def squeeze_s(self) -> float:
        """Returns how long the engine takes for ``SQUEEZE_STEPS``, by the rates of the requests that run."""
        rates = [rate for r in self._book.reservations() if (rate := r.release().tokens_per_s)]
        if not rates:
            return LEAST_PENDING_S
        return min(max(SQUEEZE_STEPS * len(rates) / sum(rates), LEAST_PENDING_S), MOST_PENDING_S)

    def _set(self, request_id: str, budget: int) -> None:
        self._book.set_budget(request_id, budget)
        self._budgets[request_id] = budget

    def _home_room(self, tenant_id: str) -> int:
        return self._terms.home_shares.get(tenant_id, 0) - self._book.account(tenant_id).reserved

    def _can_be_called_back(self, tenant_id: str, firm: int) -> bool:
        """Returns whether every home share could still be freed by squeezing after firm slots are lent."""
        homes = self._terms.home_shares
        home, mine = homes.get(tenant_id, 0), self._book.account(tenant_id).firm
        lent = self._all()[1] - max(0, mine - home) + max(0, mine + firm - home)
        return self._terms.home_total + lent <= self._pool_slots

    def _headroom(self, *, besides: str | None = None) -> int:
        """Returns what is kept free for tenants below their home shares: a burst of requests, and those that wait."""
        everyone = self._all()[2]
        return everyone - (self._headroom_of(besides) if besides in self._terms.home_shares else 0)

    def _headroom_of(self, tenant_id: str | None) -> int:
        if tenant_id is None:
            return 0
        return max(0, min(self._home_room(tenant_id), self._claims.get(tenant_id, 0) + self._burst(tenant_id)))

    def _all(self) -> tuple[int, int, int]:
        """Returns the sums over all tenants, taken anew after a change."""
        if self._sums[0] != self._book.version:
            homes = self._terms.home_shares
            self._burst_s = self.squeeze_s()
            lent = sum(max(0, account.firm - homes.get(t, 0)) for t, account in self._book.accounts.items())
            self._sums = (self._book.version, lent, sum(map(self._headroom_of, homes)))
        return self._sums

    def _burst(self, tenant_id: str) -> int:
        default = self._terms.of(tenant_id).default_tokens + 2 * self._buffer_tokens
        return self._demand.burst_slots(tenant_id, default, window_s=self._burst_s)

    def _weight(self, tenant_id: str) -> int:
        return self._terms.of(tenant_id).weight if self._terms.is_known(tenant_id) else 1
