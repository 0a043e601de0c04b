"""Whose budget is lowered to make room, and whose is raised again; pure arithmetic.

Both move every candidate to one common level, as water in vessels: a squeeze takes from the largest budgets
first and never below a request's floor, growth gives to the smallest first and never above what a request was
admitted with. So nobody loses more than it takes, and equal requests stay equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounded:
    """A running request whose budget may be moved.

    Attributes:
        request_id: The request.
        budget: S now.
        floor: Least S that it may be squeezed to.
        ceiling: S that it was admitted with.
        buffer: Tail slots on top.
        max_new_tokens: Most tokens that it generates; it never holds more.
        outputs: Outputs that it generates side by side.
    """

    request_id: str
    budget: int
    floor: int
    ceiling: int
    buffer: int
    max_new_tokens: int
    outputs: int = 1

    def growth(self, budget: int) -> int:
        """Returns the slots it may hold on top of its prompt under a budget."""
        return self.outputs * min(self.max_new_tokens, budget + self.buffer)


def plan_squeeze(candidates: Iterable[Bounded], slots: int) -> dict[str, int]:
    """Returns new budgets that free at least some slots; all floors where even those free less.

    Args:
        candidates: Requests that may be squeezed.
        slots: Slots to free.

    Returns:
        The new budget of each request that is moved and frees something by it.
    """
    found = tuple(candidates)

    def budgets(level: int) -> dict[str, int]:
        return {c.request_id: min(c.budget, max(c.floor, level)) for c in found}

    level = _highest(lambda level: freed(found, budgets(level)) >= slots, [c.budget for c in found])
    moved = budgets(level)
    return {c.request_id: moved[c.request_id] for c in found if c.growth(moved[c.request_id]) < c.growth(c.budget)}


def plan_growth(candidates: Iterable[Bounded], slots: int) -> dict[str, int]:
    """Returns new budgets that take at most some slots; empty where none can be raised.

    Args:
        candidates: Requests that may grow.
        slots: Slots to take.
    """
    found = tuple(candidates)

    def budgets(level: int) -> dict[str, int]:
        return {c.request_id: max(c.budget, min(c.ceiling, level)) for c in found}

    level = _highest(lambda level: -freed(found, budgets(level)) <= slots, [c.ceiling for c in found])
    moved = budgets(level)
    return {c.request_id: moved[c.request_id] for c in found if moved[c.request_id] > c.budget}


def freed(candidates: Iterable[Bounded], budgets: Mapping[str, int]) -> int:
    """Returns the slots that new budgets free; negative where they take more than they free."""
    return sum(c.growth(c.budget) - c.growth(budgets.get(c.request_id, c.budget)) for c in candidates)


def _highest(holds: Callable[[int], bool], values: list[int]) -> int:
    """Returns the highest level up to the largest value at which a condition holds that holds at lower ones; else 0."""
    low, high = 0, max(values, default=0) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
