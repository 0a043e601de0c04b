"""Moves granted slots between replicas so that tenants that are short reach their totals, plain.

Shortest augmenting paths (Edmonds & Karp, J. ACM 19, 1972): a tenant that is short takes a slot at a full
replica from one that gets it back at another replica, where it has demand too, and so on to one with
room. No total but that of the first sinks or rises. `flow.reroute` does the same steps in fewer looks.
"""

from __future__ import annotations

from collections.abc import Sequence

Rows = Sequence[Sequence[int]]
_FAR = 1 << 60


def reroute_plain(
    leases: Rows, floors: Rows, caps: Rows, rooms: Sequence[int], totals: Sequence[int], *, phases: int
) -> list[list[int]]:
    """Returns leases in which no path of up to `phases` different lengths is left.

    Of several paths the shortest is taken, then that of the first tenant, then the one through the
    first replicas and tenants.

    Args:
        leases: What tenants have, [T, R].
        floors: What cannot be moved, [T, R].
        caps: What they can use, [T, R].
        rooms: What replicas hold in all, [R].
        totals: What tenants are to reach, [T].
        phases: How many lengths of paths are tried.
    """
    graph = _Graph([list(row) for row in leases], floors, caps, rooms, totals)
    lengths: set[int] = set()
    while True:
        to_tenant, to_replica = graph.distances()
        short = [(to_tenant[t], t) for t in range(len(totals)) if graph.need(t) > 0 and to_tenant[t] < _FAR]
        if not short:
            return graph.leases
        length, first = min(short)
        lengths.add(length)
        if len(lengths) > phases:
            return graph.leases
        graph.push(first, graph.path(first, to_tenant, to_replica))


class _Graph:
    """Tenants reach replicas where they can use more; full replicas reach tenants that hold movable slots."""

    def __init__(
        self, leases: list[list[int]], floors: Rows, caps: Rows, rooms: Sequence[int], totals: Sequence[int]
    ) -> None:
        self.leases, self._floors, self._caps = leases, floors, caps
        self._rooms, self._totals = rooms, totals

    def need(self, t: int) -> int:
        """Returns what a tenant lacks."""
        return self._totals[t] - sum(self.leases[t])

    def _room(self, r: int) -> int:
        return self._rooms[r] - sum(row[r] for row in self.leases)

    def _usable(self, t: int, r: int) -> int:
        return self._caps[t][r] - self.leases[t][r]

    def _movable(self, t: int, r: int) -> int:
        return self.leases[t][r] - self._floors[t][r]

    def distances(self) -> tuple[list[int], list[int]]:
        """Returns the steps to room from each tenant and replica."""
        tenants, replicas = range(len(self.leases)), range(len(self._rooms))
        to_replica = [0 if self._room(r) > 0 else _FAR for r in replicas]
        to_tenant = [_FAR for _ in tenants]
        for _ in range(len(tenants) + len(replicas)):
            for t in tenants:
                steps = [to_replica[r] for r in replicas if self._usable(t, r) > 0]
                to_tenant[t] = min([to_tenant[t], *(n + 1 for n in steps)])
            for r in replicas:
                steps = [to_tenant[t] for t in tenants if self._movable(t, r) > 0]
                to_replica[r] = min([to_replica[r], *(n + 1 for n in steps)])
        return to_tenant, to_replica

    def path(self, t: int, to_tenant: Sequence[int], to_replica: Sequence[int]) -> list[int]:
        """Returns the first shortest path from a tenant: replica, tenant, replica, ... without the first tenant."""
        steps: list[int] = []
        while True:
            replicas = range(len(self._rooms))
            r = next(r for r in replicas if self._usable(t, r) > 0 and to_replica[r] == to_tenant[t] - 1)
            steps.append(r)
            if to_replica[r] == 0:
                return steps
            tenants = range(len(self.leases))
            t = next(t for t in tenants if self._movable(t, r) > 0 and to_tenant[t] == to_replica[r] - 1)
            steps.append(t)

    def push(self, first: int, path: Sequence[int]) -> None:
        """Moves as much as fits along a path."""
        takers, replicas = [first, *path[1::2]], path[::2]
        gains = list(zip(takers, replicas, strict=True))
        losses = list(zip(takers[1:], replicas, strict=False))
        amount = min(self.need(first), self._room(replicas[-1]))
        amount = min([amount, *(self._usable(t, r) for t, r in gains), *(self._movable(t, r) for t, r in losses)])
        for t, r in gains:
            self.leases[t][r] += amount
        for t, r in losses:
            self.leases[t][r] -= amount
