"""Leases of live replicas: who holds how much until when. Volatile: replicas report anew after a restart."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from reasonserve.controller.records import Report
from reasonserve.controller.settle import Settler
from reasonserve.controller.shares import Shares
from reasonserve.errors import InvalidRequestError, StaleEtagError

_MOST_UNCONFIRMED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """A replica with a live lease.

    Attributes:
        epoch: Identity of this lease; grows whenever the replica is leased anew.
        deadline_s: When the lease lapses, on the caller's clock.
        connected: Whether its stream is open. A lost one keeps what it may believe until the deadline.
        leases: Slots by tenant, as last split; empty until `settled`.
        settled: Whether the memory was split since the replica was leased.
        seq: Number of the last answer.
        told: What it may believe: leases with the number of the answer that told them, oldest first. The
            first is in force or was; the others are not confirmed.
    """

    report: Report
    epoch: int
    deadline_s: float
    connected: bool = True
    leases: Mapping[str, int] = field(default_factory=dict)
    settled: bool = False
    seq: int = 0
    told: tuple[tuple[int, Mapping[str, int]], ...] = ()

    @property
    def believed(self) -> Mapping[str, int]:
        """Most slots by tenant that it may take to be leased to it."""
        if len(self.told) == 1:
            return self.told[0][1]
        return _largest(*(leases for _, leases in self.told))


class LeaseBook:
    """Live replicas and their leases. Illegal transitions raise and change nothing.

    A replica that held a lease before a restart serves on it without our knowledge. Until each
    of these is back or its lease must have lapsed, leases cover what is reserved or claimed and no
    more, so that no tenant passes its limit.

    Args:
        lease_ttl_s: A lease lapses this long after its last report.
        missing: Replicas that held a lease before the restart.
        now: The caller's clock, in seconds.
    """

    def __init__(self, *, lease_ttl_s: float, missing: frozenset[str] = frozenset(), now: float = 0.0) -> None:
        self.lease_ttl_s = lease_ttl_s
        self._missing = dict.fromkeys(missing, now + lease_ttl_s)
        self._replicas: dict[str, Replica] = {}
        self._settler = Settler()
        self._none_lapses_before = now
        self.dirty = False
        """Whether the memory is to be split anew."""

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

    @property
    def withheld(self) -> bool:
        """Whether the last split granted less than it would, for slots that replicas may still believe in."""
        return self._settler.withheld

    def open(self, report: Report, *, epoch: int, now: float, seq: int = 0) -> None:
        """Leases a replica anew; an older stream of the same replica loses its lease to this one.

        What the older one may believe, and what the replica claims, stays its own until it is told otherwise.
        Answers are numbered on from `seq`, the last one on the same stream.
        """
        known = self._replicas.get(report.replica_id)
        if known is not None and known.epoch >= epoch:
            raise StaleEtagError(f"Replica {report.replica_id} is leased in epoch {known.epoch}; {epoch} is older.")
        claimed = {t: use.leased_slots for t, use in report.tenants.items() if use.leased_slots}
        if sum(claimed.values()) > report.capacity_slots:
            claimed = {}
        believed = _largest(known.believed if known else {}, claimed)
        self._missing.pop(report.replica_id, None)
        self._replicas[report.replica_id] = Replica(
            report=report, epoch=epoch, deadline_s=now + self.lease_ttl_s, seq=seq, told=((seq, believed),)
        )
        self.dirty = True

    def renew(self, report: Report, *, epoch: int, now: float) -> None:
        """Takes a report and extends the lease.

        Raises:
            StaleEtagError: A newer stream holds the replica's lease, or it lapsed.
            InvalidRequestError: An answer is confirmed that was never sent.
        """
        known = self._held(report.replica_id, epoch)
        seq = report.applied_seq
        if seq is not None and not 0 <= seq <= known.seq:
            raise InvalidRequestError(
                f"applied_seq: given {seq}; allowed is the `seq` of an answer on this stream, 0 to {known.seq}.",
                field="applied_seq",
            )
        told = _confirmed(known.told, known.seq if seq is None else seq)
        self._replicas[report.replica_id] = replace(known, report=report, deadline_s=now + self.lease_ttl_s, told=told)
        freed = told is not known.told and self.withheld
        self.dirty = self.dirty or freed or not _same_load(report, known.report)

    def tell(self, replica_id: str) -> int:
        """Notes that the replica's leases are sent to it; returns the answer's number."""
        known = self._replicas[replica_id]
        seq, told = known.seq + 1, known.told
        if known.report.applied_seq is None:
            told = ((seq, known.leases),)
            self.dirty = self.dirty or (self.withheld and told[0][1] != known.believed)
        elif told[-1][1] != known.leases:
            told = _shortened((*told, (seq, known.leases)))
        self._replicas[replica_id] = replace(known, seq=seq, told=told)
        return seq

    def disconnect(self, replica_id: str, *, epoch: int) -> None:
        """Notes that a stream ended; does nothing where a newer one holds the lease or it lapsed."""
        known = self._replicas.get(replica_id)
        if known is not None and known.epoch == epoch:
            self._replicas[replica_id] = replace(known, connected=False, leases=known.believed)

    def holds(self, replica_id: str, epoch: int) -> bool:
        """Returns whether the replica's lease is still of this epoch."""
        known = self._replicas.get(replica_id)
        return known is not None and known.epoch == epoch

    def lapsed(self, now: float) -> tuple[str, ...]:
        """Returns the replicas whose deadline has passed, missing ones included, by id."""
        # Deadlines are only ever put off, so that most calls need not look at them.
        if now < self._none_lapses_before:
            return ()
        deadlines = {**self._missing, **{r: replica.deadline_s for r, replica in self._replicas.items()}}
        earliest = min(deadlines.values(), default=now + self.lease_ttl_s)
        self._none_lapses_before = min(earliest, now + self.lease_ttl_s)
        return tuple(sorted(r for r, deadline_s in deadlines.items() if deadline_s <= now))

    def drop(self, replica_id: str) -> None:
        """Forgets a replica; its slots return."""
        self._missing.pop(replica_id, None)
        self._replicas.pop(replica_id, None)
        self.dirty = True

    def settle(self, shares: Shares, touched: Collection[str] = ()) -> frozenset[str]:
        """Splits the memory anew.

        Args:
            shares: The tenants.
            touched: Tenants whose terms changed.

        Returns:
            Replicas that are to be told before their next renewal: one is leased more of what it wants, has
            slots that another waits for, or knows terms that changed.
        """
        self.dirty = False
        fresh = self._settler.settle(self._replicas, shares, frozen=bool(self._missing))
        # What the last answer said is not said again.
        known = {r: self._replicas[r] for r in self._settler.urgent}
        urgent = {r for r, replica in known.items() if replica.told[-1][1] != fresh.get(r, replica.leases)}
        for replica_id, replica in self._replicas.items():
            if not replica.connected:
                continue
            if replica_id in fresh or not replica.settled:
                leases = fresh.get(replica_id, replica.leases)
                self._replicas[replica_id] = replace(replica, leases=leases, settled=True)
            if any(tenant_id in replica.leases for tenant_id in touched):
                urgent.add(replica_id)
        return frozenset(urgent)

    def _held(self, replica_id: str, epoch: int) -> Replica:
        known = self._replicas.get(replica_id)
        if known is None or known.epoch != epoch:
            raise StaleEtagError(
                f"The lease of replica {replica_id} in epoch {epoch} lapsed or went to a newer stream.",
                field="replica_id",
            )
        return known


