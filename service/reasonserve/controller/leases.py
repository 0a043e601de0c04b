"""Leases of live replicas: who holds how much until when. Volatile: replicas report anew after a restart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from reasonserve.controller.records import Report, Tenant
from reasonserve.controller.split import ReplicaLoad, TenantShare, split_leases
from reasonserve.errors import InvalidRequestError, StaleEtagError


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """A replica with a live lease.

    Attributes:
        epoch: Identity of this lease; grows whenever the replica is leased anew.
        deadline_s: When the lease lapses, on the caller's clock.
        connected: Whether its stream is open. A lost one keeps its leases until the deadline.
        leases: Slots by tenant.
    """

    report: Report
    epoch: int
    deadline_s: float
    connected: bool = True
    leases: Mapping[str, int] = field(default_factory=dict)


class LeaseBook:
    """Live replicas and their leases. Illegal transitions raise and change nothing.

    A replica that held a lease before a restart serves on it without our knowledge. Until each
    of these is back or its lease must have lapsed, leases cover what is reserved and no more, so
    that no tenant passes its limit.

    Args:
        lease_ttl_s: A lease lapses this long after its last report.
        missing: Replicas that held a lease before the restart.
        now: The caller's clock, in seconds.
    """

    def __init__(self, *, lease_ttl_s: float, missing: frozenset[str] = frozenset(), now: float = 0.0) -> None:
        self.lease_ttl_s = lease_ttl_s
        self._missing = dict.fromkeys(missing, now + lease_ttl_s)
        self._replicas: dict[str, Replica] = {}

    @property
    def replicas(self) -> Mapping[str, Replica]:
        """Live replicas by id."""
        return self._replicas

    @property
    def capacity_slots(self) -> int:
        """Sum of the live replicas' capacities; 0 while some are missing, for it is not known then."""
        return 0 if self._missing else sum(r.report.capacity_slots for r in self._replicas.values())

    @property
    def num_replicas(self) -> int:
        """Replicas that may hold a lease, missing ones included."""
        return len(self._missing) + len(self._replicas)

    @property
    def next_deadline_s(self) -> float | None:
        """When the next lease lapses; None when there is none."""
        deadlines = [r.deadline_s for r in self._replicas.values()] + list(self._missing.values())
        return min(deadlines, default=None)

    def open(self, report: Report, *, epoch: int, now: float) -> None:
        """Leases a replica anew; an older stream of the same replica loses its lease to this one."""
        known = self._replicas.get(report.replica_id)
        if known is not None and known.epoch >= epoch:
            raise StaleEtagError(f"Replica {report.replica_id} is leased in epoch {known.epoch}; {epoch} is older.")
        self._missing.pop(report.replica_id, None)
        self._replicas[report.replica_id] = Replica(report=report, epoch=epoch, deadline_s=now + self.lease_ttl_s)

    def renew(self, report: Report, *, epoch: int, now: float) -> bool:
        """Takes a report and extends the lease; returns whether the memory is to be split anew.

        Raises:
            StaleEtagError: A newer stream holds the replica's lease, or it lapsed.
            InvalidRequestError: The stream was opened for another replica.
        """
        known = self._held(report.replica_id, epoch)
        renewed = replace(known, report=report, deadline_s=now + self.lease_ttl_s)
        self._replicas[report.replica_id] = renewed
        return _load(renewed) != _load(known)

    def disconnect(self, replica_id: str, *, epoch: int) -> None:
        """Notes that a stream ended; does nothing where a newer one holds the lease or it lapsed."""
        known = self._replicas.get(replica_id)
        if known is not None and known.epoch == epoch:
            self._replicas[replica_id] = replace(known, connected=False)

    def holds(self, replica_id: str, epoch: int) -> bool:
        """Returns whether the replica's lease is still of this epoch."""
        known = self._replicas.get(replica_id)
        return known is not None and known.epoch == epoch

    def lapsed(self, now: float) -> tuple[str, ...]:
        """Returns the replicas whose deadline has passed, missing ones included, by id."""
        deadlines = {**self._missing, **{r: replica.deadline_s for r, replica in self._replicas.items()}}
        return tuple(sorted(r for r, deadline_s in deadlines.items() if deadline_s <= now))

    def drop(self, replica_id: str) -> None:
        """Forgets a replica; its slots return."""
        self._missing.pop(replica_id, None)
        self._replicas.pop(replica_id, None)

    def settle(self, tenants: Mapping[str, Tenant]) -> None:
        """Splits the memory anew; to be called after every transition and change of a tenant."""
        shares = {t: _share(tenant) for t, tenant in tenants.items()}
        if self._missing:
            shares = {t: replace(share, guaranteed=0, limit=0) for t, share in shares.items()}
        loads = {r: _load(replica) for r, replica in self._replicas.items()}
        for replica_id, leases in split_leases(shares, loads).items():
            replica = self._replicas[replica_id]
            # A lost replica serves on all of its last lease, on a deleted tenant's part too.
            if replica.connected:
                self._replicas[replica_id] = replace(replica, leases=leases)

    def _held(self, replica_id: str, epoch: int) -> Replica:
        known = self._replicas.get(replica_id)
        if known is None or known.epoch != epoch:
            if any(replica.epoch == epoch for replica in self._replicas.values()):
                raise InvalidRequestError(
                    f"replica_id: given {replica_id[:80]!r} on a stream of another replica; open a stream for each.",
                    field="replica_id",
                )
            raise StaleEtagError(
                f"The lease of replica {replica_id} in epoch {epoch} lapsed or went to a newer stream.",
                field="replica_id",
            )
        return known


def _share(tenant: Tenant) -> TenantShare:
    return TenantShare(weight=tenant.weight, guaranteed=tenant.guaranteed_slots, limit=tenant.limit_slots)


def _load(replica: Replica) -> ReplicaLoad:
    uses = replica.report.tenants
    return ReplicaLoad(
        capacity=replica.report.capacity_slots,
        reserved={t: use.reserved_slots for t, use in uses.items()},
        wanted={t: use.wanted_slots for t, use in uses.items()},
        held=None if replica.connected else replica.leases,
        leased=replica.leases,
    )
