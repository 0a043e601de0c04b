"""Weighted max-min filling in integers, plain: what `arrays.fill` is held against."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from fractions import Fraction


def water_fill(room: int, floors: Sequence[int], caps: Sequence[int], weights: Sequence[int]) -> list[int]:
    """Raises floors towards caps to one common level per weight.

    Weighted max-min fairness by progressive filling (Bertsekas & Gallager, Data Networks, 2nd ed.,
    section 6.5.2) in integers: where entry i is ``clamp(level * weight_i, floor_i, cap_i)`` at the level
    that uses up the room, it becomes that, rounded down; what rounding left goes one slot each to the
    entries between floor and cap, heaviest first, then in order.
    Example: room 10, floors [0, 0, 4], caps [2, 9, 9], weights [1, 1, 1] -> [2, 4, 4].

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
    if sum(floors) >= room:
        return list(floors)
    free = [i for i, (low, high) in enumerate(zip(floors, caps, strict=True)) if low < high]
    breaks = sorted({Fraction(bound[i], weights[i]) for i in free for bound in (floors, caps)})

    def exceeds(level: Fraction) -> bool:
        values = (max(Fraction(floors[i]), min(Fraction(caps[i]), level * weights[i])) for i in free)
        return sum(values, Fraction(fixed)) > room

    fixed = sum(floors) - sum(floors[i] for i in free)
    reached = breaks[bisect_left(breaks, True, key=exceeds) - 1]
    active = [i for i in free if floors[i] <= reached * weights[i] < caps[i]]
    values = list(floors)
    for i in free:
        values[i] = caps[i] if caps[i] <= reached * weights[i] else floors[i]
    shared = room - sum(values) + sum(values[i] for i in active)
    whole = sum(weights[i] for i in active)
    for i in active:
        values[i] = shared * weights[i] // whole
    for i in sorted(active, key=lambda i: (-weights[i], i))[: room - sum(values)]:
        values[i] += 1
    return values
