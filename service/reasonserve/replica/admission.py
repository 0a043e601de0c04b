"""The ledger of one replica: who may hold how many KV slots, and who does.

A pure state machine: no clock, no I/O; ``now`` is an argument in seconds of any monotonic clock.
A call that raises changes nothing but the record of refused demand, which the controller asks for.

Short of room, a request that named no budget is shrunk towards the tenant's smallest; one that
named a budget gets it or is refused. Running requests are left alone and nobody queues: the
refused client is told when to come back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from reasonserve.errors import BudgetExhaustedError, InvalidRequestError, UnavailableError
from reasonserve.kv import KvRequest
from reasonserve.replica.retry import Release, retry_after_s
from reasonserve.replica.sizing import KvAsk, TenantTerms, reservation_slots, resolve_kv, shrink_to_fit


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """The controller's last word.

    Attributes:
        epoch: Identity of this replica's leasing.
        ttl_s: The lease lapses this long after the report that it answers.
        tenants: Terms by tenant id.
        num_replicas: Replicas with a live lease.
    """

    epoch: int
    ttl_s: float
    tenants: Mapping[str, TenantTerms]
    num_replicas: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TenantUse:
    """A tenant's use and demand here.

    Attributes:
        tenant_id: The tenant.
        reserved_slots: Slots reserved by admitted requests.
        wanted_slots: Slots of refused requests that are expected back.
        active_requests: Requests admitted and not finished.
        refused_requests: Requests refused for want of slots so far.
    """

    tenant_id: str
    reserved_slots: int
    wanted_slots: int
    active_requests: int
    refused_requests: int


@dataclass(kw_only=True, slots=True)
class _Reservation:
    tenant_id: str
    slots: int
    max_new_tokens: int
    admitted_at: float
    updated_at: float
    output_tokens: int = 0

    def release(self) -> Release:
        seconds = self.updated_at - self.admitted_at
        rate = self.output_tokens / seconds if self.output_tokens and seconds > 0 else None
        remaining = self.max_new_tokens - self.output_tokens
        return Release(slots=self.slots, remaining_tokens=remaining, tokens_per_s=rate)


@dataclass(slots=True)
class _Account:
    reserved: int = 0
    refused: int = 0
    wanted: list[tuple[float, int]] = field(default_factory=list)  # (expected back until, slots)


class Admission:
    """Reservations of one replica under its lease.

    Args:
        pool_slots: Slots of the engine's KV pool.
        buffer_tokens: Most tail slots of a request between two rounds.
    """

    def __init__(self, *, pool_slots: int, buffer_tokens: int) -> None:
        self._pool_slots = pool_slots
        self._buffer_tokens = buffer_tokens
        self._lease: Lease | None = None
        self._lapses_at = 0.0
        self._reservations: dict[str, _Reservation] = {}
        self._accounts: dict[str, _Account] = {}
        self._reserved = 0

    def apply_lease(self, lease: Lease, *, granted_at: float) -> None:
        """Puts a lease in force, in place of the one before.

        Args:
            lease: The lease.
            granted_at: When the last report before it was sent; counted from there, the lease lapses here
                no later than at the controller.
        """
        self._lease = lease
        self._lapses_at = granted_at + lease.ttl_s

    def allowed_slots(self, tenant_id: str, *, now: float) -> int:
        """Returns the slots that a tenant may reserve here in all.

        A lapsed lease leaves each tenant its share of its guarantee among the replicas last known.

        Raises:
            UnavailableError: No lease has come yet, or the lease does not name the tenant.
        """
        terms, lease = self._terms(tenant_id)
        slots = terms.slots if now < self._lapses_at else terms.guaranteed_slots // max(1, lease.num_replicas)
        return min(slots, terms.limit_slots)

    def admit(
        self,
        request_id: str,
        tenant_id: str,
        ask: KvAsk,
        *,
        prompt_tokens: int,
        max_new_tokens: int,
        now: float,
        outputs: int = 1,
    ) -> KvRequest:
        """Resolves what a request asks for and reserves the slots of all its outputs, or of none.

        Returns:
            The request with its budget fixed.

        Raises:
            InvalidRequestError: The budget lies outside the tenant's range, or the request can never fit.
            BudgetExhaustedError: It does not fit now.
            UnavailableError: As ``allowed_slots``.
        """
        terms, _ = self._terms(tenant_id)
        kv = resolve_kv(ask, terms, buffer_tokens=self._buffer_tokens)
        wished = reservation_slots(kv, prompt_tokens=prompt_tokens, max_new_tokens=max_new_tokens, outputs=outputs)
        if ask.budget_tokens is None:
            free = min(
                self.allowed_slots(tenant_id, now=now) - self.reserved_by(tenant_id),
                self._pool_slots - self._reserved,
            )
            kv = shrink_to_fit(
                kv,
                free_slots=free,
                min_tokens=terms.min_tokens,
                prompt_tokens=prompt_tokens,
                max_new_tokens=max_new_tokens,
                outputs=outputs,
            )
        slots = reservation_slots(kv, prompt_tokens=prompt_tokens, max_new_tokens=max_new_tokens, outputs=outputs)
        self.reserve(request_id, tenant_id, slots, wished_slots=wished, max_new_tokens=max_new_tokens, now=now)
        return kv

    def reserve(
        self, request_id: str, tenant_id: str, slots: int, *, wished_slots: int, max_new_tokens: int, now: float
    ) -> None:
        """Reserves slots; a request id that already holds some is the caller's fault.

        Args:
            request_id: Whose reservation it is.
            tenant_id: On whose account.
            slots: What to reserve; at least 1.
            wished_slots: What the request would hold unshrunk; reported as demand if it is refused.
            max_new_tokens: Most tokens it generates.
            now: The time.

        Raises:
            InvalidRequestError: More than the tenant or the pool ever has.
            BudgetExhaustedError: More than is free now.
            UnavailableError: As ``allowed_slots``.
        """
        assert slots >= 1
        assert request_id not in self._reservations
        terms, lease = self._terms(tenant_id)
        self._refuse_what_never_fits(slots, terms)
        account = self._accounts.setdefault(tenant_id, _Account())
        allowed = self.allowed_slots(tenant_id, now=now)
        lacking, lacking_in_pool = account.reserved + slots - allowed, self._reserved + slots - self._pool_slots
        if lacking > 0 or lacking_in_pool > 0:
            wait = max(self._wait(lacking, tenant_id, lease.ttl_s), self._wait(lacking_in_pool, None, lease.ttl_s))
            account.refused += 1
            account.wanted.append((now + wait + lease.ttl_s / 3, wished_slots))
            raise BudgetExhaustedError(
                f"The request needs {slots} KV slots; the tenant may hold {allowed} at this replica and holds "
                f"{account.reserved}. Retry in {wait:.1f} s, or ask for less.",
                retry_after_s=wait,
            )
        self._reservations[request_id] = _Reservation(
            tenant_id=tenant_id, slots=slots, max_new_tokens=max_new_tokens, admitted_at=now, updated_at=now
        )
        account.reserved += slots
        self._reserved += slots

    def progress(self, request_id: str, output_tokens: int, *, now: float) -> None:
        """Notes how far a request has come, for the waits that refused clients are told."""
        reservation = self._reservations.get(request_id)
        if reservation is not None:
            reservation.output_tokens, reservation.updated_at = output_tokens, now

    def release(self, request_id: str) -> bool:
        """Gives a request's slots back; False when it holds none (any more)."""
        reservation = self._reservations.pop(request_id, None)
        if reservation is None:
            return False
        self._accounts[reservation.tenant_id].reserved -= reservation.slots
        self._reserved -= reservation.slots
        return True

    def reserved_by(self, tenant_id: str) -> int:
        """Returns the slots that a tenant's requests hold."""
        account = self._accounts.get(tenant_id)
        return account.reserved if account else 0

    def use(self, *, now: float) -> tuple[TenantUse, ...]:
        """Returns every tenant's use and demand, by tenant id; demand that did not come back is forgotten."""
        active: dict[str, int] = {}
        for reservation in self._reservations.values():
            active[reservation.tenant_id] = active.get(reservation.tenant_id, 0) + 1
        uses = []
        for tenant_id, account in sorted(self._accounts.items()):
            account.wanted = [(until, slots) for until, slots in account.wanted if now < until]
            uses.append(
                TenantUse(
                    tenant_id=tenant_id,
                    reserved_slots=account.reserved,
                    wanted_slots=sum(slots for _, slots in account.wanted),
                    active_requests=active.get(tenant_id, 0),
                    refused_requests=account.refused,
                )
            )
        return tuple(uses)

    def check_integrity(self) -> None:
        """Recomputes every sum from the reservations.

        Raises:
            AssertionError: A sum is wrong, or more is reserved than the pool has.
        """
        sums = dict.fromkeys(self._accounts, 0)
        for reservation in self._reservations.values():
            assert reservation.slots >= 1
            sums[reservation.tenant_id] += reservation.slots
        assert sums == {tenant_id: account.reserved for tenant_id, account in self._accounts.items()}
        assert self._reserved == sum(sums.values()) <= self._pool_slots

    def _terms(self, tenant_id: str) -> tuple[TenantTerms, Lease]:
        if self._lease is None:
            raise UnavailableError("The replica has no lease from the controller yet; retry in a few seconds.")
        terms = self._lease.tenants.get(tenant_id)
        if terms is None:
            raise UnavailableError("The replica's lease does not name this tenant yet; retry in a few seconds.")
        return terms, self._lease

    def _refuse_what_never_fits(self, slots: int, terms: TenantTerms) -> None:
        if slots > min(terms.limit_slots, self._pool_slots):
            raise InvalidRequestError(
                f"The request needs {slots} KV slots; the tenant's limit is {terms.limit_slots} and a replica has "
                f"{self._pool_slots}. Shorten the prompt, or lower sampling.max_new_tokens or kv.budget_tokens.",
                field="sampling.max_new_tokens",
            )

    def _wait(self, shortfall: int, tenant_id: str | None, unknown_s: float) -> float:
        """Returns when releases, of one tenant or of all, will have freed the shortfall; 0 where nothing lacks."""
        if shortfall <= 0:
            return 0.0
        running = (r.release() for r in self._reservations.values() if tenant_id in (None, r.tenant_id))
        return retry_after_s(shortfall, running, unknown_s=unknown_s)
