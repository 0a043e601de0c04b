"""The split on arrays: the rule of `split.split_leases`, slot for slot, in n log n.

Letters: n cells (a tenant at a replica that names it), T tenants, R replicas, M models. Units: token slots.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reasonserve.controller.flow import Router
from reasonserve.controller.segments import Flags, Ints, Segments
from reasonserve.controller.split import WEIGHT_BITS, rounds

NEVER = -1
"""Marks a cell that had no lease in the last split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is to be split; see `split.TenantShare` and `split.ReplicaLoad`.

    Attributes:
        weight: Of tenants, [T].
        guaranteed: Of tenants, [T].
        limit: Of tenants, [T].
        capacity: Of replicas, below 2**31, [R].
        strangers: Reserved there by tenants that no longer exist, [R].
        is_open: Whether a replica's stream is open, [R].
        model: Model's number, [R].
        tenant: Of cells, [n]; cells are sorted by replica, then tenant.
        replica: Of cells, [n].
        floor: Reserved, or held where the replica is not open, below 2**31, [n].
        wanted: On top, [n].
        last: Lease of the last split, or `NEVER`, [n].
    """

    weight: Ints
    guaranteed: Ints
    limit: Ints
    capacity: Ints
    strangers: Ints
    is_open: Flags
    model: Ints
    tenant: Ints
    replica: Ints
    floor: Ints
    wanted: Ints
    last: Ints


def split(problem: Problem) -> Ints:
    """Returns the leases, [n]."""
    table = _Table(problem)
    demand, home, whole = table.demand, table.home_shares(), table.whole()
    guarantees, limits = problem.guaranteed, problem.limit
    table.raise_to(np.minimum(demand, home), guarantees)
    table.raise_to(demand, guarantees)
    table.reroute(demand, guarantees)
    fair = table.fair_totals()
    table.raise_to(demand, fair)
    table.reroute(demand, fair)
    table.raise_to(demand, limits)
    table.raise_to(home, limits)
    due = table.leases
    table.raise_to(whole, limits)
    steady = table.steady()
    if not np.array_equal(steady, table.leases):
        table.leases = due
        table.raise_to(steady, limits)
        table.raise_to(whole, limits)
    return table.leases


class _Table:
    """Leases while they are raised."""

    def __init__(self, problem: Problem) -> None:
        p = self._problem = problem
        self._num_tenants, self._num_replicas = len(p.weight), len(p.capacity)
        self._num_models = int(p.model.max(initial=-1)) + 1
        self._rooms = p.capacity - p.strangers
        self._is_open = p.is_open[p.replica]
        self._columns = Segments(p.replica, self._num_replicas)
        self._by_tenant = np.lexsort((p.replica, p.tenant))
        self._rows = Segments(p.tenant[self._by_tenant], self._num_tenants)
        self._pair = p.tenant * self._num_models + p.model[p.replica]
        served = np.maximum(p.floor, np.minimum(p.floor + p.wanted, p.capacity[p.replica]))
        self.demand = np.where(self._is_open, served, 0)
        self.leases = p.floor
        self._uses = self._used_models()
        self._is_lendable = self._uses.reshape(-1)[self._pair]
        self._router: Router | None = None

    def _used_models(self) -> Flags:
        """Returns the models that a tenant's demand is for; all where it has none, [T, M]."""
        p, uses = self._problem, np.zeros(self._num_tenants * self._num_models, dtype=np.bool_)
        uses[self._pair[(p.floor > 0) | (self.demand > 0)]] = True
        table = uses.reshape(self._num_tenants, self._num_models)
        return np.asarray(table | ~table.any(axis=1, keepdims=True))

    def home_shares(self) -> Ints:
        """Returns each guarantee spread by capacity over the tenant's models, [n]."""
        p = self._problem
        capacity = np.zeros(self._num_models, dtype=np.int64)
        np.add.at(capacity, p.model, p.capacity)
        guaranteed = np.where(self._uses, p.guaranteed[:, None], 0).sum(axis=0)
        available = np.where(self._uses, capacity, 0).sum(axis=1)
        whole = np.maximum(available, np.where(self._uses, guaranteed, 0).max(axis=1, initial=1))
        shares = p.guaranteed[p.tenant].astype(np.float64) * p.capacity[p.replica] / whole[p.tenant]
        return np.where(self._is_lendable, shares.astype(np.int64), 0)

    def whole(self) -> Ints:
        """Returns what may be lent at most, [n]."""
        p = self._problem
        return np.where(self._is_lendable, np.minimum(p.limit[p.tenant], p.capacity[p.replica]), 0)

    def fair_totals(self) -> Ints:
        """Returns each tenant's weighted max-min share of the models' memory, as if it lay in one place, [T]."""
        p = self._problem
        pairs = self._num_tenants * self._num_models
        floors, wishes = np.zeros(pairs, dtype=np.int64), np.zeros(pairs, dtype=np.int64)
        np.add.at(floors, self._pair[self._is_open], self.leases[self._is_open])
        np.add.at(wishes, self._pair, self.demand)
        # By model, then tenant.
        floors, wishes = (a.reshape(self._num_tenants, self._num_models).T.ravel() for a in (floors, wishes))
        caps = np.maximum(floors, np.minimum(wishes, np.tile(p.limit, self._num_models)))
        rooms = np.zeros(self._num_models, dtype=np.int64)
        np.add.at(rooms, p.model[p.is_open], self._rooms[p.is_open])
        models = Segments(np.repeat(np.arange(self._num_models), self._num_tenants), self._num_models)
        filled = models.fill(rooms, floors, caps, np.tile(p.weight, self._num_models))
        held = self._rows.sums(np.where(self._is_open, 0, self.leases)[self._by_tenant])
        return np.asarray(np.minimum(held + filled.reshape(self._num_models, -1).sum(axis=0), p.limit))

    def steady(self) -> Ints:
        """Returns the leases drawn back to those of the last split where they moved by little, [n]."""
        last = np.where(self._problem.last == NEVER, self.leases, self._problem.last)
        band = np.maximum(self.leases, last) // 8
        return np.asarray(np.maximum(self.leases - band, np.minimum(self.leases + band, last)))

    def raise_to(self, caps: Ints, totals: Ints) -> None:
        """Raises leases to at most `caps` [n] and each tenant's sum to at most `totals` [T]."""
        p = self._problem
        weights = p.weight[p.tenant]
        for _ in range(rounds(self._num_replicas)):
            before = self.leases
            targets = self._targets(caps, totals)
            if np.array_equal(targets, before):
                return
            self.leases = self._columns.fill(self._rooms, before, targets, weights)
            if np.array_equal(self.leases, before):
                return
        self._sweep(caps, totals)

    def _can_give(self) -> Flags:
        p = self._problem
        return np.asarray(p.is_open & (self._columns.sums(self.leases) < self._rooms))

    def _targets(self, caps: Ints, totals: Ints) -> Ints:
        """Spreads each tenant's total over the replicas that can still give, by their caps there, [n]."""
        may = self._can_give()[self._problem.replica]
        bounded = np.where(may, np.maximum(self.leases, caps), self.leases)[self._by_tenant]
        excess = np.maximum(self._rows.largest(bounded) >> WEIGHT_BITS, 0)
        shift = np.frexp(excess.astype(np.float64))[1].astype(np.int64)
        weights = np.maximum(1, bounded >> shift[self._rows.of])
        targets: Ints = np.empty_like(bounded)
        targets[self._by_tenant] = self._rows.fill(totals, self.leases[self._by_tenant], bounded, weights)
        return targets

    def _sweep(self, caps: Ints, totals: Ints) -> None:
        """Hands out what the rounds left, replica by replica, in order."""
        p = self._problem
        may = self._can_give()[p.replica] & (self.leases < caps)
        row = totals - self._rows.sums(self.leases[self._by_tenant])
        room = self._rooms - self._columns.sums(self.leases)
        self.leases = self.leases.copy()
        for cell in np.flatnonzero(may & (row[p.tenant] > 0)).tolist():
            t, r = p.tenant[cell], p.replica[cell]
            more = max(0, min(row[t], room[r], caps[cell] - self.leases[cell]))
            self.leases[cell] += more
            row[t] -= more
            room[r] -= more

    def reroute(self, caps: Ints, totals: Ints) -> None:
        """Moves tenants between replicas so that others reach their totals."""
        p = self._problem
        usable = np.where(self._is_open, caps, self.leases)
        if not (self._rows.sums(self.leases[self._by_tenant]) < totals)[p.tenant[self.leases < usable]].any():
            return
        if self._router is None:
            self._router = Router(p.tenant, p.replica, p.floor, self._num_tenants, self._num_replicas)
        rooms = np.where(p.is_open, self._rooms - self._columns.sums(self.leases), 0)
        self.leases = self._router.reroute(self.leases, usable, rooms, totals, phases=rounds(self._num_replicas))
