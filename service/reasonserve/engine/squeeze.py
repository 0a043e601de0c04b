"""Which running requests give KV memory up when the pool runs short, and which take it back: pure decisions.

A round brings a request from the private slots that it holds down to its budget S, and to less when S is lowered
first. So a level is put over all requests, as high as the need allows: who holds more than the level gives up what
lies above it, the largest first, and nobody is brought under its floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Holder:
    """A request that could round now.

    Attributes:
        held: Its slots past the pinned prefix: what a round works on.
        budget: S in force, which a round leaves it.
        floor: Least S that it may be squeezed to.
    """

    held: int
    budget: int
    floor: int

    def under(self, level: int) -> int:
        """Returns the budget that a level leaves it."""
        return max(min(self.budget, level), min(self.budget, self.floor))

    def gives(self, level: int) -> int:
        """Returns the slots that it gives up under a level; none where it holds no more than that."""
        return self.held - self.under(level) if self.held > max(level, self.under(level)) else 0


def squeezed_budgets(holders: Sequence[Holder], need: int) -> list[int | None]:
    """Returns the budgets under the highest level that frees what is needed.

    Args:
        holders: Requests that could round now.
        need: Slots to free. Where the floors do not allow so much, as much as they allow is freed.

    Returns:
        For each holder the budget to round to, which may be the one in force, or None where it is left alone.
    """
    low, high = 0, max((h.held for h in holders), default=0)
    while high > low:  # the level that is looked for lies in [low, high]
        middle = (low + high + 1) // 2
        low, high = (middle, high) if sum(h.gives(middle) for h in holders) >= need else (low, middle - 1)
    return [h.under(low) if need > 0 and h.gives(low) > 0 else None for h in holders]


@dataclass(frozen=True, slots=True)
class Squeezed:
    """A request whose budget in force is lower than the one it may have.

    Attributes:
        budget: S in force.
        asked: S that it may have.
    """

    budget: int
    asked: int


def regrown_budgets(squeezed: Sequence[Squeezed], room: int) -> list[int]:
    """Returns budgets that take the room, the most squeezed request first; each gets all that it asked for or nothing.

    Args:
        squeezed: Requests, in order of arrival; the older first where two were squeezed alike.
        room: Slots that nobody has reserved.
    """
    budgets = [s.budget for s in squeezed]
    for index, s in sorted(enumerate(squeezed), key=lambda pair: pair[1].budget / pair[1].asked):
        if s.asked - s.budget <= room:
            room -= s.asked - s.budget
            budgets[index] = s.asked
    return budgets
