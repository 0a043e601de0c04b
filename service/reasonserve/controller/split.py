"""Splits the cluster's KV memory into leases: integers, exact, deterministic. The rule, and its plain form.

Reserved slots stay where they are. On top of them every tenant is raised, phase by phase and only
while there is room: (1) its demand at a replica up to its home share, the part of its guarantee that
is proportional to the replica's capacity; (2) its demand anywhere up to its guarantee; (3) its demand
up to its fair total, the weighted max-min share of each model's memory; (4) its demand up to its
limit; then what nobody wants now is lent, so that a first request need not ask: (5) up to the home
shares, (6) up to the limits. Where a phase does not fit, tenants share a replica, and a tenant's
total is shared over replicas by demand, by weighted max-min filling. Where (2) or (3) leave a tenant
short at a full replica, others that also have demand elsewhere are moved there (`reroute_plain`).
A replica that lost its stream keeps its last leases untouched.

A slot is a slot whatever its replica's model, so a tenant's guarantee and limit bind over all models;
home shares and loans of a tenant with demand lie at replicas of the models that its demand is for.

Against flapping, what is lent stays where it was: a lease that would move by no more than an
eighth does not move, so that a small change of one tenant's demand is not told to every replica.
What is reserved, guaranteed or wanted is never held back by that.

`arrays.split` is the same rule, slot for slot, in n log n for n cells (a tenant at a replica).

Letters: T tenants, R replicas. Units: token slots.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from reasonserve.controller.fill import water_fill
from reasonserve.controller.reroute import reroute_plain

Rows = Sequence[Sequence[int]]
WEIGHT_BITS = 18


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
        model: Model that it serves.
        reserved: Slots of admitted requests by tenant; tenants that no longer exist included.
        wanted: Slots that waiting requests need on top, by tenant.
        named: Tenants that may be leased slots here besides those above; None means all.
        held: Leases that are out of reach until they lapse; None while the stream is open.
        leased: Leases of the last split, by tenant.
    """

    capacity: int
    model: str = ""
    reserved: Mapping[str, int] = field(default_factory=dict)
    wanted: Mapping[str, int] = field(default_factory=dict)
    named: Collection[str] | None = None
    held: Mapping[str, int] | None = None
    leased: Mapping[str, int] = field(default_factory=dict)


def rounds(num_replicas: int) -> int:
    """Returns how often a phase is repeated before what is left is handed out in order; bounds the work."""
    return 2 + num_replicas.bit_length()


def spread_weights(caps: Sequence[int]) -> list[int]:
    """Returns weights in proportion to caps, at least 1 and below ``2 ** WEIGHT_BITS``."""
    shift = max(0, max(caps, default=0).bit_length() - WEIGHT_BITS)
    return [max(1, cap >> shift) for cap in caps]


def home_share(guaranteed: int, capacity: int, whole: int) -> int:
    """Returns the part of a guarantee that belongs to a replica; in doubles, exact to 2**53."""
    return int(float(guaranteed) * float(capacity) / float(max(whole, 1)))


