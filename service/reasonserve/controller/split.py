"""Splits the cluster's KV memory into leases: integers, exact, deterministic.

The rule, in one paragraph. Reserved slots stay where they are. On top of them every tenant is
raised, phase by phase and only while there is room: (1) its demand at a replica up to its home
share, the part of its guarantee that is proportional to the replica's capacity; (2) its demand
anywhere up to its guarantee; (3) its demand up to its limit; then what nobody wants now is lent,
so that a first request need not ask: (4) up to the home shares, (5) up to the limits. Where a
phase does not fit, tenants share a replica, and a tenant's limit is shared over replicas, by
weighted max-min filling. A replica that lost its stream keeps its last leases untouched.

Against flapping, what is lent stays where it was: a lease that would move by no more than an
eighth does not move, so that a small change of one tenant's demand is not told to every replica.
What is reserved, guaranteed or wanted is never held back by that.

One phase costs O(T R log(T R)) a round; a round grants every target or fills a replica. A slot is a
slot whatever its replica's model, so a tenant's guarantee and limit bind over models too.

Letters: T tenants, R replicas. Units: token slots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantShare:
    """What the split needs to know of a tenant; ``guaranteed <= limit``, ``weight >= 1``."""

    weight: int
    guaranteed: int
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLoad:
    """What the split needs to know of a replica.

    Attributes:
        capacity: Slots of the pool.
        reserved: Slots of admitted requests by tenant; tenants that no longer exist included.
        wanted: Slots that waiting requests need on top, by tenant.
        held: Leases that are out of reach until they lapse; None while the stream is open.
        leased: Leases of the last split, by tenant.
    """

    capacity: int
    reserved: Mapping[str, int] = field(default_factory=dict)
    wanted: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[str, int] | None = None
    leased: Mapping[str, int] = field(default_factory=dict)


def water_fill(room: int, floors: Sequence[int], caps: Sequence[int], weights: Sequence[int]) -> list[int]:
    """Raises floors towards caps to one common level per weight.

    Weighted max-min fairness by progressive filling (Bertsekas & Gallager, Data Networks, 2nd ed.,
    section 6.5.2) in integers: entry i becomes ``clamp(level * weight_i, floor_i, cap_i)`` at the
    highest level that fits, and the remainder goes one slot each to the entries next in line,
    heaviest first. Example: room 10, floors [0, 0, 4], caps [2, 9, 9], weights [1, 1, 1] -> [2, 4, 4].

    Args:
        room: What the results may sum to.
        floors: Least value per entry; kept even where they exceed the room.
        caps: Largest value per entry; at least the floor.
        weights: At least 1.

    Returns:
        Values that sum to ``max(sum(floors), min(room, sum(caps)))``.
    """
    if sum(caps) <= room:
        return list(caps)
    taken = sum(floors)
    if taken >= room:
        return list(floors)
    values = list(floors)
    free = [i for i, (low, high) in enumerate(zip(floors, caps, strict=True)) if low < high]
    entries = [(floors[i], caps[i], weights[i]) for i in free]
    room -= taken - sum(low for low, _, _ in entries)
    total_weight = sum(weight for _, _, weight in entries)

    def at(level: int) -> list[int]:
        # Steps of 1 / total_weight: no entry grows by more than one slot from level to level.
        return [max(low, min(high, level * weight // total_weight)) for low, high, weight in entries]

    fits, exceeds = 0, (max(high for _, high, _ in entries) + 1) * total_weight
    while exceeds - fits > 1:
        middle = (fits + exceeds) // 2
        fits, exceeds = (middle, exceeds) if sum(at(middle)) <= room else (fits, middle)
    found, following = at(fits), at(exceeds)
    for i, value in zip(free, found, strict=True):
        values[i] = value
    grows = (i for i, value, after in zip(free, found, following, strict=True) if after > value)
    for i in sorted(grows, key=lambda i: (-weights[i], i))[: room - sum(found)]:
        values[i] += 1
    return values


def split_leases(tenants: Mapping[str, TenantShare], replicas: Mapping[str, ReplicaLoad]) -> dict[str, dict[str, int]]:
    """Returns the leases, ``{replica_id: {tenant_id: slots}}``, for every tenant at every replica.

    A replica's leases sum to at most its capacity and a tenant's to at most its limit, unless
    what is reserved or held already exceeds that; then nothing is added there.
    """
    if not (tenants and replicas):
        return {replica_id: {} for replica_id in replicas}
    table = _Table(tenants, replicas)
    home = table.home_shares()
    demand = table.demand()
    whole = [[min(tenant.limit, load.capacity) for load in table.loads] for tenant in table.tenants]
    guarantees = [tenant.guaranteed for tenant in table.tenants]
    limits = [tenant.limit for tenant in table.tenants]
    table.raise_to([_lower(d, h) for d, h in zip(demand, home, strict=True)], guarantees)
    table.raise_to(demand, guarantees)
    table.raise_to(demand, limits)
    table.raise_to(home, limits)
    due = table.leases
    table.raise_to(whole, limits)
    steady = table.steady()
    if steady != table.leases:
        table.leases = due
        table.raise_to(steady, limits)
        table.raise_to(whole, limits)
    return table.as_mapping()


class _Table:
    """Leases while they are raised; rows are tenants, columns replicas, both ordered by id."""

    def __init__(self, tenants: Mapping[str, TenantShare], replicas: Mapping[str, ReplicaLoad]) -> None:
        self.tenant_ids, self.replica_ids = sorted(tenants), sorted(replicas)
        self.tenants = [tenants[t] for t in self.tenant_ids]
        self.loads = [replicas[r] for r in self.replica_ids]
        self.rooms = [
            load.capacity - sum(slots for t, slots in load.reserved.items() if t not in tenants) for load in self.loads
        ]
        # [T, R]
        self.leases = [
            [(load.reserved if load.held is None else load.held).get(t, 0) for load in self.loads]
            for t in self.tenant_ids
        ]

    def home_shares(self) -> list[list[int]]:
        """Returns each guarantee spread by capacity, [T, R]; a column sums to at most the capacity."""
        guaranteed = sum(tenant.guaranteed for tenant in self.tenants)
        whole = max(sum(load.capacity for load in self.loads), guaranteed, 1)
        return [[tenant.guaranteed * load.capacity // whole for load in self.loads] for tenant in self.tenants]

    def demand(self) -> list[list[int]]:
        """Returns reserved plus wanted slots, [T, R]."""
        return [[load.reserved.get(t, 0) + load.wanted.get(t, 0) for load in self.loads] for t in self.tenant_ids]

    def steady(self) -> list[list[int]]:
        """Returns the leases drawn back to those of the last split where they moved by little, [T, R]."""
        return [
            [_damped(lease, load.leased.get(t, lease)) for lease, load in zip(row, self.loads, strict=True)]
            for t, row in zip(self.tenant_ids, self.leases, strict=True)
        ]

    def raise_to(self, caps: Sequence[Sequence[int]], totals: Sequence[int]) -> None:
        """Raises leases to at most `caps` [T, R] and each tenant's sum to at most `totals` [T].

        Ends after at most R + 1 rounds: a round either grants every target or fills a replica.
        """
        while True:
            before = self.leases
            taken = [sum(column) for column in zip(*before, strict=True)]
            is_open = [load.held is None for load in self.loads]
            is_open = [o and t < room for o, t, room in zip(is_open, taken, self.rooms, strict=True)]
            targets = [self._targets(row, caps[t], totals[t], is_open) for t, row in enumerate(before)]
            self.leases = self._grant(targets)
            if self.leases == before:
                return

    @staticmethod
    def _targets(row: list[int], caps: Sequence[int], total: int, is_open: Sequence[bool]) -> list[int]:
        """Spreads one tenant's total over the replicas that can still give, by their caps there."""
        entries = zip(row, caps, is_open, strict=True)
        bounded = [max(lease, cap) if can_give else lease for lease, cap, can_give in entries]
        return row if bounded == row else water_fill(total, row, bounded, [max(1, cap) for cap in bounded])

    def _grant(self, targets: list[list[int]]) -> list[list[int]]:
        """Shares each replica's room among the tenants that have targets there."""
        weights = [tenant.weight for tenant in self.tenants]
        floors, caps = zip(*self.leases, strict=True), zip(*targets, strict=True)
        columns = [water_fill(*column, weights) for column in zip(self.rooms, floors, caps, strict=True)]
        return [list(row) for row in zip(*columns, strict=True)]

    def as_mapping(self) -> dict[str, dict[str, int]]:
        """Returns ``{replica_id: {tenant_id: slots}}``."""
        return {
            replica_id: {tenant_id: self.leases[t][r] for t, tenant_id in enumerate(self.tenant_ids)}
            for r, replica_id in enumerate(self.replica_ids)
        }


def _damped(fresh: int, last: int) -> int:
    """Returns the last value where the fresh one differs by at most an eighth, else the nearest that does."""
    band = max(fresh, last) // 8
    return max(fresh - band, min(fresh + band, last))


def _lower(left: Sequence[int], right: Sequence[int]) -> list[int]:
    return [min(pair) for pair in zip(left, right, strict=True)]