def _largest(*leases: Mapping[str, int]) -> Mapping[str, int]:
    result: dict[str, int] = {}
    for part in leases:
        for tenant_id, slots in part.items():
            result[tenant_id] = max(slots, result.get(tenant_id, 0))
    return result


def _confirmed(told: tuple[tuple[int, Mapping[str, int]], ...], seq: int) -> tuple[tuple[int, Mapping[str, int]], ...]:
    """Returns what may be believed once an answer is in force: what it told, and what was told since."""
    first = max(i for i, (number, _) in enumerate(told) if number <= seq or i == 0)
    return told[first:] if first else told


def _shortened(
    told: tuple[tuple[int, Mapping[str, int]], ...],
) -> tuple[tuple[int, Mapping[str, int]], ...]:
    """Joins the oldest unconfirmed answers of a replica that confirms none for long; errs towards more."""
    if len(told) <= _MOST_UNCONFIRMED:
        return told
    first, (_, second), (seq, third), *rest = told
    return (first, (seq, _largest(second, third)), *rest)


def _same_load(new: Report, old: Report) -> bool:
    """Returns whether the split would be the same for both."""
    if (new.capacity_slots, new.model, new.incremental) != (old.capacity_slots, old.model, old.incremental):
        return False
    return new.tenants.keys() == old.tenants.keys() and all(
        (use.reserved_slots, use.wanted_slots) == (old.tenants[t].reserved_slots, old.tenants[t].wanted_slots)
        for t, use in new.tenants.items()
    )
