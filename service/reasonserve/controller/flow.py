"""Moves granted slots between replicas so that tenants that are short reach their totals, on arrays.

`reroute.reroute_plain` step for step, as Dinic's algorithm (Soviet Math. Doklady 11, 1970): distances to
room once for each length of path, found for all cells at once, then every path of that length.
Letters: n cells, T tenants, R replicas.
"""

from __future__ import annotations

import numpy as np

from reasonserve.controller.segments import Flags, Ints

_FAR = 1 << 60


class Router:
    """The cells of a cluster, ready to be rerouted. Cells are sorted by replica, then tenant.

    Args:
        tenant: Tenant of each cell, [n].
        replica: Replica of each cell, [n].
        floors: What cannot be moved, [n].
        num_tenants: T.
        num_replicas: R.
    """

    def __init__(self, tenant: Ints, replica: Ints, floors: Ints, num_tenants: int, num_replicas: int) -> None:
        self.tenant, self.replica, self.floors = tenant, replica, floors
        self._num_tenants, self._num_replicas = num_tenants, num_replicas
        self._by_tenant = np.lexsort((replica, tenant))

    def reroute(self, leases: Ints, caps: Ints, rooms: Ints, totals: Ints, *, phases: int) -> Ints:
        """Returns leases in which no path of up to `phases` different lengths is left.

        Args:
            leases: What tenants have, [n].
            caps: What they can use, [n].
            rooms: What replicas have left, [R].
            totals: What tenants are to reach, [T].
            phases: How many lengths of paths are tried.
        """
        needs = totals - np.bincount(self.tenant, leases, self._num_tenants).astype(np.int64)
        needs[np.bincount(self.tenant[leases < caps], minlength=self._num_tenants) == 0] = 0
        leases, rooms, short = leases.copy(), rooms.copy(), needs > 0
        for _ in range(phases):
            found = self._distances(leases, caps, rooms, short) if short.any() else None
            if found is None:
                return leases
            leases = _Paths(self, leases, caps, rooms, needs, found).exhaust(short)
            short = needs > 0
        return leases

    def _distances(self, leases: Ints, caps: Ints, rooms: Ints, short: Flags) -> tuple[Ints, Ints] | None:
        """Returns the steps to room from tenants and replicas, until a tenant in need is met; None if none is."""
        usable, movable = leases < caps, leases > self.floors
        to_replica = np.where(rooms > 0, 0, _FAR)
        to_tenant = np.full(self._num_tenants, _FAR)
        distance = 0
        while True:
            met = usable & (to_replica[self.replica] == distance) & (to_tenant[self.tenant] == _FAR)
            if not met.any():
                return None
            distance += 1
            to_tenant[self.tenant[met]] = distance
            if (short & (to_tenant == distance)).any():
                return to_tenant, to_replica
            met = movable & (to_tenant[self.tenant] == distance) & (to_replica[self.replica] == _FAR)
            distance += 1
            to_replica[self.replica[met]] = distance

    def edges(self, usable: Flags, *, by_tenant: bool) -> list[list[int]]:
        """Returns each tenant's usable cells by replica, or each replica's by tenant."""
        cells = self._by_tenant[usable[self._by_tenant]] if by_tenant else np.flatnonzero(usable)
        nodes = (self.tenant if by_tenant else self.replica)[cells]
        bounds = np.searchsorted(nodes, np.arange((self._num_tenants if by_tenant else self._num_replicas) + 1))
        flat, at = cells.tolist(), bounds.tolist()
        return [flat[at[i] : at[i + 1]] for i in range(len(at) - 1)]


class _Paths:
    """All paths of one length; an edge that is used up or leads nowhere is not looked at again."""

    def __init__(
        self, router: Router, leases: Ints, caps: Ints, rooms: Ints, needs: Ints, found: tuple[Ints, Ints]
    ) -> None:
        to_tenant, to_replica = found
        step = to_tenant[router.tenant] - to_replica[router.replica]
        up = router.edges((leases < caps) & (step == 1), by_tenant=True)
        down = router.edges((leases > router.floors) & (step == -1), by_tenant=False)
        # The last is the next to be looked at.
        self._edges = ([cells[::-1] for cells in down], [cells[::-1] for cells in up])
        self._ends = (router.tenant.tolist(), router.replica.tolist())
        self._raisable, self._lowerable = (caps - leases).tolist(), (leases - router.floors).tolist()
        self._leases, self._rooms, self._needs, self._to_tenant = leases, rooms, needs, to_tenant
        self._is_sink = (to_replica == 0).tolist()

    def exhaust(self, short: Flags) -> Ints:
        """Moves along every path from the tenants in need that are nearest to room; returns the leases."""
        nearest = self._to_tenant[short].min()
        moved: dict[int, int] = {}
        for t in np.flatnonzero(short & (self._to_tenant == nearest)).tolist():
            while self._needs[t] > 0 and (path := self._path(t)):
                self._push(t, path, moved)
        leases = self._leases.copy()
        leases[list(moved)] += np.array(list(moved.values()), dtype=np.int64)
        return leases

    def _push(self, t: int, path: list[int], moved: dict[int, int]) -> None:
        """Moves as much as fits; cells at even places of the path are raised, the others lowered."""
        last = self._ends[1][path[-1]]
        slack = [(self._lowerable if i % 2 else self._raisable)[cell] for i, cell in enumerate(path)]
        amount = min(int(self._needs[t]), int(self._rooms[last]), *slack)
        for i, cell in enumerate(path):
            (self._lowerable if i % 2 else self._raisable)[cell] -= amount
            moved[cell] = moved.get(cell, 0) + (-amount if i % 2 else amount)
        self._needs[t] -= amount
        self._rooms[last] -= amount

    def _path(self, t: int) -> list[int]:
        """Returns the cells of the first path from a tenant to a replica with room; empty when there is none."""
        path: list[int] = []
        up, node = 1, t
        while True:
            if not up and self._is_sink[node]:
                if self._rooms[node] > 0:
                    return path
                cell = None
            else:
                cell = self._current(up, node)
            if cell is not None:
                path.append(cell)
                node, up = self._ends[up][cell], 1 - up
            elif path:
                up = 1 - up
                node = self._ends[1 - up][path.pop()]
                self._edges[up][node].pop()
            else:
                return path

    def _current(self, up: int, node: int) -> int | None:
        """Returns the first edge that is not used up, from a tenant (1) or a replica (0)."""
        edges, slack = self._edges[up][node], self._raisable if up else self._lowerable
        while edges:
            if slack[edges[-1]] > 0:
                return edges[-1]
            edges.pop()
        return None