def split_leases(tenants: Mapping[str, TenantShare], replicas: Mapping[str, ReplicaLoad]) -> dict[str, dict[str, int]]:
    """Returns the leases, ``{replica_id: {tenant_id: slots}}``, of every tenant that a replica names.

    A replica's leases sum to at most its capacity and a tenant's to at most its limit, unless
    what is reserved or held already exceeds that; then nothing is added there.
    """
    if not (tenants and replicas):
        return {replica_id: {} for replica_id in replicas}
    table = _Table(tenants, replicas)
    home, demand, whole = table.home_shares(), table.demand(), table.whole()
    guarantees = [tenant.guaranteed for tenant in table.tenants]
    limits = [tenant.limit for tenant in table.tenants]
    table.raise_to([_lower(d, h) for d, h in zip(demand, home, strict=True)], guarantees)
    table.raise_to(demand, guarantees)
    table.reroute(demand, guarantees)
    fair = table.fair_totals(demand)
    table.raise_to(demand, fair)
    table.reroute(demand, fair)
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
        self.floors = [
            [(load.reserved if load.held is None else load.held).get(t, 0) for load in self.loads]
            for t in self.tenant_ids
        ]
        self.leases = [list(row) for row in self.floors]
        self.models = [self._models(t) for t in range(len(self.tenants))]
        # Where a tenant may be lent slots, [T, R].
        self.lendable = [
            [self._is_cell(t, load) and load.model in self.models[i] for load in self.loads]
            for i, t in enumerate(self.tenant_ids)
        ]

    def _models(self, t: int) -> set[str]:
        """Returns the models that a tenant's demand is for; all where it has none."""
        used = zip(self.loads, self.floors[t], self.demand()[t], strict=True)
        return {load.model for load, floor, demand in used if floor or demand} or {load.model for load in self.loads}

    @staticmethod
    def _is_cell(tenant_id: str, load: ReplicaLoad) -> bool:
        holds = load.reserved if load.held is None else load.held
        return load.named is None or tenant_id in load.named or tenant_id in holds or tenant_id in load.wanted

    def home_shares(self) -> list[list[int]]:
        """Returns each guarantee spread by capacity over the tenant's models, [T, R]; columns fit the capacity."""
        guaranteed = dict.fromkeys((load.model for load in self.loads), 0)
        capacity: dict[str, int] = {}
        for tenant, models in zip(self.tenants, self.models, strict=True):
            guaranteed |= {model: guaranteed[model] + tenant.guaranteed for model in models}
        for load in self.loads:
            capacity[load.model] = capacity.get(load.model, 0) + load.capacity
        shares = []
        for tenant, models, lendable in zip(self.tenants, self.models, self.lendable, strict=True):
            whole = max(sum(capacity[m] for m in models), max(guaranteed[m] for m in models))
            shares.append(
                [
                    home_share(tenant.guaranteed, load.capacity, whole) if may else 0
                    for may, load in zip(lendable, self.loads, strict=True)
                ]
            )
        return shares

    def demand(self) -> list[list[int]]:
        """Returns reserved plus wanted slots, of which a replica serves no more than it holds, [T, R]."""
        return [
            [
                0
                if load.held is not None
                else max(load.reserved.get(t, 0), min(load.reserved.get(t, 0) + load.wanted.get(t, 0), load.capacity))
                for load in self.loads
            ]
            for t in self.tenant_ids
        ]

    def whole(self) -> list[list[int]]:
        """Returns what may be lent at most, [T, R]."""
        return [
            [min(tenant.limit, load.capacity) if may else 0 for may, load in zip(lendable, self.loads, strict=True)]
            for tenant, lendable in zip(self.tenants, self.lendable, strict=True)
        ]

    def fair_totals(self, demand: Rows) -> list[int]:
        """Returns each tenant's weighted max-min share of the models' memory, as if it lay in one place, [T]."""
        weights = [tenant.weight for tenant in self.tenants]
        totals = [sum(self._where(row, lambda load: load.held is not None)) for row in self.leases]
        for model in {load.model for load in self.loads}:

            def is_here(load: ReplicaLoad, model: str = model) -> bool:
                return load.held is None and load.model == model

            floors = [sum(self._where(row, is_here)) for row in self.leases]
            wishes = [sum(self._where(row, is_here)) for row in demand]
            caps = [max(f, min(w, t.limit)) for f, w, t in zip(floors, wishes, self.tenants, strict=True)]
            filled = water_fill(sum(self._where(self.rooms, is_here)), floors, caps, weights)
            totals = [total + more for total, more in zip(totals, filled, strict=True)]
        return [min(total, tenant.limit) for total, tenant in zip(totals, self.tenants, strict=True)]

    def _where(self, row: Sequence[int], is_here: Callable[[ReplicaLoad], bool]) -> list[int]:
        return [value for value, load in zip(row, self.loads, strict=True) if is_here(load)]

    def steady(self) -> list[list[int]]:
        """Returns the leases drawn back to those of the last split where they moved by little, [T, R]."""
        return [
            [
                _damped(lease, load.leased.get(t, lease) if self._is_cell(t, load) else lease)
                for lease, load in zip(row, self.loads, strict=True)
            ]
            for t, row in zip(self.tenant_ids, self.leases, strict=True)
        ]

    def raise_to(self, caps: Rows, totals: Sequence[int]) -> None:
        """Raises leases to at most `caps` [T, R] and each tenant's sum to at most `totals` [T]."""
        for _ in range(rounds(len(self.loads))):
            before = self.leases
            is_open = self._open()
            targets = [self._targets(row, caps[t], totals[t], is_open) for t, row in enumerate(before)]
            self.leases = self._grant(targets)
            if self.leases == before:
                return
        self._sweep(caps, totals)

    def _open(self) -> list[bool]:
        """Returns which replicas can give more."""
        taken = [sum(column) for column in zip(*self.leases, strict=True)]
        return [load.held is None and t < room for load, t, room in zip(self.loads, taken, self.rooms, strict=True)]

    @staticmethod
    def _targets(row: list[int], caps: Sequence[int], total: int, is_open: Sequence[bool]) -> list[int]:
        """Spreads one tenant's total over the replicas that can still give, by their caps there."""
        entries = zip(row, caps, is_open, strict=True)
        bounded = [max(lease, cap) if can_give else lease for lease, cap, can_give in entries]
        return row if bounded == row else water_fill(total, row, bounded, spread_weights(bounded))

    def _grant(self, targets: list[list[int]]) -> list[list[int]]:
        """Shares each replica's room among the tenants that have targets there."""
        weights = [tenant.weight for tenant in self.tenants]
        floors, caps = zip(*self.leases, strict=True), zip(*targets, strict=True)
        columns = [water_fill(*column, weights) for column in zip(self.rooms, floors, caps, strict=True)]
        return [list(row) for row in zip(*columns, strict=True)]

    def _sweep(self, caps: Rows, totals: Sequence[int]) -> None:
        """Hands out what the rounds left, replica by replica, in order."""
        for r, is_open in enumerate(self._open()):
            for t, row in enumerate(self.leases):
                left = min(totals[t] - sum(row), self.rooms[r] - sum(other[r] for other in self.leases))
                if is_open:
                    row[r] += max(0, min(left, caps[t][r] - row[r]))

    def reroute(self, caps: Rows, totals: Sequence[int]) -> None:
        """Moves tenants between replicas so that others reach their totals."""
        rooms = [room if load.held is None else 0 for room, load in zip(self.rooms, self.loads, strict=True)]
        usable = [[cap if load.held is None else 0 for cap, load in zip(row, self.loads, strict=True)] for row in caps]
        floors = [
            [floor if load.held is None else lease for floor, lease, load in zip(*pair, self.loads, strict=True)]
            for pair in zip(self.floors, self.leases, strict=True)
        ]
        self.leases = reroute_plain(self.leases, floors, usable, rooms, totals, phases=rounds(len(self.loads)))

    def as_mapping(self) -> dict[str, dict[str, int]]:
        """Returns ``{replica_id: {tenant_id: slots}}``."""
        return {
            replica_id: {
                tenant_id: self.leases[t][r]
                for t, tenant_id in enumerate(self.tenant_ids)
                if self._is_cell(tenant_id, self.loads[r])
            }
            for r, replica_id in enumerate(self.replica_ids)
        }


def _damped(fresh: int, last: int) -> int:
    """Returns the last value where the fresh one differs by at most an eighth, else the nearest that does."""
    band = max(fresh, last) // 8
    return max(fresh - band, min(fresh + band, last))


def _lower(left: Sequence[int], right: Sequence[int]) -> list[int]:
    return [min(pair) for pair in zip(left, right, strict=True)]
