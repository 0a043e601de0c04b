"""Splits the memory among live replicas: their reports to arrays, the split, and back to leases.

A tenant's slots move from one replica to another in two steps: what a replica may still believe to be leased
to it is not granted elsewhere, so that the tenant's limit holds also while an answer is on its way or lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from reasonserve.controller import cells
from reasonserve.controller.segments import Flags, Ints, Segments
from reasonserve.controller.shares import Shares

if TYPE_CHECKING:
    from reasonserve.controller.leases import Replica

_MOST_SLOTS = 2**31 - 1


@dataclass(slots=True)
class _Part:
    """One replica's cells, kept while nothing of it changed.

    Attributes:
        key: What the arrays were made of.
        number: Tenants' numbers, ascending, [n].
        floor: Reserved, or held where the stream is closed, [n].
        wanted: On top, [n].
        believed: What the replica may believe, [n].
        last: Leases of the last split, [n].
        leases: The same as a mapping.
        other_number: Tenants that it may believe it holds and does not name any more.
        other_slots: What it may believe of these.
        strangers: Reserved by tenants that no longer exist.
    """

    key: tuple[object, ...]
    number: Ints
    floor: Ints
    wanted: Ints
    believed: Ints
    last: Ints
    leases: Mapping[str, int] | None
    other_number: Ints
    other_slots: Ints
    strangers: int


class Settler:
    """Keeps what does not change from split to split.

    Attributes:
        withheld: Whether the last split granted less than it would, for slots that others may believe in.
        urgent: Replicas that are leased more of what they want, or less of what another waits for.
    """

    def __init__(self) -> None:
        self._parts: dict[str, _Part] = {}
        self.withheld = False
        self.urgent: list[str] = []

    def settle(self, replicas: Mapping[str, Replica], shares: Shares, *, frozen: bool) -> dict[str, Mapping[str, int]]:
        """Returns the leases of the replicas that get others than they had.

        Args:
            replicas: Live replicas by id.
            shares: The tenants.
            frozen: Grant nothing but what is reserved or believed.
        """
        order = sorted(replicas)
        self._parts = {r: self._part(r, replicas[r], shares) for r in order}
        self.withheld, self.urgent = False, []
        if not order:
            return {}
        parts = list(self._parts.values())
        problem, believed, others = _problem([replicas[r] for r in order], parts, shares, frozen=frozen)
        due = cells.split(problem)
        leases = _withhold(problem, due, believed, others)
        self.withheld = bool((leases < due).any())
        urgent = _urgent(problem, due, leases, believed) & problem.is_open[problem.replica]
        self.urgent = [order[i] for i in np.unique(problem.replica[urgent]).tolist()]
        return self._changed(order, replicas, problem, leases, shares)

    def _part(self, replica_id: str, replica: Replica, shares: Shares) -> _Part:
        key = (replica.report, replica.told, replica.connected, shares.generation)
        part = self._parts.get(replica_id)
        # By identity: each is replaced, never changed.
        if part is None or any(old is not new for old, new in zip(part.key, key, strict=True)):
            part = _make_part(key, replica, shares)
        if part.leases is not replica.leases:
            part.last = _slots_of(replica.leases, part.number, shares, missing=cells.NEVER)
            part.leases = replica.leases
        return part

    def _changed(
        self, order: list[str], replicas: Mapping[str, Replica], problem: cells.Problem, leases: Ints, shares: Shares
    ) -> dict[str, Mapping[str, int]]:
        bounds = np.searchsorted(problem.replica, np.arange(len(order) + 1)).tolist()
        differs = Segments(problem.replica, len(order)).sums(leases != problem.last) > 0
        result: dict[str, Mapping[str, int]] = {}
        for i, replica_id in enumerate(order):
            part, replica = self._parts[replica_id], replicas[replica_id]
            if not replica.connected or not (differs[i] or len(part.number) != len(replica.leases)):
                continue
            part.last = leases[bounds[i] : bounds[i + 1]]
            ids = shares.ids(part.number.tolist())
            part.leases = result[replica_id] = dict(zip(ids, part.last.tolist(), strict=True))
        return result


def _make_part(key: tuple[object, ...], replica: Replica, shares: Shares) -> _Part:
    uses, believed = replica.report.tenants, replica.believed
    known = {n: t for t in (uses if replica.connected else believed) if (n := shares.number(t)) is not None}
    all_named = replica.connected and not replica.report.incremental
    number = shares.all if all_named else np.array(sorted(known), dtype=np.int64)
    floor, wanted = np.zeros(len(number), dtype=np.int64), np.zeros(len(number), dtype=np.int64)
    at = np.searchsorted(number, np.array(list(known), dtype=np.int64))
    if replica.connected:
        floor[at] = [min(uses[t].reserved_slots, _MOST_SLOTS) for t in known.values()]
        wanted[at] = [min(uses[t].wanted_slots, _MOST_SLOTS) for t in known.values()]
    slots = _slots_of(believed, number, shares)
    named = set(known.values())
    others = {
        n: s for t, s in believed.items() if not all_named and t not in named and (n := shares.number(t)) is not None
    }
    return _Part(
        key=key,
        number=number,
        floor=floor if replica.connected else slots,
        wanted=wanted,
        believed=slots,
        last=slots,
        leases=None,
        other_number=np.array(list(others), dtype=np.int64),
        other_slots=np.array(list(others.values()), dtype=np.int64),
        strangers=sum(use.reserved_slots for t, use in uses.items() if t not in shares),
    )


def _slots_of(leases: Mapping[str, int], number: Ints, shares: Shares, *, missing: int = 0) -> Ints:
    """Returns the slots of each tenant of a part, [n]."""
    result = np.full(len(number), missing, dtype=np.int64)
    known = {n: slots for t, slots in leases.items() if (n := shares.number(t)) is not None}
    given = np.array(list(known), dtype=np.int64)
    at = np.searchsorted(number, given)
    inside = at < len(number)
    inside[inside] = number[at[inside]] == given[inside]
    result[at[inside]] = np.array(list(known.values()), dtype=np.int64)[inside]
    return result


def _problem(
    replicas: list[Replica], parts: list[_Part], shares: Shares, *, frozen: bool
) -> tuple[cells.Problem, Ints, Ints]:
    """Returns what is to be split, what is believed [n], and what is believed beside the cells [T]."""
    numbers = np.concatenate([*(part.number for part in parts), *(part.other_number for part in parts)])
    active, column = np.unique(numbers, return_inverse=True)
    weight, guaranteed, limit = shares.values(active)
    num_cells = sum(len(part.number) for part in parts)
    others = np.zeros(len(active), dtype=np.int64)
    np.add.at(others, column[num_cells:], _joined(part.other_slots for part in parts))
    replica = np.repeat(np.arange(len(parts)), [len(part.number) for part in parts])
    believed = _joined(part.believed for part in parts)
    capacity = np.array([r.report.capacity_slots for r in replicas], dtype=np.int64)
    floor = _joined(part.floor for part in parts)
    if frozen:
        guaranteed, limit = np.zeros_like(guaranteed), np.zeros_like(limit)
        kept = np.maximum(floor, believed)
        fits = Segments(replica, len(parts)).sums(kept) <= capacity
        floor = np.where(fits[replica], kept, floor)
    models = {model: i for i, model in enumerate(sorted({r.report.model for r in replicas}))}
    problem = cells.Problem(
        weight=weight,
        guaranteed=guaranteed,
        limit=limit,
        capacity=capacity,
        strangers=np.array([part.strangers for part in parts], dtype=np.int64),
        is_open=np.array([r.connected for r in replicas]),
        model=np.array([models[r.report.model] for r in replicas], dtype=np.int64),
        tenant=column[:num_cells],
        replica=replica,
        floor=floor,
        wanted=_joined(part.wanted for part in parts),
        last=_joined(part.last for part in parts),
    )
    return problem, believed, others


def _joined(arrays: Iterable[Ints]) -> Ints:
    return np.concatenate([np.zeros(0, dtype=np.int64), *arrays])


def _urgent(problem: cells.Problem, due: Ints, leases: Ints, believed: Ints) -> Flags:
    """Returns the cells that are not left to the next renewal, [n]."""
    waits = np.zeros(len(problem.weight), dtype=np.bool_)
    waits[problem.tenant[leases < due]] = True
    gives = (leases < believed) & waits[problem.tenant]
    # A tenant that is new there is among these: NEVER is below any lease and any demand.
    wants = (leases > problem.last) & (problem.last < problem.floor + problem.wanted)
    return np.asarray(gives | wants)


def _withhold(problem: cells.Problem, leases: Ints, believed: Ints, others: Ints) -> Ints:
    """Grants a tenant no more than its limit leaves beside what replicas may believe.

    Args:
        problem: What was split.
        leases: The split, [n].
        believed: What replicas may believe, [n].
        others: What replicas may believe of tenants that they do not name any more, [T].
    """
    order = np.lexsort((problem.replica, problem.tenant))
    rows = Segments(problem.tenant[order], len(problem.weight))
    more = np.maximum(leases - believed, 0)[order]
    least = np.clip(problem.floor - believed, 0, None)[order]
    rooms = np.maximum(problem.limit - others - rows.sums(believed[order]), 0)
    if not (rows.sums(more) > rooms).any():
        return leases
    waiting = np.clip((problem.floor + problem.wanted - believed)[order], 1, 1 << 17)
    granted = rows.fill(rooms, np.minimum(least, more), more, waiting)
    result = np.minimum(leases, believed)
    result[order] += granted
    return np.asarray(result)
