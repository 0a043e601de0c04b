"""The lease in force, and what each tenant may hold under it; pure, ``now`` is an argument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reasonserve.errors import UnavailableError
from reasonserve.replica.sizing import TenantTerms


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


class LeaseTerms:
    """What the lease allows at this replica.

    A tenant's *home share* is the part of its guarantee that belongs to this replica, in proportion to the pools
    (taken to be equal): the most that it can always get here.

    Args:
        pool_slots: Slots of the engine's KV pool.

    Attributes:
        home_total: Sum of the home shares; at most the pool.
    """

    def __init__(self, *, pool_slots: int) -> None:
        self._pool_slots = pool_slots
        self._lease: Lease | None = None
        self._lapses_at = 0.0
        self._home: dict[str, int] = {}
        self.home_total = 0

    def apply(self, lease: Lease, *, granted_at: float) -> None:
        """Puts a lease in force, in place of the one before.

        While that one is in force a lease of an older epoch changes nothing: it is the word of a controller that
        no longer leads.

        Args:
            lease: The lease.
            granted_at: When the last report before it was sent; counted from there, the lease lapses here
                no later than at the controller.
        """
        if self._lease is not None and lease.epoch < self._lease.epoch and granted_at < self._lapses_at:
            return
        self._lease = lease
        self._lapses_at = granted_at + lease.ttl_s
        guaranteed = sum(terms.guaranteed_slots for terms in lease.tenants.values())
        whole = max(self._pool_slots * max(1, lease.num_replicas), guaranteed, 1)
        shares = ((t, terms.guaranteed_slots * self._pool_slots // whole) for t, terms in lease.tenants.items())
        self._home = {tenant_id: share for tenant_id, share in shares if share}
        self.home_total = sum(self._home.values())

    @property
    def home_shares(self) -> Mapping[str, int]:
        """Home shares by tenant id; tenants without one are left out. They sum to at most the pool."""
        return self._home

    @property
    def ttl_s(self) -> float:
        """How long a lease lasts; 0 before the first."""
        return self._lease.ttl_s if self._lease else 0.0

    def of(self, tenant_id: str) -> TenantTerms:
        """Returns a tenant's terms.

        Raises:
            UnavailableError: No lease has come yet, or the lease does not name the tenant.
        """
        if self._lease is None:
            raise UnavailableError("The replica has no lease from the controller yet; retry in a few seconds.")
        terms = self._lease.tenants.get(tenant_id)
        if terms is None:
            raise UnavailableError("The replica's lease does not name this tenant yet; retry in a few seconds.")
        return terms

    def limit_slots(self, tenant_id: str) -> int:
        """Returns a tenant's limit; 0 where the lease does not name it."""
        terms = self._lease.tenants.get(tenant_id) if self._lease else None
        return terms.limit_slots if terms else 0

    def allowed_slots(self, tenant_id: str, *, now: float) -> int:
        """Returns the slots that a tenant may reserve here in all.

        While the lease is in force, what it says; the only replica of a cluster knows besides that the whole
        guarantee is due here, and grants it without asking. A lapsed lease leaves each tenant its guarantee divided
        by the replicas last known, and a guaranteed one at least one slot. Never more than the tenant's limit.

        Raises:
            UnavailableError: As ``of``.
        """
        terms = self.of(tenant_id)
        assert self._lease is not None
        if now >= self._lapses_at:
            slots = terms.guaranteed_slots // max(1, self._lease.num_replicas)
            slots = max(slots, min(1, terms.guaranteed_slots))
        elif self._lease.num_replicas == 1:
            slots = max(terms.slots, self._home.get(tenant_id, 0))
        else:
            slots = terms.slots
        return min(slots, terms.limit_slots)

    def in_force(self, *, now: float) -> dict[str, int]:
        """Returns the slots that the lease allows, by tenant id; empty where there is none or it has lapsed."""
        if self._lease is None or now >= self._lapses_at:
            return {}
        return {tenant_id: self.allowed_slots(tenant_id, now=now) for tenant_id in self._lease.tenants}

    def is_known(self, tenant_id: str) -> bool:
        """Returns whether the lease names a tenant."""
        return self._lease is not None and tenant_id in self._lease.tenants
